"""The Alpha158 factors that Tenor's operators express, against values that qlib 0.9.7 computed."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl

from quant.panel import Panel, instants
from quant.program import Program

COLUMNS = ("open", "high", "low", "close", "volume", "vwap")
WARM = 60  # qlib's first windows are partial
WORDS = {
    "Ref": "lag",
    "Resi": "residual",
    "Less": "minimum",
    "Greater": "maximum",
    "IdxMax": "-argmax",
    "IdxMin": "-argmin",
}


def translated(text: str) -> str:
    """qlib's expression in Tenor's words. Its position of an extreme counts from 1 at the oldest bar."""
    text = re.sub(r"(Idx\w+\([^)]*, *(\d+)\))", r"(\2 + \1)", text.replace("$", ""))
    return re.sub(r"\b([A-Z]\w*)\(", lambda word: WORDS.get(word[1], word[1].lower()) + "(", text)


def test_factors_equal_qlibs(market_data: Path) -> None:
    folder = market_data / "oracles" / "alpha158"
    expressions = json.loads((folder / "meta.json").read_text())["expressions"]
    texts = {name: translated(text) for name, text in expressions.items() if not re.search("Quantile|Rank", text)}
    assert len(texts) == 143

    bars = pl.read_parquet(folder / "bars.parquet").rename({"instrument": "symbol", "datetime": "timestamp"})
    factors = pl.read_parquet(folder / "factors.parquet").with_columns(bars["symbol"], bars["timestamp"])
    time, symbols = np.unique(instants(bars["timestamp"])), sorted(bars["symbol"].unique())
    expected = Panel.from_frame(factors, time, symbols, list(texts)).columns
    found = Program.compile(texts, COLUMNS).run(Panel.from_frame(bars, time, symbols, COLUMNS))
    for name in texts:
        np.testing.assert_allclose(found[name][WARM:], expected[name][WARM:], rtol=1e-4, atol=2e-5, err_msg=name)
