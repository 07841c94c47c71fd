"""Reports a step writes: a file in the store, shown by the service, linked from the materialization."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg


@dataclass(frozen=True)
class Reports:
    """Writes pages under `<root>/reports/<horizon>/`; the service at `url` shows that folder."""

    root: Path
    url: str

    def write(self, horizon: str, name: str, html: str) -> dict[str, dg.MetadataValue]:
        """Write a page; the metadata that links it."""
        path = self.root / "reports" / horizon / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
        return {
            "report": dg.MetadataValue.url(f"{self.url}/reports/{horizon}/{name}"),
            "report file": dg.MetadataValue.path(path),
        }
