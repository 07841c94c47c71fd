"""The bar that just closed, for 500 symbols: TA-Lib over each symbol's last 256 bars, Tenor's window, its live state.

    python bench/live.py            500 symbols, windows of 512 bars
    python bench/live.py --quick    100 symbols

The 45 indicators of bench/features.py, one thread on each side, parity of the newest values before speed, medians of
interleaved runs. Tenor's window recomputation and its live state must agree bit for bit.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse

import numpy as np
from _measure import medians
from features import COLUMNS, TALIB, random_walks

from quant.program import Program

WINDOW = 512  # bars that Tenor is given
RECENT = 256  # bars that TA-Lib is given
TOLERANCE = 0.05  # standard deviations: 256 bars are what TA-Lib's exponential means have to forget their start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 symbols")
    symbols = 100 if parser.parse_args().quick else 500
    texts = [text for _, group in TALIB for text in group]
    program = Program.compile({f"x{at}": text for at, text in enumerate(texts)}, COLUMNS)
    panel = random_walks(symbols, WINDOW)
    wide = {name: np.ascontiguousarray(values[-RECENT:].T, np.float64) for name, values in panel.columns.items()}
    recent = [{name: values[at] for name, values in wide.items()} for at in range(symbols)]

    def loop() -> list[list[float]]:
        return [[array[-1] for call, _ in TALIB for array in call(bars)] for bars in recent]

    live = program.live(panel.symbols)
    live.advance(panel.between(0, WINDOW - 1))
    newest = panel.between(WINDOW - 1, WINDOW)
    found, advanced = program.run(panel, tail=1), live.advance(newest)
    assert all(np.array_equal(found[name], advanced[name], equal_nan=True) for name in found), "live state differs"
    expected = np.array(loop())
    scale = np.array([np.nanstd(values) for values in program.run(panel).values()])
    apart = np.abs(np.concatenate([*found.values()]).T - expected) / scale
    assert np.quantile(apart, 0.999) < TOLERANCE, f"differs from TA-Lib by {apart.max():.1e} standard deviations"
    calls = {"talib": loop, "window": lambda: program.run(panel, tail=1), "live": lambda: live.advance(newest)}
    seconds = medians(calls, rounds=9)
    print(
        f"{len(texts)} indicators, {symbols} symbols, one bar; parity with TA-Lib {np.quantile(apart, 0.999):.0e} std"
    )
    talib, window, advance = (seconds[name] * 1e3 for name in ("talib", "window", "live"))
    print(f"  TA-Lib on the last {RECENT} bars   {talib:9.2f} ms")
    print(f"  window of {WINDOW} bars           {window:9.2f} ms   {talib / window:6.1f}x TA-Lib")
    print(f"  live state                  {advance:9.2f} ms   {window / advance:6.1f}x window")


if __name__ == "__main__":
    main()
