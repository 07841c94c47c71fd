"""The memory of one fit: a million rows × 158 factors peak at most 2.5 times the float32 table above the process.

The table itself counts once. The training rows are not all neighbours, as with labels of different lengths: rows near
the edge of a part are purged one by one. Prints the peak of resident memory while LightGBM bins and trains, above what
the process held before the table was made, as a multiple of the table. `--quick`: a tenth of the rows.
"""

import argparse
import threading
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np

from quant.folds import holdout
from quant.train import fit

ROWS, FACTORS, SYMBOLS, ROUNDS = 1_000_000, 158, 250, 5
MOST = 2.5
PARAMS = {"num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 100}


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The highest resident memory between entering and leaving."""

    def __enter__(self) -> "Peak":
        self.bytes, self._running = resident(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()

    def _watch(self) -> None:
        while self._running:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rows = ROWS // 10 if parser.parse_args().quick else ROWS
    chance = np.random.default_rng(0)
    few = chance.normal(size=(2000, FACTORS)).astype(np.float32)
    lgb.train({"verbosity": -1}, lgb.Dataset(few, chance.normal(size=len(few))), 2)  # libraries and threads are loaded
    before = resident()

    X = np.empty((rows, FACTORS), np.float32)
    for start in range(0, rows, 50_000):
        X[start : start + 50_000] = chance.standard_normal((min(50_000, rows - start), FACTORS), np.float32)
    y = X[:, 0] * 0.05 + chance.standard_normal(rows)
    section = np.repeat(np.arange(rows // SYMBOLS), SYMBOLS)
    parts = holdout(section, section + chance.integers(1, 12, rows), valid=0.15, test=0.15, embargo=12)
    with Peak() as peak:
        began = time.perf_counter()
        names = [f"f{number}" for number in range(FACTORS)]
        given = {"names": names, "seeds": [7], "rounds": ROUNDS, "early_stopping_rounds": ROUNDS}
        fit(X, y, parts.train, parts.valid, PARAMS, **given)
        seconds = time.perf_counter() - began
    ratio = (peak.bytes - before) / X.nbytes
    print(
        f"one fit of {rows:,} rows × {FACTORS} factors ({X.nbytes / 1e9:.2f} GB, {len(parts.train):,} learned from, "
        f"{ROUNDS} rounds, {seconds:.0f} s): peak {ratio:.2f} times the table above the process (at most {MOST})"
    )
    if rows == ROWS and ratio > MOST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
