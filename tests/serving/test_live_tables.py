"""Rows of the past come from few files of the tables, and are those that the whole table has."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.grid import CalendarSpec, Grid
from resources.lake import Lake
from resources.registry import Registry
from serving.live_read import Page, Window
from serving.live_tables import _of_table
from tests.serving.conftest import Serve
from tests.serving.test_live import LIVE, push, warm
from tests.serving.test_openapi import LAYOUT

GRID = Grid(CalendarSpec("XNYS"), "1h")


@pytest.fixture(scope="module", params=["day", "month", "year"])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A table of two symbols over two years: one has few bars, and none for months."""
    made = Lake(str(tmp_path_factory.mktemp("lake")))
    stamps = GRID.slots(date(2022, 6, 1), date(2022, 7, 31) if request.param == "day" else date(2023, 9, 30))
    chance = np.random.default_rng(5)
    frames = []
    for number, share in enumerate((1.0, 0.05)):
        kept = stamps[chance.random(len(stamps)) < share]
        kept = (
            kept if number == 0 else kept[(kept < np.datetime64("2022-07-10")) | (kept > np.datetime64("2022-09-15"))]
        )
        frames.append(
            pl.DataFrame(
                {
                    "symbol": f"S{number}",
                    "timestamp": pl.Series(kept).dt.replace_time_zone("UTC"),
                    "known_at": pl.Series(GRID.ends(kept)).dt.replace_time_zone("UTC"),
                    "close": chance.normal(size=len(kept)),
                    "partition": GRID.partition_keys(kept, request.param),
                }
            )
        )
    rows = pl.concat(frames)
    made.write("bars/1h", rows.partition_by("partition"), rows["partition"].unique().to_list(), LAYOUT)
    return made


instants = st.one_of(
    st.none(),
    st.datetimes(datetime(2022, 5, 20), datetime(2023, 10, 10)).map(lambda one: one.replace(tzinfo=UTC)),
    st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)]),
)


@given(symbol=st.sampled_from(["S0", "S1", "S2"]), start=instants, end=instants, limit=st.integers(1, 400))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_page_of_the_past_is_the_newest_rows_of_the_whole_table(
    lake: Lake, symbol: str, start: datetime | None, end: datetime | None, limit: int
) -> None:
    rows = lake.scan("bars/1h").collect().filter(pl.col("symbol") == symbol).sort("timestamp")
    rows = rows if start is None else rows.filter(pl.col("timestamp") >= start)
    rows = (rows if end is None else rows.filter(pl.col("timestamp") < end)).tail(limit + 1)
    found = _of_table(lake, "bars/1h", Page(symbol, Window(start, end, limit), ()), ["close", "vwap"], known=True)
    assert found.time.tolist() == rows["timestamp"].dt.replace_time_zone(None).to_list()
    assert found.values["close"].tolist() == rows["close"].to_list()
    assert np.isnan(found.values["vwap"]).all()
    assert found.known is not None
    assert found.known.tolist() == rows["known_at"].dt.replace_time_zone(None).to_list()


def test_a_question_about_a_few_days_opens_their_files_alone(tmp_path: Path) -> None:
    made = Lake(str(tmp_path))
    stamps = GRID.slots(date(2022, 6, 1), date(2022, 6, 30))
    rows = pl.DataFrame(
        {
            "symbol": "S0",
            "timestamp": pl.Series(stamps).dt.replace_time_zone("UTC"),
            "close": np.arange(len(stamps), dtype=float),
            "partition": GRID.partition_keys(stamps, "day"),
        }
    )
    made.write("bars/1h", [rows], rows["partition"].unique().to_list(), LAYOUT)
    for file in tmp_path.glob("bars/1h/**/*.parquet"):
        if not "2022-06-14" <= file.parent.name.rpartition("=")[2] <= "2022-06-17":
            file.unlink()

    def ask(end: datetime, limit: int) -> list[float]:
        page = Page("S0", Window(None, end, limit), ())
        return _of_table(made, "bars/1h", page, ["close"], known=False).values["close"].tolist()

    end = datetime(2022, 6, 16, tzinfo=UTC)
    assert ask(end, 5) == rows.filter(pl.col("timestamp") < end)["close"].to_list()[-6:]
    with pytest.raises(OSError, match="No such file"):  # so that the files which are gone would have been missed
        ask(end, 100)


@pytest.fixture
def ahead(
    registry: Registry, tmp_path: Path, serve: Serve, bars: pl.DataFrame
) -> Iterator[tuple[httpx.Client, pl.DataFrame, datetime]]:
    """A service whose features table ends after the first session, and bars pushed far beyond it and its memory."""
    whole = bars.with_columns(price_factor=pl.lit(1.0))
    first = whole["timestamp"].dt.date().min()
    day = whole.filter(pl.col("timestamp").dt.date() == first)
    lake = Lake(f"{tmp_path}/lake")
    for table, columns in (("bars", day.columns), ("features", ["symbol", "timestamp"])):
        rows = day.select(columns).with_columns(partition=pl.lit(str(first)))
        if table == "features":
            rows = rows.with_columns(momentum=pl.lit(1.0), trend=pl.lit(2.0), volume_ratio=pl.lit(3.0))
        lake.write(f"{table}/5m", [rows], [str(first)], LAYOUT)
    with (
        serve(tmp_path, live=LIVE.model_copy(update={"keep": 30})) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        warm(client)
        push(client, whole.filter(pl.col("timestamp").dt.date() > first))
        yield client, whole, day["timestamp"].max()


def test_an_answer_says_where_a_feed_that_ran_far_ahead_left_bars_without_features(
    ahead: tuple[httpx.Client, pl.DataFrame, datetime],
) -> None:
    client, whole, end = ahead
    newest = whole["timestamp"].max()
    for _ in range(200):  # until the pass over what was pushed is through
        answer = client.get("/api/features/AAA", params={"horizon": "5m", "limit": 200}).json()
        if datetime.fromisoformat(answer["timestamp"][-1]) == newest:
            break
    gap = {name: datetime.fromisoformat(stamp) for name, stamp in answer["gap"].items()}
    told = [datetime.fromisoformat(stamp) for stamp in answer["timestamp"]]
    assert gap["after"] == end
    assert not [stamp for stamp in told if gap["after"] < stamp < gap["before"]]
    mine = whole.filter(pl.col("symbol") == "AAA")["timestamp"]
    silent = mine.filter(mine.is_between(gap["after"], gap["before"], closed="none"))
    assert len(silent) > 100
    assert sorted(told) == sorted(set(mine.to_list()[-200 - len(silent) :]) - set(silent.to_list()))
    # Where the gap is not in the question, it is not in the answer.
    for query in (
        {"start": gap["before"].isoformat()},
        {"end": (end - timedelta(hours=1)).isoformat()},
        {"limit": "5"},
    ):
        assert client.get("/api/features/AAA", params={"horizon": "5m", **query}).json()["gap"] is None
    assert client.get("/api/data/AAA", params={"horizon": "5m", "limit": 500}).json()["gap"] is None
