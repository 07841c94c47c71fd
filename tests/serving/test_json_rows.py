"""Bodies taken apart and validated item by item are what the whole message's model would have taken, or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from serving import data
from serving.live_messages import PushBars
from serving.messages import PredictBars, PredictBody, PredictRows
from serving.options import read as options
from serving.predict import read
from serving.problems import LISTED, Problem

LIMITS = options().limits
STAMP = "2023-11-30T14:30:00Z"
BAR = {"symbol": "AAA", "timestamp": STAMP, "open": 1.5, "high": 2, "low": 1, "close": 1.25, "volume": None}

odd = st.sampled_from([None, True, "x", "1.5", -1, 1e308, float("nan"), float("inf"), [], {}, [1], {"a": 1}, STAMP])
numbers = st.one_of(st.floats(), st.integers(), st.none(), odd)
factor_rows = st.fixed_dictionaries(
    {"factors": st.dictionaries(st.sampled_from(["a", "b"]), numbers)},
    optional={"symbol": st.one_of(st.text(), odd), "timestamp": st.one_of(st.just(STAMP), odd), "more": odd},
)
changes = st.dictionaries(st.sampled_from([*BAR, "vwap", "price_factor"]), numbers, max_size=2)
bars = st.one_of(changes.map(lambda changed: {**BAR, **changed}), odd)
rows_bodies = st.fixed_dictionaries(
    {"horizon": st.one_of(st.just("5m"), odd), "rows": st.one_of(st.lists(st.one_of(factor_rows, odd)), odd)},
    optional={"more": odd},
)
bars_bodies = st.fixed_dictionaries(
    {"bars": st.one_of(st.lists(bars), odd)},
    optional={
        "horizon": st.just("5m"),
        "last": st.one_of(st.integers(1, 9), odd),
        "absent": st.one_of(st.lists(st.text()), odd),
        "at": st.one_of(st.dictionaries(st.sampled_from(["1h", "1d"]), st.one_of(st.lists(bars), odd)), odd),
    },
)


def outcome(made: Any) -> str:
    """A message to compare: NaN has no place in one."""
    return str(made.model_dump())


@given(body=rows_bodies | bars_bodies)
def test_predict_takes_what_the_model_of_the_whole_body_takes_and_names_as_many_faults(body: dict[str, Any]) -> None:
    sent = json.dumps(body).encode()  # with NaN and Infinity, as Python's clients write them
    kind = PredictRows if "rows" in body else PredictBars
    faults = 0
    try:
        expected = TypeAdapter(kind).validate_json(sent)
    except ValidationError as refused:
        faults = refused.error_count()
    if not faults:
        assert outcome(read(sent, LIMITS)) == outcome(expected)
        return
    with pytest.raises(Problem) as caught:
        read(sent, LIMITS)
    assert caught.value.status_code == 422
    assert caught.value.members["error_count"] == faults
    assert len(caught.value.members["errors"]) == min(LISTED, faults)


@given(sent=st.lists(bars, min_size=1))
def test_each_pushed_bar_is_judged_alone(sent: list[Any]) -> None:
    def well(bar: Any) -> bool:
        try:
            PushBars.model_validate({"horizon": "5m", "bars": [bar]})
        except ValidationError:
            return False
        return True

    horizon, found = data.read(json.dumps({"horizon": "5m", "bars": sent}).encode(), 1000)
    assert horizon == "5m"
    assert sorted(found.good) == [row for row, bar in enumerate(sent) if well(bar)]
    assert all(error["row"] == row for row, errors in found.wrong.items() for error in errors)
    assert set(found.good) | set(found.wrong) <= set(range(found.total))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"horizon": "5m", "rows": [' + b"[" * 100_000, 400),
        (b'{"horizon": "\xff", "rows": []}', 400),
        (b"[]", 422),
        (b"[NaN]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"horizon": "5m", "rows": [], "bars": []}', 422),
        (b'{"horizon": "5m", "rows": [{"factors": {"\xff": 1}}]}', 422),
    ],
)
def test_what_is_no_request_is_refused(sent: bytes, status: int) -> None:
    with pytest.raises(Problem) as caught:
        read(sent, LIMITS)
    assert caught.value.status_code == status


def test_many_faults_are_counted_and_the_first_are_named() -> None:
    body = {"horizon": "5m", "rows": [{"factors": {"a": "x", "b": 1.0, "c": True}}] * 1000}
    with pytest.raises(Problem) as caught:
        read(json.dumps(body).encode(), LIMITS)
    told = caught.value.members
    assert told["error_count"] == 2000
    assert [error["field"] for error in told["errors"][:3]] == [
        "rows[0].factors.a",
        "rows[0].factors.c",
        "rows[1].factors.a",
    ]


def test_the_body_of_the_openapi_document_is_either_kind() -> None:
    schema = TypeAdapter(PredictBody).json_schema()
    assert [one["$ref"].rpartition("/")[2] for one in schema["anyOf"]] == ["PredictRows", "PredictBars"]
