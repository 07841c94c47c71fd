"""When a model is trained by itself: each cause, each thing that holds it back, and laws over all of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.retraining import DAY, Facts, Failed, Policy, Training, decide, failed_in_a_row

NOW = datetime(2024, 3, 1, 21, tzinfo=UTC)
POLICY = Policy(
    first_sessions=40, on_drift=True, most_false_alarms=0.1, on_decay=True, age_sessions=60, every_sessions=None,
    cooldown_sessions=5, per_day=1, failures=3,
)  # fmt: skip


def trained(sessions_ago: int, done: bool | None = True, id: str = "aaaaaaaa-1") -> Training:
    return Training(id, NOW - sessions_ago * DAY, sessions_ago, done)


CALM = Facts(sessions=300, champion="c1", champion_age=10, trainings=[trained(10)], drift=None, decay=None)
DRIFTED = Failed("8 of 30 columns drifted", 0, "http://ui/drift", "http://page/drift")
DECAYED = Failed("realized -0.01 is below", 0, "http://ui/realized", "http://page/realized")


def test_nothing_warrants_a_training_where_nothing_changed() -> None:
    found = decide(CALM, POLICY, NOW)
    assert (found.cause, found.stopped) == (None, False)
    assert "nothing warrants it: champion c1 is 10 sessions old" in found.why


@pytest.mark.parametrize(
    ("changed", "cause", "why", "url"),
    [
        ({"drift": DRIFTED}, "drift", "8 of 30", "http://ui/drift"),
        ({"decay": DECAYED}, "decay", "realized -0.01", "http://ui/realized"),
        ({"drift": DRIFTED, "decay": DECAYED}, "decay", "below; 8 of 30", "http://ui/realized"),
        ({"champion_age": 60}, "age", "60 sessions ago", ""),
        ({"champion": None, "champion_age": None, "trainings": []}, "first", "300 sessions to learn from", ""),
    ],
)
def test_each_cause_trains_and_is_told_with_its_evidence(
    changed: dict[str, object], cause: str, why: str, url: str
) -> None:
    found = decide(replace(CALM, **changed), POLICY, NOW)
    assert (found.cause, found.evidence.url if found.evidence else "") == (cause, url)
    assert why in found.why


def test_a_schedule_counts_from_the_last_training_whatever_became_of_its_model() -> None:
    policy = replace(POLICY, every_sessions=20)
    assert decide(replace(CALM, trainings=[trained(19)]), policy, NOW).cause is None
    assert decide(replace(CALM, trainings=[trained(20)]), policy, NOW).cause == "schedule"


@pytest.mark.parametrize(
    ("off", "changed"),
    [
        ({"on_drift": False}, {"drift": DRIFTED}),
        ({"on_decay": False}, {"decay": DECAYED}),
        ({"age_sessions": None}, {"champion_age": 999}),
        ({"first_sessions": None}, {"champion": None, "trainings": []}),
        ({"first_sessions": 301}, {"champion": None, "trainings": []}),
    ],
)
def test_a_cause_that_the_policy_does_not_name_is_none(off: dict[str, object], changed: dict[str, object]) -> None:
    assert decide(replace(CALM, **changed), replace(POLICY, **off), NOW).cause is None


def test_a_check_that_failed_before_the_last_training_has_had_it() -> None:
    old = replace(DRIFTED, sessions_ago=6)
    had = decide(replace(CALM, drift=old, trainings=[trained(6)]), POLICY, NOW)
    assert had.cause is None
    assert "8 of 30 columns drifted: that has had its training" in had.why
    assert decide(replace(CALM, drift=old, trainings=[trained(7)]), POLICY, NOW).cause == "drift"


def test_a_check_that_cries_wolf_is_no_cause_and_it_says_so() -> None:
    unsure = replace(DRIFTED, rate=0.2)
    found = decide(replace(CALM, drift=unsure), POLICY, NOW)
    assert found.cause is None
    assert "falsely in 20.0% of sessions: more than retraining.most_false_alarms, 10.0%" in found.why
    assert decide(replace(CALM, drift=unsure), replace(POLICY, most_false_alarms=0.2), NOW).cause == "drift"


def test_it_waits_while_one_trains_or_is_queued() -> None:
    found = decide(replace(CALM, drift=DRIFTED, trainings=[trained(0, None, "bbbbbbbb-2"), trained(10)]), POLICY, NOW)
    assert found.cause is None
    assert "run bbbbbbbb trains or waits to; meanwhile: 8 of 30" in found.why


def test_it_cools_down_after_a_model_but_a_failed_training_is_tried_again_the_next_day() -> None:
    hot = replace(CALM, drift=DRIFTED, trainings=[trained(4)])
    assert "cools down: 4 sessions after the last training" in decide(hot, POLICY, NOW).why
    assert decide(replace(hot, trainings=[trained(5)]), POLICY, NOW).cause == "drift"
    failed = replace(hot, trainings=[trained(0, False), trained(10)])
    waits = decide(failed, POLICY, NOW)
    assert waits.cause is None
    assert "1 trainings in 24 hours, retraining.per_day is 1" in waits.why
    assert f"the next from {NOW + DAY:%Y-%m-%d %H:%M}" in waits.why
    assert decide(failed, POLICY, NOW + DAY).cause == "drift"
    assert decide(failed, replace(POLICY, per_day=2), NOW).cause == "drift"


def test_failures_in_a_row_stop_it_and_a_success_by_hand_lets_it_go_on() -> None:
    failed = [
        trained(number, False, f"{number}{number}{number}{number}{number}{number}{number}{number}-x")
        for number in (1, 2, 3)
    ]
    stopped = decide(replace(CALM, drift=DRIFTED, trainings=[*failed, trained(30)]), POLICY, NOW)
    assert (stopped.cause, stopped.stopped) == (None, True)
    assert "3 trainings failed in a row (runs 11111111, 22222222, 33333333)" in stopped.why
    assert "train by hand: once that succeeds, retraining goes on" in stopped.why
    two = decide(replace(CALM, drift=DRIFTED, trainings=[*failed[:2], trained(30)]), POLICY, NOW)
    assert (two.cause, two.stopped) == ("drift", False)
    by_hand = [trained(0, True, "by hand"), *failed]
    assert not decide(replace(CALM, trainings=by_hand), POLICY, NOW).stopped
    assert failed_in_a_row(by_hand) == []


def test_a_canceled_training_is_no_failure_and_is_asked_for_again_a_day_later_whatever_the_budget() -> None:
    ended = [
        replace(trained(ago, False, f"{ago}{ago}{ago}{ago}{ago}{ago}{ago}{ago}-x"), canceled=True) for ago in range(4)
    ]
    known, policy = replace(CALM, drift=DRIFTED, trainings=[*ended, trained(30)]), replace(POLICY, per_day=9)
    held = decide(known, policy, NOW)
    assert (held.cause, held.stopped) == (None, False)
    assert (
        f"run 00000000 was canceled, or never began: it is asked for again from {NOW + DAY:%Y-%m-%d %H:%M} UTC"
        in held.why
    )
    assert decide(known, policy, NOW + DAY).cause == "drift"


def trainings() -> st.SearchStrategy[list[Training]]:
    one = st.tuples(st.integers(0, 80), st.sampled_from([True, False, None]))
    return st.lists(one, max_size=6).map(
        lambda found: [trained(ago, done, f"{ago}") for ago, done in sorted(found, key=lambda pair: pair[0])]
    )


checks = st.none() | st.integers(0, 80).map(lambda ago: replace(DRIFTED, sessions_ago=ago))
facts = st.builds(
    Facts,
    sessions=st.integers(0, 500),
    champion=st.sampled_from([None, "c1"]),
    champion_age=st.integers(0, 200),
    trainings=trainings(),
    drift=checks,
    decay=checks,
)
policies = st.builds(
    Policy,
    first_sessions=st.none() | st.integers(1, 400),
    on_drift=st.booleans(),
    most_false_alarms=st.sampled_from([0.05, 0.1]),
    on_decay=st.booleans(),
    age_sessions=st.none() | st.integers(1, 100),
    every_sessions=st.none() | st.integers(1, 100),
    cooldown_sessions=st.integers(1, 20),
    per_day=st.integers(1, 3),
    failures=st.integers(1, 4),
)


@given(facts, policies)
def test_a_training_is_never_begun_beside_another_over_the_budget_in_the_cool_down_or_once_stopped(
    known: Facts, policy: Policy
) -> None:
    found = decide(known, policy, NOW)
    if found.cause is None:
        assert found.why
        return
    assert not found.stopped
    assert all(one.done is not None for one in known.trainings)
    assert sum(NOW - one.at < DAY for one in known.trainings) < policy.per_day
    assert all(one.sessions_ago >= policy.cooldown_sessions for one in known.trainings if one.done)
    assert len(failed_in_a_row(known.trainings)) < policy.failures
    assert (known.champion is None) == (found.cause == "first")


@given(facts, policies, st.integers(1, 60))
def test_waiting_alone_never_takes_a_cause_away(known: Facts, policy: Policy, days: int) -> None:
    """What warrants a training today and is held back only by time is trained later."""
    quiet = replace(known, trainings=[one for one in known.trainings if one.done])
    later = replace(
        quiet,
        trainings=[replace(one, sessions_ago=one.sessions_ago + days) for one in quiet.trainings],
        champion_age=None if quiet.champion_age is None else quiet.champion_age + days,
        drift=None if quiet.drift is None else replace(quiet.drift, sessions_ago=quiet.drift.sessions_ago + days),
        decay=None if quiet.decay is None else replace(quiet.decay, sessions_ago=quiet.decay.sessions_ago + days),
    )
    if decide(quiet, policy, NOW).cause is not None:
        assert decide(later, policy, NOW + timedelta(days=days)).cause is not None
