"""`tenor analogs`: what the command line asks and tells, for people and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from defs.cli import main
from quant.states import MARKET
from resources.database import Database
from resources.vectors import Vectors
from tests.resources.test_analogs import SLOTS, World

Say = Callable[..., tuple[int, str, str]]
AT = f"at={SLOTS[-1]}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TENOR_DATABASE_URL", raising=False)
        database = Database(root)
        World().store(Vectors(database), root / "lake")
        database.release()
    return root


@pytest.fixture
def say(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    for variable in ("TENOR_CONF", "TENOR_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)

    def said(*words: str) -> tuple[int, str, str]:
        asked = [] if any(word.startswith("horizon=") for word in words) else ["horizon=5m"]
        status = main(["analogs", *asked, f"store.root='{store}'", *words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return said


def test_a_symbol_s_analogs_are_told_with_what_followed(say: Say) -> None:
    status, out, _ = say("symbol=B", AT, "k=4")
    assert status == 0
    assert "B, horizon 5m, as of 2024-07-09 19:55: its state at 2024-07-09 19:45" in out  # that of 19:50 came late
    assert sum(line.startswith("│ 2024-07-0") for line in out.splitlines()) == 4
    assert "analogs are at least 12 bars apart" in out
    assert "on average" in out


def test_json_has_the_same_and_every_number(say: Say) -> None:
    status, out, _ = say(AT, "k=4", "--json")
    told = json.loads(out)
    assert (status, told["symbol"], len(told["analogs"])) == (0, MARKET, 4)
    assert told["at"] == "2024-07-09T19:55:00+00:00"
    known = [one["outcome"] for one in told["analogs"] if one["outcome"] is not None]
    assert told["followed"]["known"] == len(known)
    assert told["followed"]["mean"] == pytest.approx(sum(known) / len(known))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["symbol=NOBODY", AT], "no state of NOBODY in 5m"),
        (["symbol=B", "at=2020-01-01"], "no state of B in 5m was known at 2020-01-01"),
        (["symbol=B", "at=noon"], "at=noon is no time. Write it as 2024-03-01T15:00"),
        (["k=0"], "k=0 must be a whole number from 1 to 100"),
        (["symbol="], "symbol= is empty"),
        (["horizon=5m,1h"], "analogs takes one horizon, not 5m, 1h"),
        (["horizon=1h"], "horizon 1h has no vectors yet"),
    ],
)
def test_a_question_that_has_no_answer_is_told_in_a_line(say: Say, words: list[str], said: str) -> None:
    status, _, err = say(*words)
    assert status == 2
    assert said in err
