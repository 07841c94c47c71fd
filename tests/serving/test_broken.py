"""A bundle broken in whatever way changes nothing, and the refusal says what is wrong; going back is one call."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from quant.manifest import digest
from resources.inference import Inference, InferenceError
from resources.registry import Registry
from serving.audit_log import AuditLog

Serve = Callable[..., AbstractContextManager[str]]
Spoil = Callable[[Path, Path], object]


def rewrite(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file and put its new hash into the manifest: what is left to notice it is the proof itself."""
    data = change((folder / name).read_bytes())
    (folder / name).write_bytes(data)
    edit(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, its own hash with it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    hashes = manifest.pop("files")
    told = {**manifest, "files": {**hashes, "manifest.json": digest(manifest)}}
    (folder / "manifest.json").write_text(json.dumps(told))


def golden(folder: Path, **columns: pl.Expr) -> None:
    def change(data: bytes) -> bytes:
        target = folder / "changed"
        pl.read_parquet(data).with_columns(**columns).write_parquet(target)
        made = target.read_bytes()
        target.unlink()
        return made

    rewrite(folder, "golden.parquet", change)


def flipped(name: str) -> Spoil:
    def spoil(folder: Path, other: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return spoil


def of_other(name: str) -> Spoil:
    """A file of the other bundle, and its hash with it."""
    return lambda folder, other: rewrite(folder, name, lambda _: (other / name).read_bytes())


FILES = ("model.txt", "forest.safetensors", "golden.parquet", "golden_bars.parquet")
BROKEN: dict[str, tuple[Spoil, str]] = {
    **{f"a bit of {name} flipped": (flipped(name), f"{name} is damaged") for name in FILES},
    **{
        f"{name} not copied yet": (lambda folder, _, name=name: (folder / name).unlink(), f"missing {name}")
        for name in FILES
    },
    **{
        f"{name} cut short": (
            lambda folder, _, name=name: (folder / name).write_bytes((folder / name).read_bytes()[:100]),
            f"{name} is damaged",
        )
        for name in FILES
    },
    "no manifest yet": (lambda folder, _: (folder / "manifest.json").unlink(), "missing manifest.json"),
    "half a manifest": (
        lambda folder, _: (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:500]),
        "manifest.json is damaged",
    ),
    "a manifest that is a list": (lambda folder, _: (folder / "manifest.json").write_text("[]"), "manifest.json"),
    "an empty folder": (lambda folder, _: [file.unlink() for file in folder.iterdir()], "missing model.txt"),
    "no folder": (lambda folder, _: shutil.rmtree(folder), "no bundle"),
    "another bundle's folder": (
        lambda folder, other: shutil.copytree(other, folder, dirs_exist_ok=True),
        "copied to the wrong place",
    ),
    "a number changed": (
        lambda folder, _: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"lookback": ', '"lookback": 1')
        ),
        "its SHA-256 is not the one in it",
    ),
    "another horizon's": (lambda folder, _: edit(folder, lambda it: it.update(horizon="1h")), "wrong place"),
    "another id": (lambda folder, _: edit(folder, lambda it: it.update(id="0" * 16)), "does not follow"),
    "an older format": (lambda folder, _: edit(folder, lambda it: it.update(format="tenor-bundle-0")), "train again"),
    "the model of another": (of_other("model.txt"), "is not what model.txt compiles to"),
    "the forest of another": (of_other("forest.safetensors"), "is not what model.txt compiles to"),
    "a forest that is none": (lambda folder, _: rewrite(folder, "forest.safetensors", lambda _: b"{}" * 50), ""),
    "a model that is none": (lambda folder, _: rewrite(folder, "model.txt", lambda _: b"tree\n"), ""),
    "golden answers of another": (of_other("golden.parquet"), "predictions differ from LightGBM's"),
    "golden answers off by 1e-6": (
        lambda folder, _: golden(folder, prediction=pl.col("prediction") * (1 + 1e-6)),
        "predictions differ from LightGBM's by",
    ),
    "golden factors off by a bit": (
        lambda folder, _: golden(folder, momentum=pl.col("momentum") * np.float32(1 + 2e-7)),
        "factor momentum replays differently",
    ),
    "other expressions": (
        lambda folder, _: edit(
            folder, lambda it: it["recipe"]["features"].update(momentum="close / lag(close, 5) - 1")
        ),
        "factor momentum replays differently",
    ),
    "an expression that cannot be": (
        lambda folder, _: edit(folder, lambda it: it["recipe"]["features"].update(momentum="closse / 2")),
        "closse",
    ),
}


