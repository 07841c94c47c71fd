"""The Python of the documents runs as it stands, and says the truth."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

DOCS = Path(__file__).parents[1] / "docs"


def test_the_notebook_examples_run_and_agree_with_each_other() -> None:
    random = np.random.default_rng(0)
    stamps = pl.datetime_range(pl.datetime(2024, 1, 2), pl.datetime(2024, 1, 9), "1h", eager=True, time_zone="UTC")
    frame = pl.concat(
        pl.DataFrame({"timestamp": stamps, "close": 50 + random.normal(0, 1, len(stamps)).cumsum()}).select(
            pl.lit(symbol).alias("symbol"), "timestamp", "close"
        )
        for symbol in ("AAPL", "MSFT")
    )
    scope: dict[str, Any] = {"frame": frame}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "expressions.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, scope)
    rsi, whole, newest, bar = scope["rsi"], scope["whole"], scope["newest"], scope["bar"]
    assert rsi.columns == ["symbol", "timestamp", "value"]
    assert 0 < rsi["value"].min() < rsi["value"].max() < 100
    for name, values in whole.items():
        assert values.shape == (len(stamps), 2)
        assert (values[-1:] == newest[name]).all(), name
        assert (values[-1:] == bar[name]).all(), name
