"""The retraining sensor on a real store: the first model, a failed check and its training, failures that stop it."""

from datetime import datetime, timedelta

import dagster as dg
import pytest

from assets import names
from defs.refresh import ASKED, HORIZON, WHAT
from defs.retraining import policy_of, stopped
from defs.retraining_facts import facts_of
from quant.retraining import decide
from tests.assets.conftest import Pipeline, configs, environment
from tests.defs.looping import WORDS, Loop

pytestmark = pytest.mark.slow  # it trains half a dozen models
__all__ = ["configs", "environment"]  # the small sets, in the place of this folder's config


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    return Loop(Pipeline(tmp_path_factory.mktemp("loop"), *WORDS))


@pytest.fixture(autouse=True)
def structural(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from resources.settings import OVERRIDES_VARIABLE

    monkeypatch.setenv(OVERRIDES_VARIABLE, shlex.join(loop.made.words))


def test_the_first_model_is_trained_when_enough_sessions_are_there(loop: Loop) -> None:
    assert "no model serves, there are 0 sessions; the first takes 14" in str(loop.tick())
    loop.close(15)
    request = loop.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "5m train after nothing"
    assert request.asset_selection == [names.key("5m", step) for step in names.TRAIN]
    assert (request.tags[HORIZON], request.tags[WHAT], request.tags["tenor/cause"]) == ("5m", "train", "first")
    assert datetime.fromisoformat(request.tags[ASKED]) == loop.made.clock.now()
    assert loop.train(dict(request.tags)).success
    told = loop.told()
    assert (told["cause"], told["cause, why"]) == ("first", request.tags["tenor/why"])
    champion = loop.made.registry.champion("5m")
    assert champion is not None
    assert champion.id == told["bundle"]
    assert loop.made.registry.provenance("5m", champion.id)["cause"]["kind"] == "first"
    assert "nothing warrants it" in str(loop.tick())


def test_a_failed_check_trains_once_with_its_evidence_and_cools_down_before(loop: Loop) -> None:
    first = loop.made.registry.champion("5m")
    assert first is not None
    for session in (16, 17):
        key = loop.close(session, moved=3.0)
        loop.made.run("drift", keys=[key])
    failed = loop.made.run("drift", keys=[key]).checks[names.NO_DRIFT]
    assert not failed.passed
    request = loop.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.tags["tenor/cause"] == "drift"
    assert f"drift check of session {key}: No longer looks like training" in request.tags["tenor/why"]
    assert request.tags["tenor/cause_url"].endswith(f"/assets/5m/drift?view=checks&checkDetail={names.NO_DRIFT}")
    repeated = loop.tick()
    assert isinstance(repeated, dg.RunRequest)
    assert repeated.run_key == request.run_key  # a tick that is repeated asks for the same run
    assert loop.train(dict(request.tags)).success
    told = loop.told()
    assert told["cause"] == "drift"
    assert told["caused by"] == request.tags["tenor/cause_url"]
    assert told["bundle"] != first.id
    assert loop.made.registry.provenance("5m", told["bundle"])["cause"]["url"] == request.tags["tenor/cause_url"]
    assert "nothing warrants it" in str(loop.tick())  # the check failed before that training


def test_a_rollback_by_hand_stays_though_the_same_data_is_trained_again(loop: Loop) -> None:
    made = loop.made
    new = loop.told()["bundle"]
    ledger = made.registry.ledger("5m")
    first = ledger[0].id
    if ledger[-1].id != new:
        made.registry.promote("5m", new, "by hand", by="me")
    made.registry.rollback("5m", "trades too much", by="me")
    assert loop.train({}).success
    told = loop.told()
    assert (told["bundle"], told["cause"]) == (new, "by hand")
    assert f"was champion before; {first} stays champion" in told["promotion"]
    champion = made.registry.champion("5m")
    assert champion is not None
    assert (champion.id, champion.by) == (first, "me")


def test_failures_stop_it_until_a_training_by_hand_succeeds(loop: Loop) -> None:
    made, resources = loop.made, (loop.made.lake, loop.made.registry, loop.reports)
    for session in (20, 21):
        key = loop.close(session, moved=3.0)
        made.run("drift", keys=[key])
        request = loop.tick()
        assert isinstance(request, dg.RunRequest), request
        assert not loop.train(dict(request.tags), ("model.num_leaves=1",)).success
    key = loop.close(22, moved=3.0)
    made.run("drift", keys=[key])
    why = str(loop.tick())
    assert "stopped: 2 trainings failed in a row" in why
    halted = stopped(made._instance, loop.plan, *resources, made.clock)
    assert halted is not None
    assert "train by hand" in halted.why
    assert loop.train({}).success
    assert stopped(made._instance, loop.plan, *resources, made.clock) is None
    facts = facts_of(made._instance, loop.plan, *resources, made.clock.now())
    assert [one.done for one in facts.trainings[:3]] == [True, False, False]
    assert decide(facts, policy_of(loop.plan), made.clock.now()).cause is None


def test_a_model_whose_run_was_deleted_still_cools_down(loop: Loop) -> None:
    made = loop.made
    facts = (made._instance, loop.plan, made.lake, made.registry, loop.reports, made.clock.now())
    before = facts_of(*facts).trainings
    run = made.registry.provenance("5m", made.registry.bundles("5m")[-1])["run"]
    made._instance.delete_run(run)
    after = facts_of(*facts).trainings
    assert [one for one in after if one.done] == [one for one in before if one.done]


def test_while_one_trains_no_other_is_asked_for(loop: Loop) -> None:
    made = loop.made
    made.run("drift", keys=[loop.close(23, moved=3.0)])
    made.clock.set(made.clock.now() + timedelta(days=6))  # no drift of later sessions, but it has cooled down
    request = loop.tick()
    assert isinstance(request, dg.RunRequest), request
    queued = run_of(loop, dict(request.tags), dg.DagsterRunStatus.STARTED)
    assert f"run {queued.run_id[:8]} trains or waits to" in str(loop.tick())


def test_a_training_that_nobody_could_start_did_not_fail(loop: Loop) -> None:
    made = loop.made
    asked = {HORIZON: "5m", WHAT: "train", ASKED: made.clock.now().isoformat()}
    run = run_of(loop, asked, dg.DagsterRunStatus.STARTING)
    made._instance.report_run_failed(run, "the code server could not be reached")
    trainings = facts_of(made._instance, loop.plan, made.lake, made.registry, loop.reports, made.clock.now()).trainings
    [found] = [one for one in trainings if one.id == run.run_id]
    assert (found.done, found.canceled) == (False, True)


def run_of(loop: Loop, tags: dict[str, str], status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """A run of a training that is not executed."""
    made = loop.made
    return made._instance.create_run_for_job(
        dg.Definitions(
            assets=list(made.assets.values()), resources=made._resources, executor=dg.in_process_executor,
            jobs=[dg.define_asset_job("train", [names.key("5m", "model")])],
        ).resolve_job_def("train"),
        tags=tags, status=status,
    )  # fmt: skip
