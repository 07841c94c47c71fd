"""Alpha101 against pandas: each formula evaluated in double precision by functions that share no code with ours."""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import conf
from quant.panel import Panel
from quant.program import Program

SLOTS, SYMBOLS, WARM = 420, 32, 260  # ranks among 32 are exact in float32, so that sums of ranks tie or do not
Frame = pd.DataFrame


def shipped(name: str) -> dict[str, str]:
    return yaml.safe_load((Path(conf.__file__).parent / "factors" / f"{name}.yaml").read_text())


ALPHAS = shipped("alpha101") | shipped("alpha101_industry")


def corr(x: Frame, y: Frame, n: int) -> Frame:
    """Nothing where a window is constant; pandas' own is left with rounding there."""
    a, b = x.rolling(n), y.rolling(n)
    return a.corr(y).where((a.max() > a.min()) & (b.max() > b.min()))


def power(x: Frame, y: Frame | float) -> Frame:
    return (x**y).replace([np.inf, -np.inf], np.nan)


def where(condition: Frame, x: Any, y: Any) -> Frame:
    """Missing where the condition is."""
    x, y = (side if isinstance(side, Frame) else condition * 0 + side for side in (x, y))
    return x.where(condition == 1, y).where(condition.notna())


def truth(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Frame]:
    return lambda x, y: test(x, y).astype(float).where((x - y).notna())


def larger(x: Frame, y: Frame) -> Frame:
    return x.where(x >= y, y).where((x - y).notna())


def neutral(x: Frame, by: Frame) -> Frame:
    return x - x.T.groupby(by.iloc[0]).transform("mean").T


WORDS: dict[str, Callable[..., Any]] = {
    "lag": lambda x, n=1: x.shift(n),
    "delta": lambda x, n=1: x - x.shift(n),
    "returns": lambda x: x / x.shift() - 1,
    "sum": lambda x, n: x.rolling(n).sum(),
    "mean": lambda x, n: x.rolling(n).mean(),
    "min": lambda x, n: x.rolling(n).min(),
    "max": lambda x, n: x.rolling(n).max(),
    "std": lambda x, n: x.rolling(n).std(),
    "cov": lambda x, y, n: x.rolling(n).cov(y).round(12),  # 0 where a rank is constant
    "corr": corr,
    "product": lambda x, n: x.rolling(n).apply(np.prod, raw=True),
    "argmax": lambda x, n: x.rolling(n).apply(lambda window: np.argmax(window[::-1]), raw=True),
    "argmin": lambda x, n: x.rolling(n).apply(lambda window: np.argmin(window[::-1]), raw=True),
    "rank_in_window": lambda x, n: x.rolling(n).rank(pct=True),
    "decay_linear": lambda x, n: sum(x.shift(age) * (n - age) for age in range(n)) / (n * (n + 1) / 2),
    "rank": lambda x: x.rank(axis=1, pct=True),
    "scale": lambda x: x.div(x.abs().sum(axis=1), axis=0),
    "neutralize": neutral,
    "where": where,
    "sign": np.sign,
    "abs": np.abs,
    "log": lambda x: np.log(x.where(x > 0)),
    "signed_power": lambda x, a: np.sign(x) * power(x.abs(), a),
    "maximum": larger,
    "minimum": lambda x, y: -larger(-x, -y),
    "Pow": power,
    "Lt": truth(lambda x, y: x < y),
    "LtE": truth(lambda x, y: x <= y),
    "Gt": truth(lambda x, y: x > y),
    "GtE": truth(lambda x, y: x >= y),
}


class Called(ast.NodeTransformer):
    """Comparisons and powers as calls, whose missing values then follow the language's rules."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        return ast.Call(ast.Name(type(node.ops[0]).__name__, ast.Load()), [node.left, *node.comparators], [])

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        power = ast.Name("Pow", ast.Load())
        return ast.Call(power, [node.left, node.right], []) if isinstance(node.op, ast.Pow) else node


def by_pandas(text: str, columns: dict[str, Frame]) -> np.ndarray:
    tree = ast.fix_missing_locations(Called().visit(ast.parse(text.strip(), mode="eval")))
    adv = {"adv": lambda n: (columns["close"] * columns["volume"]).rolling(n).mean()}
    return eval(compile(tree, "alpha", "eval"), {"__builtins__": {}}, WORDS | adv | columns).to_numpy(copy=True)


@cache
def computed(market: Any) -> tuple[dict[str, Frame], dict[str, np.ndarray]]:
    panel: Panel = market(SLOTS, SYMBOLS, missing=0, seed=3)
    columns, place = panel.columns, np.arange(SYMBOLS)
    shaken = np.exp(np.random.default_rng(0).normal(0, 0.03, (SLOTS, SYMBOLS)))  # or ranks hardly ever change
    for price in ("open", "high", "low", "close"):
        columns[price] = (columns[price] * shaken).astype(np.float32)
    columns["vwap"] = ((columns["high"] + columns["low"] + 2 * columns["close"]) / 4).astype(np.float32)
    columns["volume"] += 1
    for at, name in enumerate(("cap", "sector", "industry", "subindustry")):
        columns[name] = np.repeat((place % (SYMBOLS - 1, 3, 5, 8)[at])[None].astype(np.float32), SLOTS, axis=0)
    frames = {name: Frame(values.astype(np.float64)) for name, values in columns.items()}
    return frames, Program.compile(ALPHAS, tuple(columns)).run(panel)


# Where exact arithmetic gives equal values, rounding decides their rank: the share of cells that still agree.
TIED = {
    "alpha015": 0.9,  # ranks correlations of three ranks
    "alpha045": 0.0,  # ranks correlations over two bars: 1 or -1, but for rounding
    "alpha098": 0.9,  # ranks weighted means of ranks
}
# Correlations of constant windows: pandas then has nothing for the windows around, Tenor asks for half of each.
SPARSE = {"alpha096", "alpha097"}


@pytest.mark.parametrize("name", ALPHAS)
def test_an_alpha_is_its_formula(name: str, market) -> None:
    """Ranks and comparisons jump where two values are equal but for rounding, so one cell in fifty may differ."""
    frames, values = computed(market)
    expected = by_pandas(ALPHAS[name], frames)[WARM:]
    found = values[name][WARM:].astype(np.float64)
    expected[~np.isfinite(expected)] = np.nan
    both = ~np.isnan(found) & ~np.isnan(expected)
    assert both.any()
    near = np.abs(found - expected)[both] <= 1e-3 * np.std(expected[both]) + 1e-6
    if name not in SPARSE:
        assert (np.isnan(found) == np.isnan(expected)).mean() > 0.9
        assert near.mean() > TIED.get(name, 0.98)
    assert np.isfinite(found).mean() >= np.isfinite(expected).mean()


def test_the_two_files_are_the_papers_hundred_and_one() -> None:
    assert sorted(ALPHAS) == [f"alpha{number:03d}" for number in range(1, 102)]
