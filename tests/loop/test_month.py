"""A calendar month in minutes, under Dagster's own daemons and beside a real service: what comes late, wrong, twice or
not at all ends where it should, and a market that changes for good is noticed, trained for, judged and deployed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import dagster as dg
import httpx
import numpy as np
import polars as pl
import pytest

from assets import drift_history, names
from assets.plan import Plan
from conf.compose import compose
from conf.files import REPOSITORY
from defs.processes import Processes
from defs.refresh import ASKED, DUE, RANGE_END, RANGE_START
from defs.service import command, url_of
from resources.inference import Inference
from resources.registry import Entry, Registry
from tests.assets.conftest import FEW
from tests.defs.test_up import free_port, wait
from tests.loop.client import Answer, asking, signals
from tests.loop.market import GRID, Vendor, bars, turbulent
from tests.loop.rebuild import rebuilt, same, vectors
from tests.loop.replay import Replay, replayed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

FIRST, HISTORY, MONTH = date(2021, 9, 1), 42, 21  # the month is November 2021, with a half day and a change of hour
LATE, REVISED, MISSING, DEAD, CHANGE, KILLED, RESTARTED, BACK = (HISTORY + at for at in (1, 3, 5, 7, 10, 12, 14, 18))
COOLDOWN = 4
PATIENCE = 300  # seconds: a busy machine is no broken law
KEY = ["symbol", "timestamp"]
VALUES = ["open", "high", "low", "close", "volume"]


@dataclass
class Lived:
    """The month when it is over; the service has been asked to stop, and the store is as it was left."""

    replay: Replay
    days: list[date]
    newest: dict[int, date] = field(default_factory=dict)  # of the bars, after each close
    made: dict[int, int] = field(default_factory=dict)  # runs that made features, after each close
    failed: str = ""  # what the refresh said when its source was dead
    back: Entry | None = None  # what a person rolled back to
    answers: list[Answer] = field(default_factory=list)
    health: tuple[dict, dict] = ({}, {})  # type: ignore[type-arg]  # before and after

    @property
    def registry(self) -> Registry:
        return Registry(self.replay.root)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Iterator[Lived]:
    folder, port = tmp_path_factory.mktemp("month"), free_port()
    market = bars(FIRST, HISTORY + MONTH, seed=4)
    days = market["timestamp"].dt.date().unique().sort().to_list()
    vendor = Vendor(folder / "vendor", turbulent(market, days[CHANGE]))
    words = [
        "horizon=5m,30m", *FEW, "vectors.window=20", f"serving.port={port}",
        "drift.window_sessions=2", "drift.rate=0.05", "drift.share=0.2",
        "folds.count=2", "model.n_estimators=20", f"retraining.cooldown_sessions={COOLDOWN}",
        "judging.margin=-1.0",  # a new model serves unless it is much worse
        "retention.every_days=null",  # the run that is killed is a refresh, never a vacuum
    ]  # fmt: skip
    now = GRID.sessions(days[HISTORY - 1], days[HISTORY - 1])[0].close + timedelta(hours=1)
    with replayed(folder, configs, words, vendor, HISTORY, now) as replay, Processes() as processes:
        replay.daemon.settle()  # the first start: all there is, and the first model
        serving = compose(replay.words)["5m"].serving
        url, log = url_of(serving), replay.root / "service.log"
        processes.start("service", command(replay.root, serving), {}, cwd=REPOSITORY, log=log)
        month = Lived(replay, days)
        with Inference(url) as service:
            service.wait_alive(PATIENCE)
            service.wait_ready(PATIENCE)
            wait(lambda: httpx.get(f"{url}/signals/5m", trust_env=False).is_success, PATIENCE, "a live state")
            before = service.health()
            with asking(url, "5m") as client:
                for at in range(HISTORY, HISTORY + MONTH):
                    live_through(month, at, url)
                last = vendor.market["timestamp"].max()
                wait(lambda: newest_bar(service) == last, PATIENCE, "the last bar in the live state")
            month.answers, month.health = client.answers, (before, service.health())
            assert client.trouble is None
        assert processes.ended() is None
        processes.stop()
        yield month


def live_through(month: Lived, at: int, url: str) -> None:
    """The vendor sends, or not, what there is of a session; it closes, and what follows from that follows."""
    replay, vendor, days = month.replay, month.replay.vendor, month.days
    rows = vendor.of(days[at])
    if at == LATE:
        vendor.send(
            days[at], rows.filter((pl.col("symbol") != "S001") | (pl.col("timestamp") < rows["timestamp"].max()))
        )
    elif at != MISSING:
        vendor.send(days[at])
    if at == LATE + 1:
        vendor.send(days[LATE])
    if at == REVISED + 1:
        noon = pl.col("timestamp").dt.hour() == 17
        revised = vendor.of(days[REVISED])
        vendor.send(days[REVISED], revised.with_columns(close=pl.when(noon).then("low").otherwise("close")))
    if at == MISSING + 1:
        vendor.send(days[MISSING])
    if at == DEAD:
        vendor.dies()
    if at == KILLED:
        replay.next_run_is_killed()
    if at == RESTARTED:
        replay.postgres_is_killed()
    if at == BACK:
        person_goes_back(month, url)
    replay.close(days[at])
    if at == DEAD:
        [*_, newest] = replay.asked("refresh")
        month.failed = replay.failure(newest)
        vendor.lives()
    month.newest[at] = replay.table("bars")["timestamp"].dt.date().max()  # type: ignore[assignment]
    month.made[at] = len(replay.runs_of("features"))


def person_goes_back(month: Lived, url: str) -> None:
    """To what served before, through the service."""
    httpx.post(f"{url}/models/5m/rollback", json={"why": "it trades too much"}, trust_env=False).raise_for_status()
    month.back = month.registry.champion("5m")


def newest_bar(service: Inference) -> datetime:
    return datetime.fromisoformat(service.health()["horizons"]["5m"]["newest_bar"])


def test_each_due_moment_is_served_once_whatever_befalls(lived: Lived) -> None:
    days, refreshes = lived.days, lived.replay.asked("refresh")
    assert (refreshes[0].tags[RANGE_START], refreshes[0].tags[RANGE_END]) == (str(days[0]), str(days[HISTORY - 1]))
    moments = [run.tags[DUE] for run in refreshes if run.is_success]
    assert len({*moments}) == len(moments)
    assert len(moments) == 1 + MONTH - 1  # the first start, and each session but the dead one, which the next covers
    for at in range(HISTORY, HISTORY + MONTH):
        assert lived.newest[at] == days[at - 1 if at in (MISSING, DEAD) else at]
    assert "vendor" in lived.failed
    runs = lived.replay.daemon.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    failed = {step for run in runs if not run.is_success for step in run.asset_selection or ()}
    assert failed == {names.key("5m", "bars")}  # of the dead source, and of the process that was killed


def test_what_follows_a_refresh_follows_once(lived: Lived) -> None:
    calm = [at for at in range(HISTORY + 1, HISTORY + MONTH) if at not in (MISSING, DEAD, DEAD + 1)]
    assert {lived.made[at] - lived.made[at - 1] for at in calm} == {1}


def test_no_bar_is_lost(lived: Lived) -> None:
    # The table holds what the vendor sent last, and what was late or revised is known since it came.
    sent = pl.concat(lived.replay.vendor.sent.values()).sort(KEY)
    stored = lived.replay.table("bars")
    assert stored.select(*KEY, *VALUES).equals(sent.select(*KEY, *VALUES))
    changed = stored.filter(pl.col("known_at") > pl.col("timestamp") + timedelta(minutes=5))
    assert {*changed["timestamp"].dt.date()} == {lived.days[LATE], lived.days[REVISED]}


def test_every_partition_equals_a_clean_rebuild(lived: Lived, tmp_path: Path) -> None:
    with rebuilt(lived.replay, tmp_path / "clean", lived.days[HISTORY]) as clean:
        for horizon in ("5m", "30m"):
            for step in ("bars", "features", "factors"):
                assert same(lived.replay.table(step, horizon), clean.table(step, horizon)), (horizon, step)
            assert vectors(lived.replay.root, horizon) == vectors(tmp_path / "clean", horizon), horizon
        drift = names.table("drift", "5m")
        ours, theirs = (lake.scan(drift).collect() for lake in (lived.replay.lake, clean.lake))
        assert ours["session"].unique().sort().to_list() == lived.days[HISTORY:]
        assert ours["champion"].n_unique() > 1
        assert same(ours, theirs)


def test_the_change_is_noticed_within_two_sessions(lived: Lived) -> None:
    plan = Plan(compose(lived.replay.words)["5m"])
    table = drift_history.history(plan, lived.replay.lake, date.max, 1000).unique("session").sort("session")
    failed = table.filter("failed")["session"].to_list()
    assert min(failed) in lived.days[CHANGE : CHANGE + 2]


def test_models_are_trained_within_the_policy_and_told_from_cause_to_deployment(lived: Lived) -> None:
    days, registry = lived.days, lived.registry
    first, *later = lived.replay.asked("train")
    assert first.tags["tenor/cause"] == "first"
    assert {run.status for run in (first, *later)} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["tenor/cause"] for run in later} == {"drift"}
    # Never within the cool-down, so never twice in a day, and no more often than a month of cool-downs allows.
    place = [
        sum(GRID.sessions(day, day)[0].close.isoformat() <= run.tags[ASKED] for day in days) for run in (first, *later)
    ]
    assert all(after - before >= COOLDOWN for before, after in pairwise(place))
    assert place[1] > CHANGE
    assert 1 <= len(later) <= (MONTH - (CHANGE - HISTORY)) // COOLDOWN + 1

    # From cause to deployment, each tells of the one before.
    second = later[0]
    assert second.tags["tenor/cause_url"].endswith(f"/assets/5m/drift?view=checks&checkDetail={names.NO_DRIFT}")
    bundles = {registry.provenance("5m", id)["run"]: id for id in registry.bundles("5m")}
    why, url, report = (second.tags[f"tenor/{tag}"] for tag in ("why", "cause_url", "cause_report"))
    assert report.rpartition("/reports/5m/")[2] in {f"drift-{day}.html" for day in days[CHANGE:]}
    cause = {"kind": "drift", "why": why, "url": url, "report": report}
    assert registry.provenance("5m", bundles[second.run_id])["cause"] == cause
    [judgement] = registry.judgements("5m", bundles[second.run_id])
    assert judgement["champion"] == bundles[first.run_id]
    champion, deployed = registry.champion("5m"), lived.replay.told("deployment")
    assert champion is not None
    assert (deployed["bundle"], deployed["ledger number"], deployed["why"]) == (
        champion.id, champion.number, champion.why,
    )  # fmt: skip
    assert deployed["trained by"].endswith(f"/runs/{registry.provenance('5m', champion.id)['run']}")


def test_what_a_person_rolled_back_stays_back(lived: Lived) -> None:
    assert lived.back is not None
    assert lived.back.action == "rollback"
    ledger = lived.registry.ledger("5m")
    before, after = ledger[: lived.back.number], ledger[lived.back.number :]
    assert not {entry.id for entry in before} & {entry.id for entry in after}


def test_the_service_never_stopped_answering(lived: Lived) -> None:
    assert {one.status for one in lived.answers} == {200}
    healths = [one.body for one in lived.answers if one.path == "/health"]
    assert {one["status"] for one in healths} == {"serving"}
    before, after = lived.health
    assert after["started_at"] == before["started_at"]
    champion = lived.registry.champion("5m")
    assert champion is not None
    assert (after["horizons"]["5m"]["bundle"], after["horizons"]["5m"]["number"]) == (champion.id, champion.number)
    assert after["log_problem"] is None


def test_every_answer_is_what_its_bundle_says_and_the_ledger_only_goes_on(lived: Lived) -> None:
    asked = [one for one in lived.answers if one.X is not None]
    assert len(asked) > 100
    ledger = {entry.number: entry.id for entry in lived.registry.ledger("5m")}
    numbers = [one.body["number"] for one in asked]
    assert numbers == sorted(numbers)
    assert all(ledger[one.body["number"]] == one.body["bundle"] for one in asked)
    assert {*numbers} == {*ledger}  # each of them was heard of while it served
    for id in {one.body["bundle"] for one in asked}:
        theirs = [one for one in asked if one.body["bundle"] == id]
        said = lived.registry.load("5m", id).predict_rows(
            np.concatenate([one.X for one in theirs if one.X is not None])
        )
        assert signals(theirs)["prediction"].to_list() == said.tolist()


def test_every_answer_is_in_the_prediction_log_once(lived: Lived) -> None:
    log = lived.replay.lake.scan("predictions/5m").filter(pl.col("role") == "champion").collect()
    assert log["signal"].is_unique().all()
    told = signals([one for one in lived.answers if one.X is not None]).sort("signal")
    kept = log.filter(pl.col("route") == "/predict").select(told.columns).sort("signal")
    assert kept.equals(told)
    live = {
        row["signal"]: (section["bundle"], row["prediction"])
        for one in lived.answers if one.path == "/signals/5m"
        for section in one.body["sections"]
        for row in section["signals"]
    }  # fmt: skip
    rows = log.filter(pl.col("route") == "live")
    assert live
    assert (
        live.items()
        <= dict(zip(rows["signal"], zip(rows["bundle"], rows["prediction"], strict=True), strict=True)).items()
    )
    for (id,), theirs in log.partition_by("bundle", as_dict=True).items():
        X = np.array(theirs["inputs"].to_list(), np.float32)
        assert theirs["prediction"].to_list() == lived.registry.load("5m", id).predict_rows(X).tolist()
