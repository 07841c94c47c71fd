"""What novelty costs a service: CPU microseconds of its processes a single-row request, log and helper included.

Three services of the same forest (64 numbers, 2,048 training rows compared): one whose bundle has no novelty, one that
tells it (v2 answers do not: it is measured where the log is written), and one that abstains (each answer waits for it).
Turns alternate; first it proves that all give the same predictions. `--quick`: fewer requests.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
from _bundles import bundles, random_bars, recipe
from _servers import tenor

from quant.bundle import Bundle
from quant.novelty import fit
from resources.registry import Registry

TURNS = 12


def with_novelty(bundle: Bundle, above: float | None) -> Bundle:
    _, X = bundle.recipe.rows(random_bars(recipe()))
    rows = np.arange(len(X))
    measure = fit(
        X, bundle.factors, rows, rows // len(bundle.recipe.symbols), columns=bundle.factors[:64], sample=2048,
        neighbours=10, apart=bundle.recipe.lookback, seed=0,
    )  # fmt: skip
    golden = bundle.golden.select(bundle.factors).to_numpy()
    manifest = {**bundle.manifest, "novelty": {**measure.summary, "abstain_above": above}}
    return replace(
        bundle,
        novelty=measure,
        golden_novelty=measure.of(np.ascontiguousarray(golden), bundle.factors),
        manifest=manifest,
    )


def spent(port: int) -> float:
    """CPU seconds of the service on this port and of its helper, so far."""
    [service] = [p for p in psutil.process_iter(["cmdline"]) if str(port) in (p.info["cmdline"] or ())]
    family = [service, *service.children(recursive=True)]
    return float(sum(sum(one.cpu_times()[:2]) for one in family))


def main() -> None:
    [plain] = bundles(1)
    kinds = {"no novelty": plain, "told": with_novelty(plain, None), "abstaining": with_novelty(plain, 0.99)}
    row = plain.golden.select(plain.factors).to_numpy()[0].astype(float)
    tensor = {"name": "factors", "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
    factors = dict(zip(plain.factors, row.tolist(), strict=True))
    asked: dict[str, tuple[str, dict[str, Any], Callable[[Any], float]]] = {
        "/v2/…/infer": ("/v2/models/5m/infer", {"inputs": [tensor]}, lambda told: told["outputs"][0]["data"][0]),
        "/predict": (
            "/predict",
            {"horizon": "5m", "rows": [{"symbol": "S", "factors": factors}]},
            lambda told: told["predictions"][0]["prediction"],
        ),
    }
    count = 100 if "--quick" in sys.argv else 400
    with ExitStack() as stack:
        ports = {}
        for name, bundle in kinds.items():
            store = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            registry = Registry(store)
            registry.write(bundle, {})
            registry.promote("5m", bundle.id, "bench")
            ports[name] = stack.enter_context(tenor(store))
        client = stack.enter_context(httpx.Client(timeout=30, trust_env=False))
        for what, (path, body, value) in asked.items():
            sent = json.dumps(body)
            urls = {name: f"http://127.0.0.1:{port}{path}" for name, port in ports.items()}
            ask = {"content-type": "application/json"}
            values = {value(client.post(url, content=sent, headers=ask).json()) for url in urls.values()}
            assert len(values) == 1, "the services predict differently"
            taken: dict[str, list[float]] = {name: [] for name in urls}
            for _ in range(TURNS):
                for name, url in urls.items():
                    before = spent(ports[name])
                    for _ in range(count):
                        client.post(url, content=sent, headers=ask)
                    time.sleep(1.5)  # until the log is written
                    taken[name].append((spent(ports[name]) - before) / count * 1e6)
            median = {name: float(np.median(one)) for name, one in taken.items()}
            shown = "  ".join(f"{name} {one:7.0f} us" for name, one in median.items())
            more = ", ".join(
                f"{name} +{one - median['no novelty']:.0f}" for name, one in median.items() if name != "no novelty"
            )
            print(f"{what:>12}: {shown}   ({more} us a request)", flush=True)


if __name__ == "__main__":
    main()
