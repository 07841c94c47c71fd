"""The sets `regime` and `regime_vix` against TA-Lib, pandas and NumPy; SPY is the market and VIX its index."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
import yaml

import conf
from quant.inputs import names
from quant.panel import Panel
from quant.program import Program
from quant.sets import Entry, expand

WARM, TOLERANCE = 500, 1e-3  # of the feature's standard deviation
# Two volatilities that float32 takes for equal, of 250 ranks
TIES = dict.fromkeys(("volatility_state", "range_state", "market_volatility_state", "vix_state"), 0.02)

Bars = pd.DataFrame
Series = pd.Series
Oracle = Callable[[Bars], Series | np.ndarray]


@cache
def shipped(name: str) -> dict[str, Entry]:
    text = (Path(conf.__file__).parent / "features" / f"{name}.yaml").read_text()
    return expand({name: yaml.safe_load(text.replace("${universe.reference}", "SPY"))}, file_of=str)


def family(pattern: str, numbers: list[int], oracle: Callable[[Bars, int], Series | np.ndarray]) -> dict[str, Oracle]:
    return {pattern.format(n=n): lambda b, n=n: oracle(b, n) for n in numbers}  # type: ignore[misc]


def logs(x: Series, n: int = 1) -> Series:
    return np.log(x).diff(n)


def volatility(x: Series, n: int) -> Series:
    return logs(x).rolling(n).std()


def parkinson(b: Bars, n: int) -> Series:
    return np.sqrt((np.log(b.high / b.low) ** 2).rolling(n).mean() / np.log(16))


def yang_zhang(b: Bars, n: int) -> Series:
    o, u = np.log(b.open) - np.log(b.close.shift()), np.log(b.high / b.open)
    d, c = np.log(b.low / b.open), np.log(b.close / b.open)
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    drift_free = (u * (u - c) + d * (d - c)).rolling(n).mean()
    return np.sqrt(o.rolling(n).var() + k * c.rolling(n).var() + (1 - k) * drift_free)


def slope(x: Series, n: int) -> Series:
    return pd.Series(talib.LINEARREG_SLOPE(np.log(x).to_numpy(), n))


def fit(x: Series, n: int) -> Series:
    return np.log(x).rolling(n).apply(lambda window: np.corrcoef(window, np.arange(n))[0, 1] ** 2, raw=True)


def efficiency(b: Bars, n: int) -> Series:
    return b.close.diff(n).abs() / b.close.diff().abs().rolling(n).sum()


def hlc(function: Callable[..., np.ndarray], b: Bars) -> np.ndarray:
    return function(b.high.to_numpy(), b.low.to_numpy(), b.close.to_numpy(), 14)


def downside(b: Bars) -> Series:
    squares = logs(b.close) ** 2
    return squares.where(b.close.diff() < 0, 0.0).rolling(60).sum() / squares.rolling(60).sum()


def on(x: Series, market: Series) -> Series:
    """Slope of returns on the market's over 60 bars."""
    return logs(x).rolling(60).cov(logs(market)) / logs(market).rolling(60).var()


REGIME: dict[str, Oracle] = {
    "volatility_state": lambda b: volatility(b.close, 20).rolling(250).rank(pct=True),
    "range_state": lambda b: parkinson(b, 10).rolling(250).rank(pct=True),
    "volatility_expansion": lambda b: volatility(b.close, 10) / volatility(b.close, 120),
    "volatility_of_volatility": lambda b: (
        volatility(b.close, 20).rolling(60).std() / volatility(b.close, 20).rolling(60).mean()
    ),
    "range_to_close_volatility": lambda b: parkinson(b, 60) / yang_zhang(b, 60),
    "downside_share": downside,
    "trend_strength": lambda b: hlc(talib.ADX, b) / 100,
    "trend_direction": lambda b: (hlc(talib.PLUS_DI, b) - hlc(talib.MINUS_DI, b)) / 100,
    "trend_fit": lambda b: fit(b.close, 120),
    "trend_speed": lambda b: slope(b.close, 120) / volatility(b.close, 120),
    **family("efficiency_{n}", [20, 120], efficiency),
    **family("drawdown_{n}", [60, 250], lambda b, n: b.close / b.high.rolling(n).max() - 1),
    "autocorrelation": lambda b: logs(b.close).rolling(60).corr(logs(b.close).shift()),
    **family("market_correlation_{n}", [20, 60], lambda b, n: logs(b.close).rolling(n).corr(logs(b.market))),
    "market_beta": lambda b: on(b.close, b.market),
    **family(
        "relative_strength_{n}",
        [5, 20, 60],
        lambda b, n: b.close.pct_change(n, fill_method=None) - b.market.pct_change(n, fill_method=None),
    ),
    "relative_volatility": lambda b: volatility(b.close, 20) / volatility(b.market, 20),
    "market_volatility_state": lambda b: volatility(b.market, 20).rolling(250).rank(pct=True),
    "market_trend": lambda b: slope(b.market, 60) / volatility(b.market, 60),
    "market_drawdown": lambda b: b.market / b.market_high.rolling(250).max() - 1,
}
VIX: dict[str, Oracle] = {
    "vix_level": lambda b: b.vix / 100,
    "vix_state": lambda b: b.vix.rolling(250).rank(pct=True),
    **family("vix_change_{n}", [1, 5, 20], lambda b, n: logs(b.vix, n)),
    "vix_to_mean": lambda b: b.vix / b.vix.rolling(20).mean() - 1,
    "vix_correlation": lambda b: logs(b.close).rolling(60).corr(logs(b.vix)),
    "vix_beta": lambda b: on(b.close, b.vix),
    "vix_premium": lambda b: np.log(b.vix / volatility(b.close, 22)),
}
SETS = {"regime": REGIME, "regime_vix": VIX}


@pytest.mark.parametrize("name", SETS)
def test_a_set_agrees_with_its_formulas(name: str, market, agrees) -> None:
    made = market(1_800, 3, missing=0)
    panel = Panel(made.time, ("A", "SPY", "VIX"), made.columns)
    assert SETS[name].keys() == shipped(name).keys()
    found = Program.compile(shipped(name), names(), section=False).run(panel)
    columns = {column: values[:, 0].astype(np.float64) for column, values in panel.columns.items()}
    close, high = panel.columns["close"].astype(np.float64), panel.columns["high"].astype(np.float64)
    columns |= {"market": close[:, 1], "market_high": high[:, 1], "vix": close[:, 2]}
    agrees(found, SETS[name], pd.DataFrame(columns), warm=WARM, tolerance=TOLERANCE, loose=TIES)


def test_of_the_market_every_symbol_is_told_the_same(market) -> None:
    made = market(700, 3, missing=0)
    panel = Panel(made.time, ("A", "SPY", "VIX"), made.columns)
    told = Program.compile(shipped("regime") | shipped("regime_vix"), names(), section=False).run(panel, tail=50)
    alike = [name for name, values in told.items() if (values == values[:, :1]).all()]
    assert alike == [
        "market_volatility_state",
        "market_trend",
        "market_drawdown",
        "vix_level",
        "vix_state",
        "vix_change_1",
        "vix_change_5",
        "vix_change_20",
        "vix_to_mean",
    ]
