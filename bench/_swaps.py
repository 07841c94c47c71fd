"""One swap of a running service, to a good bundle or to one that is broken in one of four ways."""

import shutil
from dataclasses import replace

import httpx
import polars as pl

from quant.bundle import Bundle, identity
from resources.registry import Registry

WAYS = ("corrupt", "half copied", "mismatched", "fails its golden data")


def swap(client: httpx.Client, registry: Registry, good: list[Bundle], number: int, broken: str | None) -> None:
    """Promote and load. good: two bundles that take turns; broken: the id of one that must be refused instead."""
    before = client.get("/models/5m").raise_for_status().json()["bundle"]
    if broken is None:
        wanted = good[(number + 1) % 2].id
        wanted = wanted if wanted != before else good[number % 2].id
        registry.promote("5m", wanted, f"swap {number}")
        told = client.post("/models/5m/load").raise_for_status().json()
        assert told["bundle"] == wanted, told
        return
    registry.promote("5m", broken, f"swap {number}, broken")
    answer = client.post("/models/5m/load")
    assert answer.status_code == 409, answer.text
    assert client.get("/models/5m").json()["bundle"] == before


def write_broken(registry: Registry, bundle: Bundle, number: int) -> str:
    """Put a broken variant of a bundle into the registry; its id."""
    way = WAYS[number // 5 % len(WAYS)]
    digests = {**bundle.manifest["digests"], "config": f"broken {number}"}
    golden = bundle.golden
    if way == "fails its golden data":
        golden = golden.with_columns(prediction=pl.col("prediction") + 1.0)
    broken = replace(bundle, manifest={**bundle.manifest, "digests": digests, "id": identity(digests)}, golden=golden)
    folder = registry.path("5m", registry.write(broken, {}))
    if way == "corrupt":
        data = bytearray((folder / "forest.safetensors").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "forest.safetensors").write_bytes(data)
    elif way == "half copied":
        (folder / "golden.parquet").unlink()
    elif way == "mismatched":
        for file in registry.path("5m", bundle.id).iterdir():
            shutil.copy(file, folder)
    return broken.id
