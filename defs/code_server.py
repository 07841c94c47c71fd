"""Dagster's code server, which runs Tenor's sensors and starts its runs: started anew where it was killed.

`dagster dev` starts its other parts again, or ends; of this one, a child of a child, it says for ever that it cannot be
reached. The daemon gives its signs of life meanwhile, and nothing happens. Nor does anything where it could not load
the graph, for somebody made a mistake in a config after `tenor up` had checked it.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

EVERY = 15.0  # seconds between two looks: one that is being started is not there at one of them
AGAIN = 60.0  # seconds between two tries to load the graph
TIMEOUT = 5.0  # of a question; a reload that takes longer goes on
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name
  locationOrLoadError { ... on PythonError { message errorChain { error { message } } } } } } } }"""
RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
UNREACHABLE = "DagsterUserCodeUnreachableError"


class CodeServer:
    """Looks at the code server through the UI at `ui`; one that is gone at two looks, or has no graph, tries again."""

    def __init__(self, ui: str, log: Path) -> None:
        self._ui, self._log = ui, log
        self._due = time.monotonic() + EVERY
        self._gone: set[str] = set()
        self._wrong: dict[str, str] = {}  # what was told of a graph that does not load
        self._tried = 0.0

    def look(self) -> None:
        """Ask the UI, where it is time to."""
        if time.monotonic() < self._due:
            return
        try:
            errors = self._errors()
            gone = {name for name, said in errors.items() if said and UNREACHABLE in said[0]}
            self._loading({name: said for name, said in errors.items() if name not in gone})
            for name in gone & self._gone:
                _say(f"dagster's code server is gone, see {self._log}; it is started again")
                self._ask(RELOAD, name=name)
            self._gone = gone - self._gone
        except (httpx.HTTPError, ValueError):  # the UI itself is being started, or takes its time
            self._gone = set()
        self._due = time.monotonic() + EVERY

    def _loading(self, errors: Mapping[str, Sequence[str]]) -> None:
        """Tell what is wrong with a graph, once, and when it no longer is; have it loaded again meanwhile."""
        wrong = {name: said[-1] for name, said in errors.items() if said}
        for name, said in wrong.items():
            if self._wrong.get(name) != said:
                _say(f"the graph cannot be loaded, and nothing runs by itself: {said.strip()}")
        for name in {*self._wrong} & {*errors} - {*wrong}:
            _say("the graph is loaded again")
            del self._wrong[name]
        self._wrong |= wrong
        if wrong and time.monotonic() - self._tried >= AGAIN:
            self._tried = time.monotonic()
            for name in wrong:
                self._ask(RELOAD, name=name)

    def _errors(self) -> dict[str, list[str]]:
        """By code location that is not loading, why it is not loaded, the innermost cause last; nothing where it is."""
        workspace = (self._ask(LOCATIONS).get("data") or {}).get("workspaceOrError") or {}
        found = {}
        for entry in workspace.get("locationEntries", []):
            if (state := entry["locationOrLoadError"]) is not None:
                causes = (link["error"]["message"] for link in state.get("errorChain", []))
                found[entry["name"]] = [state["message"], *causes] if "message" in state else []
        return found

    def _ask(self, query: str, **variables: str) -> dict[str, Any]:
        asked = {"query": query, "variables": variables}
        answer = httpx.post(f"{self._ui}/graphql", json=asked, timeout=TIMEOUT, trust_env=False).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def _say(what: str) -> None:
    print(f"tenor: {what}", file=sys.stderr, flush=True)
