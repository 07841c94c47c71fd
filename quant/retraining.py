"""When a model is trained by itself: one function of what is known, a policy and the time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Cause = Literal["first", "decay", "drift", "age", "schedule"]
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Policy:
    """What warrants a training, and what holds it back; None: that does not. Sessions are those of the calendar."""

    first_sessions: int | None  # with so many sessions of factors the first model is trained
    on_drift: bool
    most_false_alarms: float  # a session, of a drift check that is a cause
    on_decay: bool
    age_sessions: int | None  # since the champion was trained
    every_sessions: int | None  # since the newest model was trained, champion or not
    cooldown_sessions: int  # at least, since a model was trained
    per_day: int  # trainings begun in 24 hours, failed ones too
    failures: int  # in a row, which stop it


@dataclass(frozen=True)
class Training:
    """A training that began at `at`, so many closed sessions ago; done: None while it waits or runs.

    canceled: it is not done because somebody ended it, the machine was shut down, or it never began: nothing is wrong
    with it.
    """

    id: str
    at: datetime
    sessions_ago: int
    done: bool | None
    canceled: bool = False


@dataclass(frozen=True)
class Failed:
    """A failed check of the present champion: what it found, in a session so many closed sessions ago, and where."""

    why: str
    sessions_ago: int
    url: str  # of the check, which goes on
    report: str  # of that session
    rate: float = 0.0  # of false alarms, a session


@dataclass(frozen=True)
class Facts:
    """What is known of a horizon. trainings: the newest first; those by hand are among them where they made a model
    or are under way, but their failures are their owner's.
    """

    sessions: int  # that have factors
    champion: str | None
    champion_age: int | None  # closed sessions since it was trained
    trainings: Sequence[Training]
    drift: Failed | None
    decay: Failed | None


@dataclass(frozen=True)
class Decision:
    """Train (`cause` is set) or wait, and why; evidence: a failed check. stopped: until a person has seen to it."""

    cause: Cause | None
    why: str
    evidence: Failed | None = None
    stopped: bool = False


def decide(facts: Facts, policy: Policy, now: datetime) -> Decision:
    """Whether to train now."""
    if (held := _stopped(facts, policy)) is not None:
        return held
    wanted = _wanted(facts, policy)
    if not wanted:
        return Decision(None, _nothing(facts, policy))
    causes = "; ".join(why for _, why, _ in wanted)
    if (busy := next((one for one in facts.trainings if one.done is None), None)) is not None:
        return Decision(None, f"run {busy.id[:8]} trains or waits to; meanwhile: {causes}")
    if (since := _since_trained(facts)) is not None and since < policy.cooldown_sessions:
        rest = f"{since} sessions after the last training, retraining.cooldown_sessions is {policy.cooldown_sessions}"
        return Decision(None, f"cools down: {rest}; meanwhile: {causes}")
    begun = [one for one in facts.trainings if now - one.at < DAY]
    if (ended := next((one for one in begun if one.canceled), None)) is not None:
        again = f"it is asked for again from {ended.at + DAY:%Y-%m-%d %H:%M} UTC"
        return Decision(
            None, f"run {ended.id[:8]} was canceled, or never began: {again}, or train by hand; meanwhile: {causes}"
        )
    if len(begun) >= policy.per_day:
        more = min(one.at for one in begun[: policy.per_day]) + DAY
        spent = f"{len(begun)} trainings in 24 hours, retraining.per_day is {policy.per_day}"
        return Decision(None, f"the day's budget is spent: {spent}; the next from {more:%Y-%m-%d %H:%M} UTC; {causes}")
    cause, _, evidence = wanted[0]
    return Decision(cause, causes, evidence)


def failed_in_a_row(trainings: Sequence[Training]) -> list[Training]:
    """The trainings that failed since the last one that succeeded, the newest first; canceled ones did not fail."""
    found = []
    for one in trainings:
        if one.done:
            break
        if one.done is False and not one.canceled:
            found.append(one)
    return found


def _stopped(facts: Facts, policy: Policy) -> Decision | None:
    failed = failed_in_a_row(facts.trainings)
    if len(failed) < policy.failures:
        return None
    runs = ", ".join(one.id[:8] for one in failed[: policy.failures])
    why = (
        f"stopped: {len(failed)} trainings failed in a row (runs {runs}), retraining.failures is {policy.failures}. "
        "Look at why, then train by hand: once that succeeds, retraining goes on"
    )
    return Decision(None, why, stopped=True)


def _wanted(facts: Facts, policy: Policy) -> list[tuple[Cause, str, Failed | None]]:
    """Every cause that holds, the most telling first: with why, and the evidence."""
    if facts.champion is None:
        if policy.first_sessions is None or facts.sessions < policy.first_sessions:
            return []
        return [("first", f"no model serves, and there are {facts.sessions} sessions to learn from", None)]
    since = _since_trained(facts)
    found: list[tuple[Cause, str, Failed | None]] = []
    if policy.on_decay and facts.decay is not None and _fresh(facts.decay, since):
        found.append(("decay", facts.decay.why, facts.decay))
    if policy.on_drift and facts.drift is not None and _fresh(facts.drift, since) and _sure(facts.drift, policy):
        found.append(("drift", facts.drift.why, facts.drift))
    age = facts.champion_age
    if policy.age_sessions is not None and age is not None and age >= policy.age_sessions:
        found.append(("age", f"the champion was trained {age} sessions ago", None))
    if policy.every_sessions is not None and since is not None and since >= policy.every_sessions:
        found.append(("schedule", f"the last model was trained {since} sessions ago", None))
    return found


def _fresh(check: Failed, since: int | None) -> bool:
    """Whether it failed after the last training; one that failed before has had its training."""
    return since is None or check.sessions_ago < since


def _sure(check: Failed, policy: Policy) -> bool:
    return check.rate <= policy.most_false_alarms


def _since_trained(facts: Facts) -> int | None:
    """Closed sessions since a model was trained; None where none was."""
    return next((one.sessions_ago for one in facts.trainings if one.done), None)


def _nothing(facts: Facts, policy: Policy) -> str:
    if facts.champion is None:
        least = policy.first_sessions
        told = "retraining.first_sessions is null" if least is None else f"the first takes {least} sessions of factors"
        return f"no model serves, there are {facts.sessions} sessions; {told}"
    told = f"nothing warrants it: champion {facts.champion} is {facts.champion_age} sessions old"
    for check in filter(None, (facts.drift, facts.decay)):
        if not _fresh(check, _since_trained(facts)):
            told += f"; {check.why}: that has had its training, the next takes a session after it"
    if policy.on_drift and facts.drift is not None and not _sure(facts.drift, policy):
        told += (
            f"; the drift check failed, which it does falsely in {facts.drift.rate:.1%} of sessions: more than "
            f"retraining.most_false_alarms, {policy.most_false_alarms:.1%}. More sessions of training make it surer"
        )
    return told
