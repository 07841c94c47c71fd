"""What the refresh sensor asks for: once for each due moment, from the first gap on, and again after a failure."""

import shlex
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from conf.schema import Horizon
from defs.alert_facts import failure
from defs.graph import build
from defs.refresh import ASKED, DUE, RANGE_END, RANGE_START, Ask, Attempt, Wait, attempts, decide, span
from resources.clock import FixedClock
from resources.settings import OVERRIDES_VARIABLE

GOES_ON = ["source.sessions=null", "source.symbols=2", "source.start=2021-11-01"]
CLOSE = datetime(2021, 11, 24, 21, 1, tzinfo=UTC)  # a Wednesday; Thanksgiving follows, then a half day
BEFORE = datetime(2021, 11, 23, 21, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@cache
def horizons(*words: str) -> dict[str, Horizon]:
    return compose(["horizon=5m", *GOES_ON, *words])


@cache
def plan(*words: str) -> Plan:
    return Plan(horizons(*words)["5m"])


def parts(made: Plan, first: date = date(2021, 11, 1)) -> dg.TimeWindowPartitionsDefinition:
    return partitions.definition(made, first, None, CLOSE.date())


def found(made: Plan, there: Sequence[str], covered: datetime | None, now: datetime) -> tuple[str, str] | None:
    return span(made, {"5m": made.horizon}, parts(made), there, covered, now)


def sessions(first: str, last: str) -> list[str]:
    days = plan().grid.dates(date.fromisoformat(first), date.fromisoformat(last))
    return [str(day) for day in days]


# -- whether ---------------------------------------------------------------------------------------------------------


def test_bars_are_asked_for_from_their_due_moment_on() -> None:
    done = Attempt(BEFORE, BEFORE, True)
    early = decide(plan(), [done], None, CLOSE - timedelta(seconds=1))
    assert isinstance(early, Wait)
    assert "is there" in early.why
    assert decide(plan(), [done], None, CLOSE) == Ask(CLOSE, 0, BEFORE)
    assert decide(plan(), [], None, CLOSE) == Ask(CLOSE, 0, None)


def test_moments_that_were_missed_become_one_refresh() -> None:
    long_ago = CLOSE - timedelta(days=20)
    assert decide(plan(), [Attempt(long_ago, long_ago, True)], None, CLOSE) == Ask(CLOSE, 0, long_ago)


def test_nothing_is_asked_for_while_a_refresh_is_under_way() -> None:
    running = [Attempt(BEFORE, BEFORE, None)]
    soon = decide(plan(), running, None, BEFORE + 2 * MINUTE)
    assert isinstance(soon, Wait)
    assert (soon.warning, "under way" in soon.why) == (False, True)
    late = decide(plan(), running, None, CLOSE)
    assert isinstance(late, Wait)
    assert late.warning
    assert "expected_minutes" in late.why


def test_a_failed_refresh_is_asked_for_again_after_pauses_that_double_up_to_an_hour() -> None:
    past: list[Attempt] = []
    now, pauses = CLOSE, []
    for attempt in range(9):
        told = decide(plan(), past, None, now)
        assert told == Ask(CLOSE, attempt, None)
        past.insert(0, Attempt(CLOSE, now, False))
        asked = now
        while isinstance(told := decide(plan(), past, None, now), Wait):
            assert told.warning
            now += timedelta(seconds=30)
        pauses.append((now - asked) / MINUTE)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_next_due_moment_is_tried_at_once_and_covers_what_failed_before() -> None:
    failed = [Attempt(BEFORE, BEFORE + MINUTE, False)] * 5
    covered = BEFORE - timedelta(days=1)
    past = [*failed, Attempt(covered, covered, True)]
    assert decide(plan(), past, None, CLOSE) == Ask(CLOSE, 0, covered)


def test_a_source_that_ended_is_fetched_once_and_then_left_alone() -> None:
    last = CLOSE - MINUTE
    later = CLOSE + timedelta(days=900)
    asked = decide(plan(), [], last, later)
    assert isinstance(asked, Ask)
    told = decide(plan(), [Attempt(asked.due, later, True)], last, later + timedelta(days=7))
    assert isinstance(told, Wait)
    assert "ended with 2021-11-24" in told.why


@given(st.lists(st.tuples(st.integers(1, 4000), st.sampled_from([True, False])), min_size=1, max_size=40))
def test_whatever_ticks_are_lost_and_runs_fail_each_success_covers_all_that_was_due(
    ticks: list[tuple[int, bool]],
) -> None:
    """Ticks come after any number of minutes, each run ends before the next tick; none is asked for twice."""
    past: list[Attempt] = []
    now, keys = BEFORE, set()
    for minutes, works in ticks:
        now += minutes * MINUTE
        told = decide(plan(), past, None, now)
        if isinstance(told, Ask):
            assert (told.due, told.attempts) not in keys
            keys.add((told.due, told.attempts))
            assert told.due <= now
            past.insert(0, Attempt(told.due, now, works))
        elif "is there" in told.why:
            assert decide(plan(), [], None, now) == Ask(past[0].due, 0, None)


# -- what ------------------------------------------------------------------------------------------------------------


def test_a_first_refresh_is_one_range_over_all_there_is() -> None:
    assert found(plan(), [], None, CLOSE) == ("2021-11-01", "2021-11-24")


def test_the_newest_session_and_those_before_it_are_fetched_again() -> None:
    there = sessions("2021-11-01", "2021-11-23")
    assert found(plan(), there, BEFORE, CLOSE) == ("2021-11-19", "2021-11-24")  # three sessions, over a weekend
    assert found(plan("automation.revisions=0"), there, BEFORE, CLOSE) == ("2021-11-23", "2021-11-24")


def test_a_gap_is_covered_from_its_first_partition_on() -> None:
    there = [key for key in sessions("2021-11-01", "2021-11-23") if key != "2021-11-10"]
    assert found(plan(), there, BEFORE, CLOSE) == ("2021-11-10", "2021-11-24")
    weeks_ago = datetime(2021, 11, 5, 20, 1, tzinfo=UTC)
    assert found(plan(), sessions("2021-11-01", "2021-11-05"), weeks_ago, CLOSE) == ("2021-11-03", "2021-11-24")


def test_a_session_that_was_under_way_when_a_daemon_stopped_is_fetched_again() -> None:
    made = plan("automation=interval", "automation.revisions=0")
    noon = datetime(2021, 11, 17, 17, 0, 10, tzinfo=UTC)
    assert found(made, sessions("2021-11-01", "2021-11-24"), noon, CLOSE) == ("2021-11-17", "2021-11-24")


def test_partitions_of_a_month_hold_the_sessions_that_are_fetched() -> None:
    made = Plan(compose(["horizon=1h", "source.sessions=null", "source.start=2021-09-01"])["1h"])
    month = partitions.definition(made, date(2021, 9, 1), None, CLOSE.date())
    keys = ["2021-09-01", "2021-10-01", "2021-11-01"]
    in_december = datetime(2021, 12, 2, 21, 1, tzinfo=UTC)
    before = in_december - timedelta(days=1)
    assert span(made, {"1h": made.horizon}, month, keys, before, in_december) == ("2021-11-01", "2021-12-01")
    later = in_december + timedelta(days=7)
    assert span(made, {"1h": made.horizon}, month, [*keys, "2021-12-01"], later - timedelta(days=1), later) == (
        "2021-12-01",
        "2021-12-01",
    )


def test_a_source_that_has_no_newer_session_is_fetched_to_its_newest(tmp_path: Path) -> None:
    days = [datetime(2021, 11, day, 15, tzinfo=UTC) for day in (1, 2, 3)]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    pl.DataFrame({"symbol": "A", "timestamp": days}).with_columns(
        **{k: pl.lit(v) for k, v in prices.items()}
    ).write_parquet(tmp_path / "bars.parquet")
    made = compose(["horizon=5m", "source=parquet", f"source.path='{tmp_path}/*.parquet'", "universe=all"])
    one = Plan(made["5m"])
    assert span(one, made, parts(one), [], None, CLOSE) == ("2021-11-01", "2021-11-03")
    (tmp_path / "bars.parquet").unlink()
    # A dead source is asked for all up to now: the run fails, with the reason.
    assert span(one, made, parts(one), [], None, CLOSE) == ("2021-11-01", "2021-11-24")


def test_a_half_written_file_is_asked_for_and_its_run_fails_with_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 the rest is on its way")
    words = [f"store.root='{tmp_path}/store'", "source=parquet", f"source.path='{tmp_path}/*.parquet'"]
    typed = ["horizon=5m", *words, "universe=all", "source.start=2021-11-01"]
    repository = build(compose(typed), clock=FixedClock(CLOSE)).get_repository_def()
    [made] = [sensor for sensor in repository.sensor_defs if sensor.name == "refresh_5m"]
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        context = dg.build_sensor_context(instance, resources={"clock": FixedClock(CLOSE)}, repository_def=repository)
        [asked] = made.evaluate_tick(context).run_requests or []
        assert (asked.tags[RANGE_START], asked.tags[RANGE_END]) == ("2021-11-01", "2021-11-24")
        patch.setenv(OVERRIDES_VARIABLE, shlex.join(typed[1:]))
        ran = repository.get_job("bars_5m").execute_in_process(
            instance=instance, tags=dict(asked.tags), raise_on_error=False
        )
        assert f"{tmp_path}/cut.parquet cannot be read" in failure(instance, ran.run_id)  # as an alert says it
        [attempt] = attempts(instance, "5m")
        assert attempt.done is False
        [told] = [made.evaluate_tick(context).skip_message]
        assert told is not None
        assert "1 refreshes failed; the next is at 21:02:00 UTC" in told


# -- the sensor ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sensor(tmp_path: Path) -> tuple[dg.RepositoryDefinition, dg.SensorDefinition, FixedClock]:
    clock = FixedClock(CLOSE)
    made = build(horizons(f"store.root='{tmp_path}'"), clock=clock)
    repository = made.get_repository_def()
    [found] = [sensor for sensor in repository.sensor_defs if sensor.name == "refresh_5m"]
    return repository, found, clock


def test_a_tick_asks_for_one_run_and_says_why_it_waits(
    sensor: tuple[dg.RepositoryDefinition, dg.SensorDefinition, FixedClock],
) -> None:
    repository, made, clock = sensor
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> dg.RunRequest | str:
            context = dg.build_sensor_context(instance, resources={"clock": clock}, repository_def=repository)
            data = made.evaluate_tick(context)
            return data.run_requests[0] if data.run_requests else str(data.skip_message)

        asked = tick()
        assert isinstance(asked, dg.RunRequest)
        assert (asked.tags[RANGE_START], asked.tags[RANGE_END]) == ("2021-11-01", "2021-11-24")
        assert asked.asset_selection == [names.key("5m", "bars")]
        again = tick()  # the daemon that asked was killed before its run was there: the key is the same
        assert isinstance(again, dg.RunRequest)
        assert again.run_key == asked.run_key
        run = instance.create_run_for_job(repository.get_job("bars_5m"), tags=dict(asked.tags))
        assert "under way" in str(tick())
        instance.report_run_failed(run)
        assert "1 refreshes failed" in str(tick())
        clock.set(CLOSE + MINUTE)
        second = tick()
        assert isinstance(second, dg.RunRequest)
        assert second.run_key != asked.run_key
        assert (second.tags[DUE], second.tags[ASKED]) == (asked.tags[DUE], clock.now().isoformat())
