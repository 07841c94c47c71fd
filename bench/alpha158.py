"""Alpha158: Tenor against KunQuant, which compiles these factors to vector code, and against qlib, which defines them.

    python bench/alpha158.py            100 symbols x 2,000 bars and 20 x 600
    python bench/alpha158.py --quick    20 x 600
    python bench/alpha158.py --qlib     also qlib 0.9.7, which uv fetches into an environment of its own

One thread on each side, double precision for the peers, parity on the same bars before speed, medians of interleaved
runs. KunQuant (in the lock for Linux on x86-64; without it a line says so) is given the faster of its two array
layouts, arrays to write into and symbols in a multiple of its vector length; it knows no gaps. Tenor is timed on
those bars, and on bars of which 4 % are missing.
"""

import os

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import yaml
from _measure import medians
from features import random_walks

import conf
from quant.panel import Panel
from quant.program import Program
from quant.sets import expand

LANES = 8  # doubles in a vector: KunQuant wants whole ones
WARM = 60
TIES = ("IMAX", "IMIN", "IMXD")  # of equal extremes each library takes another
COLUMNS = ("open", "high", "low", "close", "volume", "vwap")


def program() -> Program:
    text = (Path(conf.__file__).parent / "features" / "alpha158.yaml").read_text()
    return Program.compile(expand({"alpha158": yaml.safe_load(text)}, file_of=lambda name: name), COLUMNS)


def bars(symbols: int, slots: int) -> Panel:
    walks = random_walks(symbols, slots)
    c = walks.columns
    vwap = ((c["high"] + c["low"] + c["close"]) / 3).astype(np.float32)
    return Panel(walks.time, walks.symbols, {**c, "vwap": vwap})


def with_gaps(panel: Panel, share: float) -> Panel:
    gone = np.random.default_rng(1).random((len(panel.time), len(panel.symbols))) < share
    columns = {name: np.where(gone, np.float32(np.nan), values) for name, values in panel.columns.items()}
    return Panel(panel.time, panel.symbols, columns)


def check(peer: str, found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 2e-3) -> float:
    """The worst difference in standard deviations of the peer's values; SystemExit beyond the tolerance."""
    worst = 0.0
    for name, values in expected.items():
        apart = np.abs(found[name][WARM:] - values[WARM:]) / np.nanstd(values[WARM:])
        tied = name.startswith(TIES)
        difference = float(np.nanquantile(apart, 0.999) if tied else np.nanmax(apart))
        if not difference < tolerance:
            raise SystemExit(f"{name} differs from {peer} by {difference:.1e} standard deviations: no claim")
        worst = max(worst, difference)
    return worst


def kunquant(panel: Panel) -> tuple[dict[str, Callable[[], object]], Callable[[], dict[str, np.ndarray]]]:
    """A call for each layout, and one that gives the values."""
    from KunQuant.Driver import KunCompilerConfig
    from KunQuant.jit import cfake
    from KunQuant.Op import Builder, Input, Output
    from KunQuant.predefined.Alpha158 import AllData
    from KunQuant.runner import KunRunner
    from KunQuant.Stage import Function

    slots, symbols = panel.columns["close"].shape
    wide = {name: panel.columns[name].astype(np.float64) for name in COLUMNS[:5]}
    wide["amount"] = panel.columns["vwap"].astype(np.float64) * (wide["volume"] + 1e-6)
    executor = KunRunner.createSingleThreadExecutor()
    calls: dict[str, Callable[[], object]] = {}
    results: dict[str, dict[str, np.ndarray]] = {}
    for layout in ("TS", "STs"):
        builder = Builder()
        with builder:
            data = AllData(**{name: Input(name) for name in wide})
            price = [(name, getattr(data, name.lower())) for name in ("OPEN", "HIGH", "LOW", "VWAP")]
            series, names = data.build({"kbar": {}, "price": {"windows": [0], "feature": price}, "rolling": {}})
            for one, name in zip(series, names, strict=True):
                Output(one, name)
        config = KunCompilerConfig(
            dtype="double", blocking_len=LANES, input_layout=layout, output_layout=layout,
            options={"opt_reduce": True, "no_fast_stat": "no_warn"},
        )  # fmt: skip
        made = [("alpha158", Function(builder.ops), config)]
        library = cfake.compileit(made, f"alpha158_{layout}", cfake.CppCompilerConfig())
        module = library.getModule("alpha158")
        given, shape = wide, (slots, symbols)
        if layout == "STs":
            blocks = {name: values.reshape(slots, -1, LANES).transpose(1, 0, 2) for name, values in wide.items()}
            given, shape = {name: np.ascontiguousarray(values) for name, values in blocks.items()}, (
                symbols // LANES, slots, LANES,
            )  # fmt: skip
        results[layout] = {name: np.empty(shape) for name in names}
        calls[layout] = lambda library=library, module=module, given=given, into=results[layout]: KunRunner.runGraph(
            executor, module, given, 0, slots, into
        )
    return calls, lambda: results["TS"]


def against_kunquant(panel: Panel, rounds: int) -> None:
    compiled, gaps = program(), with_gaps(panel, 0.04)
    calls, values = kunquant(panel)
    seconds = medians({"tenor": lambda: compiled.run(panel), "gaps": lambda: compiled.run(gaps), **calls}, rounds)
    worst = check("KunQuant", compiled.run(panel), values())
    best = min(calls, key=lambda layout: seconds[layout])
    for name in ("tenor", "gaps"):
        report(
            f"KunQuant ({best})" + (", 4 % gaps" if name == "gaps" else ""), panel, seconds[name], seconds[best], worst
        )


def against_qlib(panel: Panel, rounds: int) -> None:
    compiled = program()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "bars.npz", **panel.columns)  # type: ignore[arg-type]
        script = str(Path(__file__).with_name("_qlib.py"))
        command = [
            str(Path(sys.executable).with_name("uv")),
            "run",
            "--no-project",
            "--isolated",
            "--with",
            "pyqlib==0.9.7",
            "python",
            script,
            folder,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"qlib did not run: {done.stderr[-2000:]}")
        theirs = statistics.median(float(line.split()[1]) for line in done.stdout.splitlines() if "seconds" in line)
        with np.load(Path(folder) / "values.npz") as file:
            worst = check("qlib", compiled.run(panel), dict(file))
    ours = medians({"tenor": lambda: compiled.run(panel)}, rounds)["tenor"]
    report("qlib 0.9.7, one kernel", panel, ours, theirs, worst)


def report(peer: str, panel: Panel, ours: float, theirs: float, worst: float) -> None:
    size = f"{len(panel.symbols):,} x {len(panel.time):,}"
    print(
        f"alpha158, {peer:<26} {size:>12}   Tenor {ours * 1e3:8.1f} ms   peer {theirs * 1e3:9.1f} ms   "
        f"{theirs / ours:6.2f}x   parity {worst:.0e} std",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small size")
    parser.add_argument("--qlib", action="store_true", help="also against qlib, in an environment of its own")
    given = parser.parse_args()
    there = find_spec("KunQuant") is not None
    if not there:
        print("KunQuant is not installed: left out. Where it has a wheel, `uv pip install KunQuant` brings it")
    for symbols, slots in ((24, 600),) if given.quick else ((104, 2_000), (24, 600)):
        panel = bars(symbols, slots)
        if there:
            against_kunquant(panel, rounds=9)
        if given.qlib:
            against_qlib(panel, rounds=9)


if __name__ == "__main__":
    main()
