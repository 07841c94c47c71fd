"""The rules of alerts: every short history of one thing that goes wrong and right, and of many at once."""

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.alerting import KINDS, After, Alerts, Kind
from resources.alert_rules import Fact, Held, Message, decide

START = datetime(2024, 3, 4, 15, 0, tzinfo=UTC)
TICK = timedelta(minutes=1)


def rules(after: float | None = 0.0, gather: float = 0.0, remind: float = 24.0) -> Alerts:
    return Alerts(
        after=After(**dict.fromkeys(KINDS, after)),
        severity="WARN",
        gather_seconds=gather,
        remind_hours=remind,
        log=True,
    )


def fact(holds: bool | None, horizon: str = "5m", what: str = "bars", kind: Kind = "data_late") -> Fact:
    return Fact(kind, horizon, what, holds, f"{horizon} is late", "http://127.0.0.1:3000/runs/1")


def replayed(history: list[list[Fact]], given_rules: Alerts) -> tuple[list[list[Message]], list[Held]]:
    """The messages of each tick, a minute apart, and what holds at the end."""
    held: list[Held] = []
    told = []
    for number, facts in enumerate(history):
        messages, held = decide(facts, given_rules, held, START + number * TICK)
        told.append(messages)
    return told, held


@pytest.mark.parametrize("remind_minutes", [2, 1440])
@pytest.mark.parametrize("gather", [0.0, 60.0])
@pytest.mark.parametrize("after", [0.0, 1.0, 2.0])
def test_every_history_of_one_thing_is_raised_once_reminded_while_it_lasts_and_resolved_once(
    after: float, gather: float, remind_minutes: int
) -> None:
    for values in itertools.product((True, False, None), repeat=7):
        told, _ = replayed([[fact(value)] for value in values], rules(after, gather, remind_minutes / 60))
        letters = ["".join({"raised": "+", "reminder": "r", "resolved": "-"}[m.state] for m in one) for one in told]
        assert re.fullmatch(r"(\+r*-)*(\+r*)?", "".join(letters)), (values, letters)
        assert "".join(letters) == expected(values, int(after), int(gather / 60), remind_minutes), values


def expected(values: tuple[bool | None, ...], after: int, gather: int, remind: int) -> str:
    """The letters of a history, in minutes, told by hand: what is wrong, untold or told, or over and not yet told."""
    letters = ""
    began: int | None = None
    told: int | None = None
    over: int | None = None
    for tick, value in enumerate(values):
        if value is True:
            began, over = (tick if began is None else began), None
        if value is False and told is None:
            began = None
        if value is False and told is not None and over is None:
            over = tick
        if over is not None:
            if tick - over >= gather:
                letters += "-"
                began = told = over = None
        elif began is not None and told is None and tick - began >= after + gather:
            letters, told = letters + "+", tick
        elif told is not None and tick - told >= remind:
            letters, told = letters + "r", tick
    return letters


def test_a_kind_that_is_never_told_stays_silent_and_is_told_once_it_is_wanted() -> None:
    told, held = replayed([[fact(True)]] * 3, rules(after=None))
    assert told == [[], [], []]
    messages, _ = decide([fact(True)], rules(), held, START + 3 * TICK)
    assert [message.state for message in messages] == ["raised"]


def test_many_of_a_kind_are_one_message_even_where_they_begin_within_the_wait() -> None:
    first = [fact(True, "5m"), fact(False, "1h"), fact(False, "1d")]
    second = [fact(True, "5m"), fact(True, "1h"), fact(True, "1d")]
    told, held = replayed([first, second, second, second], rules(gather=60.0))
    assert [len(one) for one in told] == [0, 1, 0, 0]
    assert [item.horizon for item in told[1][0].items] == ["1d", "1h", "5m"]
    assert told[1][0].subject == "Tenor: data late: 1d, 1h, 5m"
    # They end one after another, and that is one message too; one that is wrong again by then has not ended.
    ends = [["5m"], ["5m", "1h", "1d"]]
    for minute, ended in enumerate(ends, 9):
        facts = [fact(name not in ended, name) for name in ("5m", "1h", "1d")]
        over, held = decide(facts, rules(gather=60.0), held, START + minute * TICK)
    assert [(message.state, len(message.items)) for message in over] == [("resolved", 3)]
    assert held == []
    assert over[0].text.splitlines()[0] == (
        "1d bars: 1d is late (was wrong from 2024-03-04 15:01 to 15:10 UTC)  http://127.0.0.1:3000/runs/1"
    )


def test_kinds_are_messages_of_their_own() -> None:
    told, _ = replayed([[fact(True, kind=kind) for kind in KINDS]], rules())
    assert [message.kind for message in told[0]] == list(KINDS)


def test_what_is_not_watched_any_more_is_resolved_and_says_so() -> None:
    told, held = replayed([[fact(True)], []], rules())
    assert [message.state for message in told[1]] == ["resolved"]
    assert "it is not watched any more" in told[1][0].text
    assert held == []


def test_a_reminder_holds_all_that_lasts_and_the_newest_reason() -> None:
    first = [fact(True, "5m"), fact(True, "1h")]
    told, _ = replayed(
        [first, first, [fact(True, "5m"), Fact("data_late", "1h", "bars", True, "worse")]], rules(remind=2 / 60)
    )
    assert [len(one) for one in told] == [1, 0, 1]
    assert told[2][0].subject == "Tenor: still: data late: 1h, 5m"
    assert "worse" in told[2][0].text


def test_the_same_message_has_the_same_id_and_another_has_another() -> None:
    told, _ = replayed([[fact(True)], [fact(False)]], rules())
    again, _ = replayed([[fact(True)], [fact(False)]], rules())
    assert [one[0].id for one in told] == [one[0].id for one in again]
    assert told[0][0].id != told[1][0].id


THINGS = [(kind, horizon, what) for kind in KINDS[:2] for horizon in ("5m", "1h") for what in ("bars", "model")]


@given(
    st.lists(st.lists(st.sampled_from((True, False, None)), min_size=8, max_size=8), min_size=1, max_size=12),
    st.sampled_from((0.0, 1.0, 3.0)),
    st.sampled_from((0.0, 30.0, 120.0)),
)
def test_nothing_that_lasts_is_lost_and_no_tick_has_two_messages_of_a_kind_and_state(
    history: list[list[bool | None]], after: float, gather: float
) -> None:
    facts = [
        [Fact(kind, horizon, what, value) for (kind, horizon, what), value in zip(THINGS, values, strict=True)]
        for values in history
    ]
    lasting = [facts[-1]] * 8
    told, held = replayed(facts + lasting, rules(after, gather))
    for one in told:
        assert len({(message.kind, message.state) for message in one}) == len(one)
    open_now: set[tuple[str, str, str]] = set()
    for one in told:
        for message in one:
            keys = {item.key for item in message.items}
            if message.state == "raised":
                assert not keys & open_now
                open_now |= keys
            elif message.state == "resolved":
                assert keys <= open_now
                open_now -= keys
    # After eight more minutes of the same, all that is wrong was told, and nothing else is open.
    assert {fact.key for fact in facts[-1] if fact.holds} <= open_now
    assert open_now == {one.key for one in held}
