"""The loop's own vacuum: every so many days by the clock, in the tables' pool, and its record says what went."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets import names
from assets.plan import Plan
from conf.compose import compose
from defs import vacuuming
from defs.refresh import ASKED, HORIZON, WHAT
from quant.bundle import Bundle
from resources import removal
from resources.clock import FixedClock
from resources.settings import OVERRIDES_VARIABLE, Settings
from tests.defs.test_vacuum import Store, aged, bundles

__all__ = ["bundles"]  # a fixture

NOW = datetime(2024, 3, 5, 22, tzinfo=UTC)
KEY = names.key("1h", "vacuum")
Status = dg.DagsterRunStatus


def past(status: Status, ago: timedelta) -> vacuuming.Past:
    return vacuuming.Past("0123456789abcdef", NOW - ago, status)


@pytest.mark.parametrize(
    ("every", "before", "said"),
    [
        (None, None, "retention.every_days is null"),
        (1, None, None),
        (1, past(Status.STARTED, timedelta(days=3)), "run 01234567 vacuums or waits to"),
        (1, past(Status.QUEUED, timedelta(0)), "run 01234567 vacuums or waits to"),
        (1, past(Status.SUCCESS, timedelta(hours=23)), "ran; the next is at 2024-03-05 23:00"),
        (1, past(Status.SUCCESS, timedelta(hours=24)), None),
        (7, past(Status.SUCCESS, timedelta(days=6)), "the next is at 2024-03-06 22:00"),
        (1, past(Status.FAILURE, timedelta(minutes=59)), "failed; the next is at 2024-03-05 22:01"),
        (1, past(Status.FAILURE, timedelta(minutes=60)), None),
        (1, past(Status.CANCELED, timedelta(minutes=60)), "the next is at 2024-03-06 21:00"),
        (1, past(Status.SUCCESS, -timedelta(days=30)), None),  # the clock was moved back
    ],
)
def test_it_waits_for_its_days_and_an_hour_after_a_failure(
    every: int | None, before: vacuuming.Past | None, said: str | None
) -> None:
    told = vacuuming.wait(every, before, NOW)
    assert told is None if said is None else said in str(told)


def test_the_sensor_asks_for_one_run_and_for_the_next_when_its_days_have_passed() -> None:
    plan, clock = Plan(compose(["horizon=1h"])["1h"]), FixedClock(NOW)
    sensor = vacuuming.vacuums(plan)
    found = dg.Definitions(
        [vacuuming.build(plan)], sensors=[sensor], resources={"clock": clock, "settings": Settings()}
    )
    repository = found.get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> dg.RunRequest | None:
            given = {"clock": clock}
            with dg.build_sensor_context(instance, repository_def=repository, resources=given) as context:
                asked = sensor.evaluate_tick(context).run_requests
            return asked[0] if asked else None

        first = tick()
        assert first is not None
        assert first.asset_selection == [KEY]
        assert first.tags[WHAT], first.tags[HORIZON] == ("vacuum", "1h")
        assert first.tags[ASKED] == NOW.isoformat()
        run = instance.create_run_for_job(dg.job(name="j")(lambda: None), tags=first.tags)
        assert tick() is None
        instance.report_run_failed(run, "the disk is gone")
        assert tick() is None
        clock.set(NOW + timedelta(hours=1))
        again = tick()
        assert again is not None
        assert again.run_key != first.run_key


def test_what_automation_saw_is_kept_for_its_days(tmp_path: Path) -> None:
    follows = dg.AssetSpec("follows", automation_condition=dg.AutomationCondition.missing())
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        seen = dg.evaluate_automation_conditions(dg.Definitions([follows]), instance)
        [one] = [result.serializable_evaluation for result in seen.results]
        storage = instance.schedule_storage
        assert storage is not None
        storage.add_auto_materialize_asset_evaluations(1, [one.with_run_ids(frozenset())])

        def kept() -> int:
            return len(storage.get_auto_materialize_evaluations_for_evaluation_id(1))

        vacuuming.forget(instance, 1)
        assert kept() == 1
        vacuuming.forget(instance, 0)
        assert kept() == 0


def test_its_run_deletes_what_may_go_says_so_and_leaves_what_serves_whole(
    tmp_path: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "SETTLING", 0.0)
    words = ["horizon=1h", f"store.root='{tmp_path}'", "retention.bundles=0"]
    monkeypatch.setenv(OVERRIDES_VARIABLE, " ".join(words))
    store = Store(tmp_path, bundles)
    store.train(0)
    store.promote(0)
    for content in (1, 2):
        store.bars(content)
    aged(tmp_path, 30)
    store.bars(3)
    store.train(1)
    step = vacuuming.build(Plan(compose(words)["1h"]))
    assert step.op.pool == names.tables_pool("1h")

    def metadata() -> dict[str, object]:
        with dg.instance_for_test() as instance:
            made = dg.materialize([step], instance=instance, resources={"settings": Settings()})
        [event] = made.get_asset_materialization_events()
        return {name: one.value for name, one in event.step_materialization_data.materialization.metadata.items()}

    told = metadata()
    assert "bars/1h: " in str(told["deleted"])
    assert int(str(told["bytes freed"])) > 0
    store.whole()
    assert metadata() == {"deleted": "nothing was old enough", "things deleted": 0, "bytes freed": 0}
