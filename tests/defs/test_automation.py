"""Every condition, evaluated as the daemon does: a change is followed once, and only where a look-back touches it."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType

from assets import names
from assets.plan import Plan
from assets.versions import TAG
from conf.compose import compose
from conf.schema import Horizon
from defs.automation import SCORES
from defs.graph import build
from resources.clock import FixedClock

MARKET = ["source.start=2021-11-01", "source.sessions=20", "source.symbols=2"]
SMALL = ["features=[volatility]", "factors=[pass_through]", "vectors.window=60", "drift.window_sessions=2"]
SCORED = {f"5m {step}": ["None"] for step in SCORES}
FOLLOW = ("features", "factors", "vectors", "drift")
NOON = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)


@cache
def graph(*words: str) -> tuple[dict[str, Horizon], dg.Definitions]:
    """Horizons and their graph, over a store that nothing here reads or writes."""
    horizons = compose([*words, "store.root=/nonexistent"])
    return horizons, build(horizons, clock=FixedClock(NOON))


class Daemon:
    """The conditions of a graph over an instance of its own; `bars` and `run` stand for the runs that would happen."""

    def __init__(self, *words: str) -> None:
        self.horizons, self.defs = graph(*words)
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: dg.AssetDaemonCursor | None = None  # type: ignore[name-defined]
        self.now = NOON
        repository = self.defs.get_repository_def()
        self.graph = repository.asset_graph
        self.job = repository.get_job

    def partitions(self, horizon: str = "5m") -> list[str]:
        parts = self.graph.get(names.key(horizon, "bars")).partitions_def
        assert parts is not None
        return list(parts.get_partition_keys(self.now))

    def tick(self, minutes: int = 1) -> dict[str, list[str]]:
        """What is asked for, by "horizon step", as partitions in order."""
        self.now += timedelta(minutes=minutes)
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, evaluation_time=self.now, cursor=self.cursor
        )
        self.cursor = result.cursor
        keys = [names.key(h, step) for h in self.horizons for step in (*names.STEPS, *SCORES)]
        found = {" ".join(key.path): result.get_requested_partitions(key) for key in keys}
        return {name: sorted(map(str, asked)) for name, asked in found.items() if asked}

    def made(self, step: str, versions: Mapping[str, str], horizon: str = "5m") -> None:
        """A step was made: its partitions hold what these versions name."""
        for key, version in versions.items():
            event = dg.AssetMaterialization(names.key(horizon, step), partition=key, tags={TAG: version})
            self.instance.report_runless_asset_event(event)

    def settled(self) -> None:
        """Everything was made once, and what followed from that too."""
        self.tick()
        for horizon in self.horizons:
            for step in names.REFRESH:
                self.made(step, dict.fromkeys(self.partitions(horizon), "first"), horizon)
        for horizon in self.horizons:
            for step in SCORES:
                self.instance.report_runless_asset_event(dg.AssetMaterialization(names.key(horizon, step)))
        for _ in range(3):
            self.tick()
        assert self.tick() == {}


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon("horizon=5m", *MARKET, *SMALL)
    with made.instance:
        yield made


def touched(daemon: Daemon, step: str, changed: Collection[str]) -> list[str]:
    """Partitions of a step whose look-back reaches a changed partition of the step before it: by slots."""
    plan = Plan(daemon.horizons["5m"])
    lookback = {"features": plan.features, "factors": plan.factors, "vectors": plan.vectors}[step].lookback
    found = []
    for key in daemon.partitions():
        day = date.fromisoformat(key)
        first = plan.grid.back(day, lookback) if lookback else day
        read = {str(session) for session in plan.grid.dates(first, day)}
        found += [key] if read & {*changed} else []
    return found


def test_a_fresh_store_asks_for_nothing_before_there_are_bars_and_then_for_everything_once(daemon: Daemon) -> None:
    assert daemon.tick() == {}
    daemon.made("bars", dict.fromkeys(daemon.partitions(), "first"))
    asked = daemon.tick()
    assert [asked[f"5m {step}"] for step in FOLLOW] == [daemon.partitions()] * 4
    assert daemon.tick() == {}


def test_what_is_missing_when_the_daemon_first_looks_is_asked_for(daemon: Daemon) -> None:
    daemon.made("bars", dict.fromkeys(daemon.partitions(), "first"))
    daemon.made("features", dict.fromkeys(daemon.partitions()[:-3], "first"))
    asked = daemon.tick()
    assert asked["5m features"] == daemon.partitions()[-3:]
    assert asked["5m drift"] == daemon.partitions()


def test_bars_that_were_fetched_again_and_are_the_same_ask_for_nothing(daemon: Daemon) -> None:
    daemon.settled()
    daemon.made("bars", dict.fromkeys(daemon.partitions(), "a run over the whole range"))  # as Dagster says it at first
    daemon.made("bars", dict.fromkeys(daemon.partitions(), "first"))
    assert daemon.tick() == {}


def test_a_revised_session_is_followed_by_the_partitions_whose_look_back_touches_it(daemon: Daemon) -> None:
    daemon.settled()
    keys = daemon.partitions()
    changed = [keys[5]]
    daemon.made("bars", {key: "first" if key not in changed else "revised" for key in keys[3:8]})
    asked = daemon.tick()
    assert asked["5m outcomes"] == ["None"]
    plan = Plan(daemon.horizons["5m"])
    for step, program in (("features", plan.features), ("factors", plan.factors), ("vectors", plan.vectors)):
        expected = touched(daemon, step, changed)
        assert set(expected) <= set(asked[f"5m {step}"]), step
        # Half days make the worst case wider than this week's by at most one session.
        assert len(asked[f"5m {step}"]) <= len(expected) + (1 if program.lookback else 0), step
        changed = asked[f"5m {step}"] if step != "vectors" else changed
    assert daemon.tick() == {}


def test_a_bar_that_came_late_in_the_newest_session_asks_for_that_session_alone(daemon: Daemon) -> None:
    daemon.settled()
    newest = daemon.partitions()[-1]
    daemon.made("bars", {newest: "with the late bar"})
    assert daemon.tick() == {**{f"5m {step}": [newest] for step in FOLLOW}, **SCORED}


def test_features_that_came_out_the_same_are_followed_by_nothing(daemon: Daemon) -> None:
    daemon.settled()
    daemon.made("features", {daemon.partitions()[4]: "first"})
    assert daemon.tick() == {}
    daemon.made("features", {daemon.partitions()[4]: "others"})
    assert daemon.partitions()[4] in daemon.tick()["5m factors"]


def test_a_partition_whose_look_back_has_a_gap_waits_until_it_is_filled(daemon: Daemon) -> None:
    daemon.tick()
    keys = daemon.partitions()
    daemon.made("bars", dict.fromkeys((key for key in keys if key != keys[9]), "first"))
    asked = daemon.tick()["5m features"]
    assert keys[9] not in asked
    assert keys[8] in asked
    assert keys[10] not in asked
    daemon.made("bars", {keys[9]: "first"})
    assert [key for key in keys if key not in asked] == [
        key for key in daemon.tick()["5m features"] if key not in asked
    ]


def started(daemon: Daemon, step: str, first: str, last: str) -> dg.DagsterRun:
    """A run of a step over a range, under way."""
    job = daemon.job("__ASSET_JOB")
    key = names.key("5m", step)
    return daemon.instance.create_run_for_job(
        job.get_subset(asset_selection={key}),
        asset_selection=frozenset({key}),
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        status=dg.DagsterRunStatus.STARTED,
    )


def test_a_change_while_a_step_runs_asks_for_it_again_when_it_is_done(daemon: Daemon) -> None:
    daemon.settled()
    newest = daemon.partitions()[-1]
    daemon.made("bars", {newest: "second"})
    assert daemon.tick()["5m features"] == [newest]
    run = started(daemon, "features", newest, newest)
    daemon.made("bars", {newest: "third"})  # the run may have read the second
    assert "5m features" not in daemon.tick()
    daemon.made("features", {newest: "of the second"})
    daemon.instance.handle_run_event(run.run_id, DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name))
    assert daemon.tick()["5m features"] == [newest]
    assert "5m features" not in daemon.tick()


def test_a_step_that_failed_is_tried_again_at_the_hour_and_not_before(daemon: Daemon) -> None:
    daemon.settled()
    newest = daemon.partitions()[-1]
    daemon.made("bars", {newest: "second"})
    assert daemon.tick()["5m features"] == [newest]
    daemon.instance.report_run_failed(started(daemon, "features", newest, newest))
    assert "5m features" not in daemon.tick()
    assert "5m features" not in daemon.tick(minutes=5)
    past_the_hour = 61 - daemon.now.minute
    assert daemon.tick(minutes=past_the_hour)["5m features"] == [newest]
    assert "5m features" not in daemon.tick()


def test_a_step_that_failed_is_asked_for_when_what_it_reads_changes(daemon: Daemon) -> None:
    daemon.settled()
    newest = daemon.partitions()[-1]
    daemon.made("bars", {newest: "second"})
    daemon.tick()
    daemon.instance.report_run_failed(started(daemon, "features", newest, newest))
    assert "5m features" not in daemon.tick()
    daemon.made("bars", {newest: "third"})
    assert daemon.tick()["5m features"] == [newest]


def test_the_unfinished_session_of_a_source_that_goes_on_is_followed_when_it_has_bars() -> None:
    goes_on = ["source.start=2026-01-02", "source.sessions=null", "source.symbols=2"]
    made = Daemon("horizon=5m", *goes_on, *SMALL)
    with made.instance:
        assert made.partitions() == ["2026-01-02", "2026-01-05"]
        made.tick()
        made.made("bars", {"2026-01-02": "first"})
        assert made.tick()["5m drift"] == ["2026-01-02"]
        for step in FOLLOW:
            made.made(step, {"2026-01-02": "first"})
        made.tick()
        made.made("bars", {"2026-01-05": "until noon"})
        assert made.tick()["5m drift"] == ["2026-01-05"]
        # No partition of the future is asked for, though its look-back has changed.
        assert all("2026-01-06" not in keys for keys in made.tick().values())


def test_where_bars_come_after_each_interval_they_are_scored_once_an_hour() -> None:
    made = Daemon("horizon=5m", "automation=interval", *MARKET, *SMALL)
    with made.instance:
        made.settled()
        newest = made.partitions()[-1]
        asked = []
        for minutes in range(10, 130, 10):  # from half past twelve
            made.made("bars", {newest: f"bar {minutes}"})
            found = made.tick(minutes=10)
            assert "5m features" in found  # everything else follows every bar
            made.made("features", {newest: f"bar {minutes}"})
            if SCORED.items() <= found.items():
                asked.append((made.now.hour, made.now.minute))
        assert [hour for hour, _ in asked] == [13, 14]


def test_resampled_bars_follow_the_finer_ones() -> None:
    made = Daemon("horizon=5m,30m", *MARKET, *SMALL)
    with made.instance:
        made.settled()
        changed = made.partitions()[5]
        made.made("bars", {changed: "revised"})
        asked = made.tick()
        assert asked["30m bars"] == [changed]
        assert changed in asked["5m features"]
        made.made("bars", {changed: "revised"}, "30m")
        assert changed in made.tick()["30m features"]


def test_where_automation_is_off_no_step_has_a_condition_and_no_sensor_runs() -> None:
    made = Daemon("horizon=5m", "automation=off", *MARKET, *SMALL)
    with made.instance:
        made.made("bars", dict.fromkeys(made.partitions(), "first"))
        assert made.tick() == {}
        sensors = {sensor.name for sensor in made.defs.sensors or ()}
        assert not {name for name in sensors if name.startswith(("refresh_", "follow_"))}


def test_a_model_is_never_asked_for_by_a_condition(daemon: Daemon) -> None:
    for step in ("bars", "model"):
        assert daemon.graph.get(names.key("5m", step)).automation_condition is None
