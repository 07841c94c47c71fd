"""What was published and not logged when a service was killed is logged by the next: once, with no wrong inputs."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from resources.lake import Lake
from resources.registry import Registry
from serving import live_relog
from serving.live_published import everything
from serving.options import read
from tests.serving.test_live_published import closed, push, until

Serve = Callable[..., AbstractContextManager[str]]
LIVE = read().live.model_copy(update={"deadline_seconds": 0.4, "refresh_seconds": 0.2})
LOG = read().log.model_copy(update={"flush_seconds": 0.05})
SAME = ("request", "route", "bundle", "number", "role", "symbol", "timestamp", "prediction", "coverage")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_relog, "MARGIN", 0.3)


@pytest.fixture
def killed(registry: Registry, bars: pl.DataFrame, tmp_path: Path, serve: Serve) -> tuple[pl.DataFrame, list[Any]]:
    """A store with published sections and no log of them: what the log had said, and the slots, two of which saw a bar
    change after they had closed."""
    bars = bars.with_columns(price_factor=pl.lit(1.0))
    stamps = bars["timestamp"].unique().sort()
    with serve(tmp_path, live=LIVE, log=LOG) as address, httpx.Client(base_url=address, timeout=30) as client:
        until(lambda: client.get("/signals/5m").status_code == 200)
        push(client, bars.filter(pl.col("timestamp") <= stamps[40]))
        closed(client, stamps[40])
        one = bars.filter(pl.col("timestamp") == stamps[39]).head(1)
        push(client, one.with_columns(pl.col("close", "high") * 1.0005))
        push(client, bars.filter(pl.col("timestamp") == stamps[41]))
        closed(client, stamps[41])
    was = logged(tmp_path)
    shutil.rmtree(tmp_path / "lake" / "predictions")
    return was, stamps.to_list()


def logged(root: Path) -> pl.DataFrame:
    lake = Lake(f"{root}/lake")
    if not lake.exists("predictions/5m"):
        return pl.DataFrame({"role": []}, schema={"role": pl.String})
    return lake.scan("predictions/5m").filter(pl.col("role") != "shadow").sort("timestamp", "symbol").collect()


def test_published_signals_come_into_the_log_once_and_with_inputs_where_no_bar_changed(
    killed: tuple[pl.DataFrame, list[Any]], tmp_path: Path, serve: Serve
) -> None:
    was, stamps = killed
    # Two that start at once do not both log them.
    with serve(tmp_path, live=LIVE, log=LOG), serve(tmp_path, live=LIVE, log=LOG):
        until(lambda: logged(tmp_path).height)
        time.sleep(1.0)
    rows = logged(tmp_path)
    assert sorted(rows["signal"]) == sorted(was["signal"])
    assert len(rows) > 100
    both = was.join(rows, on="signal", suffix="_again", validate="1:1")
    for name in SAME:
        assert both[name].equals(both[f"{name}_again"].alias(name), null_equal=True), name
    assert rows["seconds"].null_count() == len(rows)
    when = {one.scored.request_id: one.closed_at for one in everything(tmp_path, "5m")}
    assert rows["at"].to_list() == [when[request] for request in rows["request"]]
    # Those that had read a bar which changed afterwards have none.
    kept = both.filter(pl.col("inputs_again").is_not_null())
    assert kept["timestamp"].unique().sort().to_list() == [*stamps[:39], stamps[41]]
    for name in ("inputs", "inputs_hash"):
        assert kept[name].equals(kept[f"{name}_again"].alias(name)), name
    without = both.filter(pl.col("inputs_again").is_null())
    assert without["inputs_hash_again"].null_count() == len(without)
    # The next start finds nothing to do.
    with serve(tmp_path, live=LIVE, log=LOG):
        time.sleep(1.0)
    assert logged(tmp_path).height == len(rows)


def test_a_service_that_keeps_no_log_adds_nothing(
    killed: tuple[pl.DataFrame, list[Any]], tmp_path: Path, serve: Serve
) -> None:
    with serve(tmp_path, live=LIVE, log=LOG.model_copy(update={"predictions": False})):
        time.sleep(1.0)
    assert logged(tmp_path).is_empty()


def test_without_inputs_in_the_log_there_are_hashes(
    killed: tuple[pl.DataFrame, list[Any]], tmp_path: Path, serve: Serve
) -> None:
    with serve(tmp_path, live=LIVE, log=LOG.model_copy(update={"inputs": False})):
        until(lambda: logged(tmp_path).height)
    rows = logged(tmp_path)
    assert rows["inputs"].null_count() == len(rows)
    assert 0 < rows["inputs_hash"].null_count() < len(rows)
