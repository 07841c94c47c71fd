"""`tenor backfill` names what is missing, and makes it with what its look-back touches, in one run."""

from pathlib import Path

import dagster as dg
import pytest

from assets.plan import Plan
from conf.compose import ConfigError
from defs.backfill import backfill, missing, span, told
from resources.dagster_storage import instance
from resources.lake import Lake
from tests.assets.conftest import Pipeline
from tests.defs.conftest import Tenor

MARKET = ["horizon=5m", "source.sessions=12", "source.symbols=2", "features=[volatility]", "factors=[pass_through]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A store of twelve sessions, of which three were never fetched, and two more have no features."""
    made = Pipeline(tmp_path_factory.mktemp("gaps"), *MARKET)
    keys = made.partition_keys()
    for few in (keys[:4], keys[7:]):
        made.run("bars", keys=few)
    made.run("features", "factors", keys=keys[:4])
    made.run("features", "factors", keys=keys[9:])
    return made


def test_what_is_missing_is_found_by_step_and_named(made: Pipeline) -> None:
    keys = made.partition_keys()
    gaps = missing(made.horizons["5m"], made._instance, keys)
    assert gaps == {"bars": keys[4:7], "features": keys[4:9], "factors": keys[4:9]}
    assert told("5m", keys, gaps).splitlines()[0] == f"5m: bars lack 3 of 12 partitions: {', '.join(keys[4:7])}"
    assert missing(made.horizons["5m"], made._instance, keys[:4]) == {}
    assert told("5m", keys[:4], {}) == f"5m: nothing is missing from {keys[0]} to {keys[3]}, 4 partitions"


def test_rows_without_a_record_of_their_making_are_missing_too(made: Pipeline) -> None:
    """Dagster's database is new, the store is not: nothing is known about these rows, so they are made again."""
    with dg.DagsterInstance.ephemeral() as empty:
        keys = made.partition_keys()
        assert missing(made.horizons["5m"], empty, keys)["bars"] == keys


def test_what_comes_after_a_gap_is_made_again_as_far_as_its_look_back_reaches(made: Pipeline) -> None:
    keys = [f"2021-{month:02}-{day:02}" for month in (1, 2, 3) for day in range(1, 29)]
    plan: Plan = made.plan()
    first, last = span(plan, keys, keys[10:12], keys)
    touched = sum(plan.grid.max_sessions(program.lookback) for program in (plan.features, plan.factors, plan.vectors))
    assert first == keys[10]
    assert keys.index(last) == 11 + touched + plan.horizon.drift.window_sessions - 1
    assert span(plan, keys, keys[-1:], keys) == (keys[-1], keys[-1])
    # What was never made is not made because something before it is.
    assert span(plan, keys, keys[10:12], keys[:10]) == (keys[10], keys[11])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["from=yesterday"], "from is yesterday; it must be a date such as 2024-01-31"),
        (["from=2024-02-01", "to=2024-01-31"], "to=2024-01-31 lies before from=2024-02-01"),
    ],
)
def test_a_span_that_is_none_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backfill(["horizon=5m", *words])


@pytest.mark.slow
def test_a_gap_is_filled_in_one_run_and_then_there_is_none(tenor: Tenor, tmp_path: Path) -> None:
    root, words = tmp_path / "store", [*MARKET, "vectors.window=20", "drift.window_sessions=2"]
    first = tenor("backfill", *words, "to=2021-01-08", root=root)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert "5m: bars lack 5 of 5 partitions: 2021-01-04, 2021-01-05" in first.stdout
    rest = tenor("backfill", *words, root=root)
    assert rest.returncode == 0, rest.stdout[-2000:] + rest.stderr[-2000:]
    assert "5m: nothing is missing" in tenor("backfill", *words, root=root).stdout
    assert len(Lake(f"{root}/lake").partitions("factors/5m")) == 12
    with instance(root) as stored:
        assert stored.get_runs_count() == 2