def test_bundles_broken_in_every_way_change_nothing_while_the_old_one_answers(
    url: str, registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    champion, broken = bundles
    rows = champion.golden.drop("prediction")
    expected = champion.predict_rows(np.ascontiguousarray(rows.select(champion.factors).to_numpy())).tolist()
    folder, other = (registry.path("5m", bundle.id) for bundle in (broken, champion))
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    stop, wrong, asked = threading.Event(), list[str](), [0]

    def ask() -> None:
        with Inference(url) as inference:
            while not stop.is_set():
                try:
                    answer = inference.predict_rows("5m", rows)
                except InferenceError as error:
                    wrong.append(str(error))
                    return
                if (answer.bundle, answer.frame["prediction"].to_list()) != (champion.id, expected):
                    wrong.append(f"{answer.bundle} answered")
                asked[0] += 1

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        with Inference(url) as inference:
            for name, (spoil, told) in BROKEN.items():
                registry.promote("5m", broken.id, name)  # while it is whole: the registry refuses what is not there
                spoil(folder, other)
                with pytest.raises(InferenceError) as caught:
                    inference.load("5m")
                problem = caught.value.problem
                assert (problem["status"], problem["serving"]) == (409, champion.id), name
                assert problem["type"] == "urn:tenor:problem:bundle-refused", name
                assert told in problem["detail"], f"{name}: {problem['detail']}"
                health = inference.health()
                assert health["status"] == "degraded", name
                assert health["horizons"]["5m"]["bundle"] == champion.id, name
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(kept, folder)
                registry.rollback("5m", f"after {name}")
                assert inference.load("5m")["bundle"] == champion.id
            registry.promote("5m", broken.id, "whole again")
            stop.set()
            asker.join()
            assert inference.load("5m")["bundle"] == broken.id
    finally:
        stop.set()
        asker.join()
    assert wrong == []
    assert asked[0] > len(BROKEN)
    # Refusals change nothing, so the audit log has the first load, each rollback's new number, and the last swap.
    served = [line["after"]["bundle"] for line in AuditLog(tmp_path, registry._clock).lines()]
    assert served == [champion.id] * (1 + len(BROKEN)) + [broken.id]


# -- rollback -----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(url: str) -> Any:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


def test_one_call_goes_back_and_the_ledger_keeps_who_and_why(
    client: httpx.Client, registry: Registry, bundles: list[Bundle]
) -> None:
    first, second = (bundle.id for bundle in bundles)
    registry.promote("5m", second, "better")
    client.post("/models/5m/load").raise_for_status()
    back = client.post("/models/5m/rollback", json={"why": "trades too much"}).raise_for_status().json()
    assert back == {"horizon": "5m", "bundle": first, "number": 3, "changed": True, "previous": second}
    entry = registry.champion("5m")
    assert entry is not None
    assert (entry.action, entry.id, entry.why, entry.by) == ("rollback", first, "trades too much", "local")
    again = client.post("/models/5m/rollback")
    assert again.status_code == 409
    assert again.json()["detail"] == "5m has no earlier champion to roll back to; nothing is changed"


def test_two_who_go_back_from_the_same_number_go_one_back(
    client: httpx.Client, registry: Registry, bundles: list[Bundle]
) -> None:
    first, second = (bundle.id for bundle in bundles)
    for bundle in (second, first, second):
        registry.promote("5m", bundle, "another")
    assert client.post("/models/5m/rollback", json={"number": 4}).json()["bundle"] == first
    late = client.post("/models/5m/rollback", json={"number": 4})
    assert late.status_code == 409
    assert late.json()["type"] == "urn:tenor:problem:ledger-moved"
    assert "is at number 5, not 4" in late.json()["detail"]
    assert len(registry.ledger("5m")) == 5


def test_there_is_no_going_back_to_a_broken_bundle(
    client: httpx.Client, registry: Registry, bundles: list[Bundle]
) -> None:
    registry.promote("5m", bundles[1].id, "better")
    client.post("/models/5m/load").raise_for_status()
    (registry.path("5m", bundles[0].id) / "model.txt").write_text("no model")
    refused = client.post("/models/5m/rollback")
    assert refused.status_code == 409
    assert "model.txt is damaged" in refused.json()["detail"]
    assert len(registry.ledger("5m")) == 2
    assert client.get("/models/5m").json()["bundle"] == bundles[1].id


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [({"why": ""}, 422, "why"), ({"number": 0}, 422, "number"), ({"wy": "x"}, 422, "wy"), ([], 422, "body")],
)
def test_a_wrong_body_is_told_and_changes_nothing(
    client: httpx.Client, registry: Registry, bundles: list[Bundle], body: Any, status: int, field: str
) -> None:
    registry.promote("5m", bundles[1].id, "better")
    refused = client.post("/models/5m/rollback", json=body)
    assert refused.status_code == status
    assert refused.json()["errors"][0]["field"] == field
    assert client.post("/models/unknown/rollback").status_code == 404
    assert len(registry.ledger("5m")) == 2
