"""Who changed what serves: one line each, never rewritten."""

import json
from pathlib import Path

import httpx

from quant.bundle import Bundle
from resources.registry import Registry

ASKED = {"x-correlation-id": "rollback-7"}


def test_the_audit_log_has_who_did_what_before_and_after_and_only_grows(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, url: str
) -> None:
    first, second = (bundle.id for bundle in bundles)
    registry.promote("5m", second, "better", by="ada")
    with httpx.Client(base_url=url, timeout=30) as client:
        client.post("/models/5m/load").raise_for_status()
        client.post("/models/5m/load").raise_for_status()  # changes nothing, so it says nothing
        kept = (file := next((tmp_path / "audit").iterdir())).read_bytes()
        client.post("/models/5m/rollback", json={"why": "worse after all"}, headers=ASKED).raise_for_status()
    assert file.read_bytes().startswith(kept)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["who"], line["before"], line["after"], line["why"]) for line in lines] == [
        ("ledger", None, {"bundle": first, "number": 1}, "first"),
        ("local", {"bundle": first, "number": 1}, {"bundle": second, "number": 2}, "better"),
        ("local", {"bundle": second, "number": 2}, {"bundle": first, "number": 3}, "worse after all"),
    ]
    # What the service does by itself has no id; what somebody asked for has that of the request.
    assert lines[0]["correlation_id"] is None
    assert len(lines[1]["correlation_id"]) == 32
    assert lines[2]["correlation_id"] == "rollback-7"
    assert all(line["horizon"] == "5m" and line["at"] and line["instance"] for line in lines)
