"""`GET /analogs`: the answer is that of the search below it, the label the served bundle's, refusals are problems."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from quant.served_label import served_label
from quant.states import KEYS, States, of_market
from resources.analogs import Terms, analogs
from resources.database import Database
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from resources.vectors import Vectors, market_of
from tests.serving.conftest import Serve

COLUMNS = {"one": "its expression", "two": "its expression"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, bundles: list[Bundle], bars: pl.DataFrame) -> Path:
    """A store with the bars, a state at each, and a bundle that serves."""
    root = tmp_path_factory.mktemp("analogs")
    registry = Registry(root)
    registry.write(bundles[0], {})
    registry.promote("5m", bundles[0].id, "first")
    days = bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition")
    Lake(root / "lake").write("bars/5m", [bars.with_columns(days)], days.unique().to_list(), {"test": True})
    grid = bundles[0].recipe.grid
    slots = grid.slots(bars["timestamp"].min().date(), bars["timestamp"].max().date())
    keys = bars.sort("timestamp", "symbol").select("symbol", "timestamp", "known_at", coverage=pl.lit(1.0, pl.Float32))
    vectors = np.cumsum(np.random.default_rng(0).normal(size=(len(keys), 2)), axis=0).astype(np.float32) % 9
    market = of_market(slots, {"one": np.ones((len(slots), 1), np.float32)}, grid.ends(slots).astype(np.int64)[:, None],
                       np.ones((len(slots), 1), bool))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TENOR_DATABASE_URL", raising=False)
        database = Database(root)
        store, sessions = Vectors(database), grid.session_dates(slots)
        store.write("5m", States(keys.cast(KEYS), vectors), slots, sessions, columns=COLUMNS)  # type: ignore[arg-type]
        store.write(market_of("5m"), market, slots, sessions, columns=COLUMNS)
        database.release()
    return root


@pytest.fixture(scope="module")
def web(root: Path, serve: Serve) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TENOR_DATABASE_URL", raising=False)
        with serve(root) as url, Inference(url) as inference, httpx.Client(base_url=url, timeout=60) as client:
            inference.wait_ready(30)
            yield client


def test_the_answer_is_that_of_the_search_with_the_label_that_is_served(
    web: httpx.Client, root: Path, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    at = bars["timestamp"].max() - timedelta(hours=1)
    told = web.get("/analogs", params={"horizon": "5m", "symbol": "BBB", "at": at.isoformat(), "k": 5}).json()
    terms = Terms("5m", bundles[0].recipe.grid, served_label(bundles[0]), 1)
    database = Database(root)
    expected = analogs(Vectors(database), Lake(root / "lake"), terms, at=at, symbol="BBB", k=5)
    database.release()
    assert [one["distance"] for one in told["analogs"]] == expected.rows["distance"].to_list()
    assert [one["outcome"] for one in told["analogs"]] == expected.rows["outcome"].to_list()
    assert all(one["known_at"] <= at.astimezone(UTC).isoformat() for one in told["analogs"])
    assert (told["label"], told["apart"]) == (bundles[0].manifest["label"]["text"], 2)
    assert told["followed"]["known"] == 5


def test_without_a_symbol_it_is_the_market_s_and_without_a_time_it_is_now(
    web: httpx.Client, bars: pl.DataFrame
) -> None:
    told = web.get("/analogs", params={"horizon": "5m"}).json()
    assert told["symbol"] == "market"
    assert told["state"]["timestamp"].startswith(f"{bars['timestamp'].max():%Y-%m-%dT%H:%M}")
    assert len(told["analogs"]) == 10
    assert 1 <= told["analogs"][0]["members"] <= 4


def test_a_time_without_an_offset_is_utc(web: httpx.Client, bars: pl.DataFrame) -> None:
    """As on the command line; the routes of bars and factors take their times alike."""
    at = bars["timestamp"].max() - timedelta(hours=1)
    naive, aware = f"{at:%Y-%m-%dT%H:%M:%S}", at.isoformat()
    asked = {"horizon": "5m", "symbol": "BBB"}
    told = web.get("/analogs", params={**asked, "at": naive})
    assert told.status_code == 200, told.text
    assert told.json() == web.get("/analogs", params={**asked, "at": aware}).json()


@pytest.mark.parametrize(
    ("asked", "status", "kind", "said"),
    [
        ({"symbol": "ZZZ"}, 404, "no-vectors", "no state of ZZZ in 5m"),
        ({"symbol": "AAA", "at": "2020-01-01T00:00:00Z"}, 404, "no-vectors", "was known at 2020-01-01"),
        ({"horizon": "7m"}, 404, "unknown-horizon", "no horizon '7m'"),
        ({"k": 0}, 422, "invalid-request", "k"),
        ({"at": "yesterday"}, 422, "invalid-request", "at"),
        ({"at": "0001-01-01T00:00:00+05:00"}, 422, "invalid-request", "outside the years"),
        ({"symbl": "AAA"}, 422, "unknown-parameter", "symbl"),
    ],
)
def test_a_question_without_an_answer_is_a_problem(
    web: httpx.Client, asked: dict[str, str | int], status: int, kind: str, said: str
) -> None:
    answer = web.get("/analogs", params={"horizon": "5m", **asked})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert answer.json()["type"].endswith(kind)
