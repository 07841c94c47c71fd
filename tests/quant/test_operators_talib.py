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

COLUMNS = ("high", "low", "close", "volume")
Bars = dict[str, np.ndarray]


def hlc(function: Callable[..., np.ndarray], *numbers: int) -> Callable[[Bars], np.ndarray]:
    return lambda bars: function(bars["high"], bars["low"], bars["close"], *numbers)


def change(values: np.ndarray, n: int) -> np.ndarray:
    """A running total over a window of n."""
    return values - np.concatenate([np.full(n, np.nan), values[:-n]])


def money_flow(bars: Bars) -> np.ndarray:
    total = talib.AD(bars["high"], bars["low"], bars["close"], bars["volume"])
    return change(total, 20) / talib.SUM(bars["volume"], 20)


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
    "aroon_up(20)": (lambda b: talib.AROON(b["high"], b["low"], 20)[1], EXACT),
    "aroon_down(20)": (lambda b: talib.AROON(b["high"], b["low"], 20)[0], EXACT),
    "aroon_oscillator(14)": (lambda b: talib.AROONOSC(b["high"], b["low"], 14), EXACT),
    "cci(20)": (hlc(talib.CCI, 20), RECURSIVE),  # a difference of prices over a smaller one, in float32
    "ultimate_oscillator()": (hlc(talib.ULTOSC, 7, 14, 28), EXACT),
    "mfi(14)": (lambda b: talib.MFI(b["high"], b["low"], b["close"], b["volume"], 14), EXACT),
    "obv(20)": (lambda b: change(talib.OBV(b["close"], b["volume"]), 20), EXACT),
    "chaikin_money_flow(20)": (money_flow, EXACT),
    "donchian_middle(20)": (lambda b: talib.MIDPRICE(b["high"], b["low"], 20), EXACT),
    "residual(close, 14) + close": (lambda b: 2 * b["close"] - talib.LINEARREG(b["close"], 14), EXACT),
    "beta(returns(close), returns(high), 20)": (lambda b: talib.BETA(b["high"], b["close"], 20), 5e-3),  # as CORREL
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
    "di_plus(14)": (hlc(talib.PLUS_DI, 14), RECURSIVE),
    "di_minus(14)": (hlc(talib.MINUS_DI, 14), RECURSIVE),
    "dx(14)": (hlc(talib.DX, 14), RECURSIVE),
    "adx(14)": (hlc(talib.ADX, 14), RECURSIVE),
    "trix(close, 15)": (lambda b: talib.TRIX(b["close"], 15), RECURSIVE),
    "ppo(close, 12, 26)": (lambda b: talib.PPO(b["close"], 12, 26, 1), RECURSIVE),
    "keltner_upper()": (lambda b: talib.EMA(b["close"], 20) + 2 * hlc(talib.ATR, 10)(b), RECURSIVE),
    "keltner_lower()": (lambda b: talib.EMA(b["close"], 20) - 2 * hlc(talib.ATR, 10)(b), RECURSIVE),
    "macd(close, 12, 26)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[0], RECURSIVE),
    "macd_signal(close, 12, 26, 9)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[1], RECURSIVE),
    "macd_histogram(close, 12, 26, 9)": (lambda b: talib.MACD(b["close"], 12, 26, 9)[2], RECURSIVE),
}


def unmoved(bars: Bars) -> np.ndarray:
    """Where mfi's window holds a typical price that moved by rounding alone: rising or falling is then chance."""
    typical = talib.TYPPRICE(bars["high"], bars["low"], bars["close"])
    still = np.abs(np.diff(typical, prepend=0)) < 1e-6 * typical
    return talib.MAX(still.astype(float), 14) > 0


def check(frame: pl.DataFrame, text: str) -> None:
    """frame: bars of one symbol; its rows are taken as consecutive slots, as TA-Lib takes them."""
    oracle, tolerance = ORACLES[text]
    # TA-Lib is given the float32 prices that expressions see, so that only the arithmetic differs.
    bars = {name: frame[name].cast(pl.Float32).cast(pl.Float64).to_numpy() for name in COLUMNS}
    expected = oracle(bars)[WARM:]
    found = evaluate(frame, text)["value"].to_numpy()[WARM:].astype(np.float64)
    missing = np.isnan(found)
    assert missing.mean() < 0.05  # a range of zero has no value in ours
    judged = ~missing & ~(unmoved(bars)[WARM:] if text == "mfi(14)" else False)
    assert judged.mean() > 0.5
    assert np.abs(found - expected)[judged].max() / expected.std() < tolerance


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
