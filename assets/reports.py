"""Reports a step writes, and where to look: pages of the service, runs, assets and checks in Dagster's UI."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg


@dataclass(frozen=True)
class Reports:
    """Writes pages under `<root>/reports/<horizon>/`; the service, which people reach at `url`, shows that folder.

    ui: where people reach Dagster's UI.
    """

    root: Path
    url: str
    ui: str

    def write(self, horizon: str, name: str, html: str) -> dict[str, dg.MetadataValue]:
        """Write a page; the metadata that links it."""
        path = self.path(horizon, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
        return self.linked(horizon, name)

    def linked(self, horizon: str, name: str) -> dict[str, dg.MetadataValue]:
        """The metadata that links a page."""
        return {
            "report": dg.MetadataValue.url(self.page(horizon, name)),
            "report file": dg.MetadataValue.path(self.path(horizon, name)),
        }

    def path(self, horizon: str, name: str) -> Path:
        """The file of a page."""
        return self.root / "reports" / horizon / name

    def page(self, horizon: str, name: str) -> str:
        """The address of a page."""
        return f"{self.url}/reports/{horizon}/{name}"

    def run(self, id: str) -> str:
        """The address of a run."""
        return f"{self.ui}/runs/{id}"

    def asset(self, horizon: str, step: str) -> str:
        """The address of a step of a horizon."""
        return f"{self.ui}/assets/{horizon}/{step}"

    def check(self, horizon: str, step: str, check: str) -> str:
        """The address of a check: its newest result, and those before."""
        return f"{self.asset(horizon, step)}?view=checks&checkDetail={check}"
