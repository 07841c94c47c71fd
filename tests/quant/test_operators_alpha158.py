"""Alpha158 against its source: the expressions of qlib 0.9.7, and the values that it computed.

The oracle's bars have no gaps. Through gaps Tenor differs knowingly: qlib's IdxMax and IdxMin take a NaN for the
extreme, and its Mean of a comparison takes NaN for false; Tenor skips missing bars.
"""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import conf
from quant.expression import parse
from quant.panel import Panel, instants
from quant.program import Program
from quant.sets import expand

COLUMNS = ("open", "high", "low", "close", "volume", "vwap")
WARM = 60  # qlib's first windows are partial
WORDS = {
    "Ref": "lag",
    "Resi": "residual",
    "Rank": "rank_in_window",
    "Less": "minimum",
    "Greater": "maximum",
}


def shipped(name: str) -> Program:
    text = (Path(conf.__file__).parent / "features" / f"{name}.yaml").read_text()
    return Program.compile(expand({name: yaml.safe_load(text)}, file_of=str), COLUMNS, section=False)


def translated(text: str) -> str:
    """qlib's expression in Tenor's words. Its position of an extreme counts from 1 at the oldest bar."""
    text = re.sub(r"Idx(Max|Min)\(([^)]*), *(\d+)\)", r"(\3 - Arg\1(\2, \3))", text.replace("$", ""))
    return re.sub(r"\b([A-Z]\w*)\(", lambda word: WORDS.get(word[1], word[1].lower()) + "(", text)


@pytest.fixture(scope="module")
def oracle(market_data: Path) -> Path:
    return market_data / "oracles" / "alpha158"


def test_the_set_is_qlibs_expression_by_expression(oracle: Path) -> None:
    theirs = json.loads((oracle / "meta.json").read_text())["expressions"]
    ours = shipped("alpha158")
    assert set(ours.names) == set(theirs)
    assert len(ours.names) == 158
    for name, text in theirs.items():
        assert ours.outputs[name] is parse(translated(text)), f"{name}: {ours.texts[name]} is not {text}"


def test_factors_equal_qlibs(oracle: Path) -> None:
    program = shipped("alpha158")
    bars = pl.read_parquet(oracle / "bars.parquet").rename({"instrument": "symbol", "datetime": "timestamp"})
    factors = pl.read_parquet(oracle / "factors.parquet").with_columns(bars["symbol"], bars["timestamp"])
    time, symbols = np.unique(instants(bars["timestamp"])), sorted(bars["symbol"].unique())
    expected = Panel.from_frame(factors, time, symbols, program.names).columns
    found = program.run(Panel.from_frame(bars, time, symbols, COLUMNS))
    for name in program.names:
        np.testing.assert_allclose(found[name][WARM:], expected[name][WARM:], rtol=1e-4, atol=2e-5, err_msg=name)


def test_alpha360_is_sixty_bars_of_six_fields() -> None:
    """qlib: "Ref($close, 59)/$close" … "$close/$close", volumes over "($volume+1e-12)"."""
    program = shipped("alpha360")
    assert len(program.names) == 360
    assert program.lookback == 59
    for field in COLUMNS:
        newest = "(volume + 1e-12)" if field == "volume" else "close"
        for n in range(60):
            made = program.outputs[f"{field.upper()}_{n}"]
            assert made is parse(f"lag({field}, {n}) / {newest}")
    assert not shipped("alpha158").outputs.keys() & program.outputs.keys()
