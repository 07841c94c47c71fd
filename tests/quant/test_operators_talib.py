"""Indicators against TA-Lib; tolerances are in standard deviations of the indicator, after a warm-up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from quant.panel import to_frame
from quant.program import evaluate

EXACT = 2e-4  # no recursion: float32 against double
RECURSIVE = 1e-3  # exponential means: TA-Lib's never forget, ours leave out 1e-5 of the weight
WARM = 500

Bars = dict[str, np.ndarray]


def rising_aroon(bars: Bars) -> np.ndarray:
    return talib.AROON(bars["high"], bars["low"], 20)[1]


ORACLES: dict[str, tuple[Callable[[Bars], np.ndarray], float]] = {
    "mean(close, 20)": (lambda b: talib.SMA(b["close"], 20), EXACT),
    "wma(close, 20)": (lambda b: talib.WMA(b["close"], 20), EXACT),
    "std(close, 20, 0)": (lambda b: talib.STDDEV(b["close"], 20), EXACT),
    "min(low, 20)": (lambda b: talib.MIN(b["low"], 20), EXACT),
    "max(high, 20)": (lambda b: talib.MAX(b["high"], 20), EXACT),
    "sum(close, 20)": (lambda b: talib.SUM(b["close"], 20), EXACT),
    "momentum(close, 10)": (lambda b: talib.MOM(b["close"], 10), EXACT),
    "roc(close, 10)": (lambda b: talib.ROC(b["close"], 10), EXACT),
    "slope(close, 14)": (lambda b: talib.LINEARREG_SLOPE(b["close"], 14), EXACT),
    "corr(high, low, 30)": (lambda b: talib.CORREL(b["high"], b["low"], 30), 5e-3),  # TA-Lib uses raw moments
    "100 * (1 - argmax(high, 21) / 20)": (rising_aroon, EXACT),
    "true_range()": (lambda b: talib.TRANGE(b["high"], b["low"], b["close"]), EXACT),
    "typical_price()": (lambda b: talib.TYPPRICE(b["high"], b["low"], b["close"]), EXACT),
    "williams_r(14)": (lambda b: talib.WILLR(b["high"], b["low"], b["close"], 14), EXACT),
    "stoch_k(14)": (lambda b: talib.STOCHF(b["high"], b["low"], b["close"], 14, 3)[0], EXACT),
    "stoch_d(14, 3)": (lambda b: talib.STOCHF(b["high"], b["low"], b["close"], 14, 3)[1], EXACT),
    "bollinger_upper(close, 20, 2)": (lambda b: talib.BBANDS(b["close"], 20, 2, 2)[0], EXACT),
    "bollinger_lower(close, 20, 2)": (lambda b: talib.BBANDS(b["close"], 20, 2, 2)[2], EXACT),
    "ema(close, 12)": (lambda b: talib.EMA(b["close"], 12), RECURSIVE),
    "ema(close, 50)": (lambda b: talib.EMA(b["close"], 50), RECURSIVE),
    "rsi(close, 14)": (lambda b: talib.RSI(b["close"], 14), RECURSIVE),
    "atr(14)": (lambda b: talib.ATR(b["high"], b["low"], b["close"], 14), RECURSIVE),
    "natr(14)": (lambda b: talib.NATR(b["high"], b["low"], b["close"], 14), RECURSIVE),
    "macd(close, 12, 26)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[0], RECURSIVE),
    "macd_signal(close, 12, 26, 9)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[1], RECURSIVE),
    "macd_histogram(close, 12, 26, 9)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[2], RECURSIVE),
}


def check(frame: pl.DataFrame, text: str) -> None:
    """frame: bars of one symbol; its rows are taken as consecutive slots, as TA-Lib takes them."""
    oracle, tolerance = ORACLES[text]
    # TA-Lib is given the float32 prices that expressions see, so that only the arithmetic differs.
    bars = {name: frame[name].cast(pl.Float32).cast(pl.Float64).to_numpy() for name in ("high", "low", "close")}
    expected = oracle(bars)[WARM:]
    found = evaluate(frame, text)["value"].to_numpy()[WARM:].astype(np.float64)
    missing = np.isnan(found)
    assert missing.mean() < 0.05  # a range of zero has no value in ours
    assert np.abs(found - expected)[~missing].max() / expected.std() < tolerance


@pytest.mark.parametrize("text", ORACLES)
def test_an_indicator_agrees_with_talib(text: str, market) -> None:
    panel = market(3_000, 1, missing=0)
    check(to_frame(panel.time, panel.symbols, panel.columns), text)


@pytest.fixture(scope="module")
def real_bars(market_data: Path) -> pl.DataFrame:
    frame = pl.read_parquet(market_data / "dev_eq_us_1m_2024.parquet")
    return frame.filter(pl.col("symbol") == "SW").sort("timestamp").tail(6_000)


@pytest.mark.parametrize("text", ORACLES)
def test_an_indicator_agrees_with_talib_on_real_bars(text: str, real_bars: pl.DataFrame) -> None:
    check(real_bars, text)
