"""A code server that is gone is started again, as the UI's answers tell it; those are Dagster's own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from defs import code_server
from defs.code_server import CodeServer
from tests.defs.answering import Answering

ERROR = (
    "dagster._core.errors.DagsterUserCodeUnreachableError: Could not reach user code server. gRPC Error code: UNKNOWN\n"
)
GONE = {"message": ERROR, "errorChain": []}
BROKEN = {
    "message": "dagster._core.errors.DagsterUserCodeLoadError: Error occurred during the loading\n",
    "errorChain": [{"error": {"message": "conf.errors.ConfigError: 15m.yaml:7: folds.count must be less\n"}}],
}


class UI(Answering):
    """Answers as Dagster's webserver does; `state`: of the code location, None where it is loading."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = {}
        self.reloads: list[str] = []
        self.status = 200
        super().__init__(lambda body: (self.status, {"data": self.answer(json.loads(body))}))

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        if "reloadRepositoryLocation" in asked["query"]:
            self.reloads.append(asked["variables"]["name"])
            return {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry"}}
        return {"workspaceOrError": {"locationEntries": [{"name": "tenor", "locationOrLoadError": self.state}]}}


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> Iterator[UI]:
    monkeypatch.setattr(code_server, "EVERY", 0.0)
    made = UI()
    yield made
    made.stop()


def test_a_code_server_that_is_gone_at_two_looks_is_started_again_and_told(
    ui: UI, capsys: pytest.CaptureFixture[str]
) -> None:
    code = CodeServer(ui.url, Path("/store/dagster.log"))
    for state in ({}, GONE, {}, GONE, None, GONE):  # Dagster starts one itself, and it is back at the next look
        ui.state = state
        code.look()
    assert ui.reloads == []
    code.look()
    assert ui.reloads == ["tenor"]
    assert capsys.readouterr().err == (
        "tenor: dagster's code server is gone, see /store/dagster.log; it is started again\n"
    )
    code.look()  # it takes its time
    assert ui.reloads == ["tenor"]
    code.look()
    assert ui.reloads == ["tenor", "tenor"]


def test_a_graph_that_does_not_load_is_told_once_and_tried_again_until_it_does(
    ui: UI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = CodeServer(ui.url, Path("/store/dagster.log"))
    for state in (BROKEN, None, BROKEN, BROKEN):
        ui.state = state
        code.look()
    assert ui.reloads == ["tenor"]  # not more often than once a minute
    monkeypatch.setattr(code_server, "AGAIN", 0.0)
    for state in (BROKEN, None, {}, {}):
        ui.state = state
        code.look()
    assert ui.reloads == ["tenor", "tenor"]
    assert capsys.readouterr().err == (
        "tenor: the graph cannot be loaded, and nothing runs by itself: "
        "conf.errors.ConfigError: 15m.yaml:7: folds.count must be less\n"
        "tenor: the graph is loaded again\n"
    )


def test_a_ui_that_does_not_answer_is_left_alone(ui: UI) -> None:
    code = CodeServer(ui.url, Path("/store/dagster.log"))
    ui.state = GONE
    code.look()
    ui.status = 500
    code.look()
    ui.status = 200
    code.look()
    assert ui.reloads == []
    ui.stop()
    code.look()


def test_it_is_not_asked_all_the_time(ui: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_server, "EVERY", 3600.0)
    ui.state = GONE
    code = CodeServer(ui.url, Path("/store/dagster.log"))
    for _ in range(3):
        code.look()
    assert ui.reloads == []
