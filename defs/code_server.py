"""Dagster's code server, which runs Tenor's sensors and starts its runs: started anew where it was killed.

`dagster dev` starts its other parts again, or ends; of this one, a child of a child, it says for ever that it cannot be
reached. The daemon gives its signs of life meanwhile, and nothing happens.
"""

import sys
import time
from pathlib import Path
from typing import Any

import httpx

EVERY = 15.0  # seconds between two looks: one that is being started is not there at one of them
TIMEOUT = 5.0  # of a question; a reload that takes longer goes on
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name
  locationOrLoadError { ... on PythonError { message } } } } } }"""
RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
UNREACHABLE = "DagsterUserCodeUnreachableError"


class CodeServer:
    """Looks at the code server through the UI at `ui`, and has one that is gone at two looks started again."""

    def __init__(self, ui: str, log: Path) -> None:
        self._ui, self._log = ui, log
        self._due = time.monotonic() + EVERY
        self._gone: set[str] = set()

    def look(self) -> None:
        """Ask the UI, where it is time to."""
        if time.monotonic() < self._due:
            return
        try:
            gone = self._unreachable()
            for name in gone & self._gone:
                print(f"tenor: dagster's code server is gone, see {self._log}; it is started again", file=sys.stderr)
                self._ask(RELOAD, name=name)
            self._gone = gone - self._gone
        except (httpx.HTTPError, ValueError):  # the UI itself is being started, or takes its time
            self._gone = set()
        self._due = time.monotonic() + EVERY

    def _unreachable(self) -> set[str]:
        workspace = (self._ask(LOCATIONS).get("data") or {}).get("workspaceOrError") or {}
        told = workspace.get("locationEntries", [])
        states = {entry["name"]: entry["locationOrLoadError"] or {} for entry in told}
        return {name for name, state in states.items() if UNREACHABLE in state.get("message", "")}

    def _ask(self, query: str, **variables: str) -> dict[str, Any]:
        asked = {"query": query, "variables": variables}
        answer = httpx.post(f"{self._ui}/graphql", json=asked, timeout=TIMEOUT, trust_env=False).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
