"""Run by bench/alpha158.py in an environment of its own: qlib's Alpha158 over bars in a folder, one kernel.

python bench/_qlib.py FOLDER    reads bars.npz, writes values.npz and prints the CPU seconds of each round
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import qlib
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D

CONFIG = {
    "kbar": {},
    "price": {"windows": [0], "feature": ["OPEN", "HIGH", "LOW", "VWAP"]},
    "rolling": {},
}


def store(folder: Path, bars: dict[str, np.ndarray]) -> tuple[list[str], pd.DatetimeIndex]:
    """Write bars [slots, symbols] in qlib's own format: a float32 file per symbol and field, its first slot ahead."""
    slots, symbols = bars["close"].shape
    days = pd.bdate_range("2000-01-03", periods=slots)
    names = [f"S{at:04d}" for at in range(symbols)]
    (folder / "calendars").mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(day.strftime("%Y-%m-%d") for day in days))
    (folder / "instruments").mkdir()
    span = f"{days[0]:%Y-%m-%d}\t{days[-1]:%Y-%m-%d}"
    (folder / "instruments" / "all.txt").write_text("\n".join(f"{name}\t{span}" for name in names))
    for at, name in enumerate(names):
        home = folder / "features" / name.lower()
        home.mkdir(parents=True)
        for field, values in bars.items():
            np.concatenate([[0], values[:, at]]).astype("<f4").tofile(home / f"{field}.day.bin")
    return names, days


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "bars.npz") as file:
        bars = dict(file)
    names, _ = store(folder / "qlib", bars)
    qlib.init(provider_uri=str(folder / "qlib"), region="us", kernels=1, expression_cache=None, dataset_cache=None)
    fields, columns = Alpha158DL.get_feature_config(CONFIG)
    for _ in range(3):
        qlib.data.cache.H.clear()
        began = time.process_time()
        frame = D.features(names, fields, freq="day")
        print("seconds", time.process_time() - began, flush=True)
    frame.columns = columns
    values = {name: frame[name].unstack(level=0).to_numpy(np.float64) for name in columns}
    np.savez(folder / "values.npz", **values)


if __name__ == "__main__":
    main()
