"""`tenor models`, `promote`, `rollback`: who serves is told, changed by hand through the ledger, and stays."""

import getpass
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from defs.cli import main
from resources.clock import FixedClock
from resources.inference import Inference
from resources.registry import Registry
from tests.resources.test_registry import NOW, make_bundle

pytestmark = pytest.mark.slow  # each starts from a whole `tenor run`

Say = Callable[..., tuple[int, str, str]]

SPANS = {
    "train": ["2024-01-02T00:00:00Z", "2024-02-01T00:00:00Z"],
    "valid": ["2024-02-02T00:00:00Z", "2024-02-20T00:00:00Z"],
    "test": ["2024-02-22T00:00:00Z", "2024-03-09T00:00:00Z"],
}
SCORES = {"model": {"rank_ic": 0.0412, "rank_ic_error": 0.011, "net": {"sharpe": 1.5, "sharpe_error": 0.7}}}
JUDGED = {"champion": None, "wins": True, "why": "the first model of 5m", "p": 0.012}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three bundles of 5m: one served before, one serves, one never did."""
    root = tmp_path_factory.mktemp("models")
    registry = Registry(root, FixedClock(NOW))
    former, champion, _ = (registry.write(make_bundle(text, "5m", SPANS, SCORES), {}) for text in ("a", "b", "c"))
    registry.judged("5m", former, JUDGED)
    registry.promote("5m", former, "the first model of 5m; judgement.json no. 1", by="model step, run 1234")
    registry.judged("5m", champion, {**JUDGED, "champion": former, "why": "it is better", "p": 0.034})
    registry.promote("5m", champion, "it is better; judgement.json no. 1", by="model step, run 5678")
    return root


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Registry:
    shutil.copytree(template, tmp_path / "store")
    return Registry(tmp_path / "store")


@pytest.fixture
def ids(registry: Registry) -> list[str]:
    return registry.bundles("5m")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Say:
    def run(*words: str) -> tuple[int, str, str]:
        status = main([*words, f"store.root='{tmp_path / 'store'}'", "serving.port=9"])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_models_lists_each_bundle_with_its_role_what_it_learned_from_and_its_scores(say: Say, ids: list[str]) -> None:
    status, out, err = say("models", "horizon=5m")
    assert (status, err) == (0, "")
    rows = {id: next(line for line in out.splitlines() if line.startswith("│ " + id)) for id in ids}
    for id, role in zip(ids, ("former", "champion", "challenger"), strict=True):
        assert role in rows[id]
        assert "2024-01-02" in rows[id]
        assert "2024-02-20" in rows[id]  # valid is learned from too, test is not
        assert "+0.041 ± 0.011" in rows[id]
        assert "+1.50 ± 0.70" in rows[id]
    assert f"against {ids[0][:8]}: significant, p 0.034" in rows[ids[1]]
    assert "never" in rows[ids[2]]
    assert f"{ids[1]} serves since 2024-05-01 12:00 UTC (number 2, by model step, run 5678): it is better" in out


def test_models_of_every_horizon_says_which_have_none(say: Say, ids: list[str]) -> None:
    status, out, _ = say("models")
    assert status == 0
    assert ids[0] in out
    assert "no bundle yet: 1m, 15m, 30m, 1h, 1d; `tenor run horizon=1m` trains one" in out


def test_promote_appends_to_the_ledger_who_and_why_and_says_what_serves_now(
    say: Say, registry: Registry, ids: list[str]
) -> None:
    status, out, err = say("promote", "horizon=5m", f"bundle={ids[2][:6]}", "why=the label is better, says ada")
    assert (status, err) == (0, "")
    entry = registry.champion("5m")
    assert entry is not None
    assert (entry.number, entry.id, entry.action, entry.why) == (3, ids[2], "promote", "the label is better, says ada")
    assert entry.by.startswith(getpass.getuser())
    assert f"5m: {ids[2]} serves from now on instead of {ids[1]} (number 3" in out
    assert "No service runs at http://127.0.0.1:9" in out
    _, out, _ = say("models", "horizon=5m")
    assert f"promote by {entry.by}" in out


def test_promoting_the_champion_changes_nothing(say: Say, registry: Registry, ids: list[str]) -> None:
    status, out, _ = say("promote", "horizon=5m", f"bundle={ids[1]}")
    assert status == 0
    assert "is the champion already (number 2); nothing is changed" in out
    assert len(registry.ledger("5m")) == 2


def test_a_damaged_decision_is_told_with_the_bundles_there_are_and_promote_decides_anew(
    say: Say, registry: Registry, ids: list[str]
) -> None:
    file = registry.folder("5m") / "ledger" / "000002.json"
    file.write_text("{broken")
    status, out, err = say("promote", "horizon=5m", f"bundle={ids[0]}")
    assert (status, "000002.json is damaged: it is not JSON" in err) == (2, True)
    status, out, _ = say("models", "horizon=5m")
    assert "000002.json is damaged" in out
    assert out.count("not known") == len(ids)
    assert all(id in out for id in ids)
    status, out, err = say("status", "horizon=5m")
    assert (status, "unreadable" in out, "5m" in err, "000002.json is damaged" in err) == (1, True, True, True)
    file.rename(file.with_name("000002.json.damaged"))
    status, _, err = say("rollback", "horizon=5m")
    assert (status, "entry 2 of 5m is set aside" in err) == (2, True)
    status, out, _ = say("promote", "horizon=5m", f"bundle={ids[1]}", "why=what number 2 said")
    assert (status, "number 3 of the ledger" in out) == (0, True)
    champion = registry.champion("5m")
    assert champion is not None
    assert (champion.id, champion.number, champion.why) == (ids[1], 3, "what number 2 said")


def test_rollback_brings_back_the_champion_before_and_there_is_an_end(
    say: Say, registry: Registry, ids: list[str]
) -> None:
    status, out, _ = say("rollback", "horizon=5m", "why=trades too much")
    assert status == 0
    assert f"{ids[0]} serves from now on instead of {ids[1]}" in out
    entry = registry.champion("5m")
    assert entry is not None
    assert (entry.id, entry.action, entry.why) == (ids[0], "rollback", "trades too much")
    status, _, err = say("rollback", "horizon=5m")
    assert status == 2
    assert err == "tenor: 5m has no earlier champion to roll back to\n"


def wrong(ids: list[str]) -> list[tuple[list[str], str]]:
    near = ids[0][:6] + ("1" if ids[0][6] == "0" else "0")
    return [
        (["promote", "horizon=5m"], "promote needs bundle="),
        (["promote", "horizon=5m", "bundle="], "bundle= is empty"),
        (["promote", f"bundle={ids[0]}"], "promote needs a horizon"),
        (["promote", "horizon=5m,1h", f"bundle={ids[0]}"], "promote takes one horizon, not 5m, 1h"),
        (["promote", "horizon=5", f"bundle={ids[0]}"], "did you mean 5m?"),
        (["promote", "horizon=5m", f"bundle={near}"], f"did you mean {ids[0]}?"),
        (["promote", "horizon=5m", "bundle=zzzzzzzz"], f"there are: {', '.join(ids)}"),
        (["promote", "horizon=5m", f"bundel={ids[0]}"], "bundel"),
        (["rollback", "horizon=5m", f"bundle={ids[0]}"], "`tenor promote horizon=5m bundle="),
        (["rollback", "horizon=1h"], "1h has no earlier champion"),
    ]


@pytest.mark.parametrize("case", range(10))
def test_a_wrong_word_is_told_in_one_line_and_changes_nothing(
    say: Say, registry: Registry, ids: list[str], case: int
) -> None:
    words, told = wrong(ids)[case]
    status, out, err = say(*words)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert len(registry.ledger("5m")) == 2


def test_a_start_that_several_ids_share_is_told_with_all_of_them(registry: Registry, ids: list[str]) -> None:
    with pytest.raises(Exception, match="3 bundles of 5m start with : "):
        registry.find("5m", "")
    assert [registry.find("5m", id[:8]) for id in ids] == ids


@pytest.mark.parametrize("words", [["promote", "bundle={2}"], ["rollback"]])
def test_a_bundle_that_does_not_prove_itself_is_not_brought_to_serve(
    say: Say, registry: Registry, ids: list[str], words: list[str]
) -> None:
    for id in (ids[0], ids[2]):
        (registry.path("5m", id) / "model.txt").write_text("no model")
    status, _, err = say(words[0], "horizon=5m", *(word.format(*ids) for word in words[1:]))
    assert status == 2
    assert "model.txt is damaged" in err
    assert len(registry.ledger("5m")) == 2


def test_a_running_service_serves_what_was_promoted_by_hand_at_once(
    store: Path, service: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(store)
    champion = registry.champion("30m")
    assert champion is not None
    other = registry.write(make_bundle("by hand", "30m", SPANS, SCORES), {})
    port = service.url.rpartition(":")[2]
    words = ["horizon=30m", f"store.root='{store}'", f"serving.port={port}"]

    def served() -> Any:
        return next(model for model in service.models() if model["horizon"] == "30m")["bundle"]

    assert main(["promote", *words, f"bundle={other}"]) == 0
    assert f"The service at {service.url} serves {other}." in capsys.readouterr().out
    assert served() == other
    assert main(["rollback", *words]) == 0
    assert f"serves {champion.id}." in capsys.readouterr().out
    assert served() == champion.id
    assert compose(["horizon=30m"])["30m"].serving.port != int(port)
