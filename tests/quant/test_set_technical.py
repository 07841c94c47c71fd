"""The set `technical` against TA-Lib where it has the indicator, else against pandas and NumPy in double precision.

Tolerances are in standard deviations of the feature, after a warm-up. Calendar features: against dates and clocks.
"""

from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import pandas as pd
import polars as pl
import talib
import yaml

import conf
from quant.grid import CalendarSpec, Grid
from quant.inputs import calendar_fields, names
from quant.panel import Panel, instants
from quant.program import Program
from quant.sets import Entry, expand

WARM = 800
SYNTHETIC, REAL = 5e-4, 1e-3  # real prices move less between bars, so float32 holds fewer digits of their changes
TIES = {"bollinger_squeeze": 0.05}  # two widths that float32 takes for equal, of 120 ranks

Bars = pd.DataFrame
Series = pd.Series


@cache
def technical() -> dict[str, Entry]:
    declared = yaml.safe_load((Path(conf.__file__).parent / "features" / "technical.yaml").read_text())
    return expand({"technical": declared}, file_of=lambda name: f"conf/features/{name}.yaml")


CALENDAR = [entry.name for entry in technical().values() if entry.group == "calendar"]


# Formulas, written without looking at ours


def back(b: Bars, n: int = 1) -> Series:
    """Relative change over n bars."""
    return b.close.pct_change(n, fill_method=None)


def logs(b: Bars) -> Series:
    return np.log(b.close).diff()


def deviation(b: Bars, n: int) -> Series:
    return logs(b).rolling(n).std()


def windows(x: Series, n: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x.to_numpy(), n)


def late(values: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([np.full(n - 1, np.nan), values])


def line(x: Series, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the regression on time, and the squared correlation with it, in each window."""
    time = np.arange(n) - (n - 1) / 2
    rows = windows(x, n)
    centred = rows - rows.mean(axis=1, keepdims=True)
    slope = centred @ time / (time @ time)
    return late(slope, n), late((centred @ time) ** 2 / ((centred**2).sum(axis=1) * (time @ time)), n)


def average(x: Series | np.ndarray, n: int) -> Series:
    return pd.Series(x).rolling(n).mean()


def ema(b: Bars, n: int) -> np.ndarray:
    return talib.EMA(b.close.to_numpy(), n)


def hlc(function: Callable[..., np.ndarray], b: Bars, *numbers: int) -> np.ndarray:
    return function(b.high.to_numpy(), b.low.to_numpy(), b.close.to_numpy(), *numbers)


def macd(b: Bars, part: int) -> np.ndarray:
    return talib.MACD(b.close.to_numpy(), 12, 26, 9)[part]


def bands(b: Bars) -> tuple[np.ndarray, ...]:
    return talib.BBANDS(b.close.to_numpy(), 20, 2.0, 2.0)


def width(b: Bars) -> Series:
    upper, middle, lower = bands(b)
    return pd.Series((upper - lower) / middle)


def change(values: np.ndarray, n: int) -> np.ndarray:
    """A running total over a window of n."""
    return values - np.concatenate([np.full(n, np.nan), values[:-n]])


def garman_klass(b: Bars, n: int) -> Series:
    u, d, c = np.log(b.high / b.open), np.log(b.low / b.open), np.log(b.close / b.open)
    return np.sqrt(((u - d) ** 2 / 2 - (2 * np.log(2) - 1) * c**2).rolling(n).mean())


def yang_zhang(b: Bars, n: int) -> Series:
    o, u = np.log(b.open) - np.log(b.close.shift()), np.log(b.high / b.open)
    d, c = np.log(b.low / b.open), np.log(b.close / b.open)
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    drift_free = (u * (u - c) + d * (d - c)).rolling(n).mean()
    return np.sqrt(o.rolling(n).var() + k * c.rolling(n).var() + (1 - k) * drift_free)


def impact(b: Bars, n: int) -> Series:
    per_turnover = (back(b).abs() / (b.close * b.volume)).replace([np.inf, -np.inf], np.nan)
    return per_turnover.rolling(n, min_periods=n // 2).mean()


def place(b: Bars, n: int) -> Series:
    low, high = b.low.rolling(n).min(), b.high.rolling(n).max()
    return (b.close - low) / (high - low)


def age(x: Series, n: int) -> Series:
    """Bars since the largest of the last n, the newest of equal ones."""
    return x.rolling(n).apply(lambda window: np.argmax(window[::-1]), raw=True)


def session(b: Bars) -> tuple[Series, Series]:
    """Highest high and lowest low since the session's first bar."""
    day = (b.bar_of_session == 0).cumsum()
    return b.high.groupby(day).cummax(), b.low.groupby(day).cummin()


def turnover(b: Bars) -> Series:
    return (b.high + b.low + b.close) / 3 * b.volume


def downside(b: Bars) -> Series:
    return np.sqrt((logs(b).clip(upper=0) ** 2).rolling(60).mean())


def money_flow(b: Bars) -> Series:
    total = talib.AD(*(b[name].to_numpy() for name in ("high", "low", "close", "volume")))
    return change(total, 20) / b.volume.rolling(20).sum()


def on_balance(b: Bars) -> Series:
    return change(talib.OBV(b.close.to_numpy(), b.volume.to_numpy()), 20) / b.volume.rolling(20).sum()


def money_flow_index(b: Bars) -> np.ndarray:
    """Nothing where the window holds a typical price that moved by rounding alone: rising or falling is then chance."""
    typical = (b.high + b.low + b.close) / 3
    still = (typical.diff().abs() < 1e-6 * typical).rolling(14).max() > 0
    values = talib.MFI(*(b[name].to_numpy() for name in ("high", "low", "close", "volume")), 14)
    return np.where(still, np.nan, values)


Oracle = Callable[[Bars], Series | np.ndarray]


def family(pattern: str, numbers: list[int], oracle: Callable[[Bars, int], Series | np.ndarray]) -> dict[str, Oracle]:
    return {pattern.format(n=n): lambda b, n=n: oracle(b, n) for n in numbers}  # type: ignore[misc]


ORACLES: dict[str, Oracle] = {
    # Returns and their distribution
    **family("return_{n}", [1, 2, 3, 6, 12, 24, 48], back),
    "log_return": logs,
    **family("acceleration_{n}", [1, 3, 12], lambda b, n: back(b, n) - back(b, n).shift(n)),
    **family("return_lag_{n}", [1, 2, 3, 6, 12], lambda b, n: back(b).shift(n)),
    **family("return_mean_{n}", [60, 120], lambda b, n: back(b).rolling(n).mean()),
    **family("return_deviation_{n}", [6, 60], lambda b, n: back(b).rolling(n).std()),
    **family("skew_{n}", [24, 60, 120], lambda b, n: logs(b).rolling(n).skew()),
    **family("kurtosis_{n}", [24, 60, 120], lambda b, n: logs(b).rolling(n).kurt()),
    "return_to_risk": lambda b: logs(b).rolling(60).mean() / deviation(b, 60),
    "downside_deviation": downside,
    **family("share_of_rises_{n}", [12, 60], lambda b, n: (b.close.diff() > 0).astype(float).rolling(n).mean()),
    "largest_rise": lambda b: back(b).rolling(24).max(),
    "largest_fall": lambda b: back(b).rolling(24).min(),
    # Trend
    **family(
        "close_to_mean_{n}",
        [10, 24, 60, 120, 480],
        lambda b, n: b.close / talib.SMA(b.close.to_numpy(), n) - 1,
    ),
    **family("mean_ratio_24_{n}", [120, 480], lambda b, n: average(b.close, 24) / average(b.close, n) - 1),
    "mean_ratio_120_480": lambda b: average(b.close, 120) / average(b.close, 480) - 1,
    "mean_ratio_10_60": lambda b: average(b.close, 10) / average(b.close, 60) - 1,
    **family("close_to_ema_{n}", [12, 26, 50], lambda b, n: b.close / ema(b, n) - 1),
    "macd": lambda b: macd(b, 0) / b.close,
    "macd_signal": lambda b: macd(b, 1) / b.close,
    "macd_histogram": lambda b: macd(b, 2) / b.close,
    "macd_normalized": lambda b: macd(b, 0) / hlc(talib.ATR, b, 26),
    **family("trend_slope_{n}", [20, 60, 120], lambda b, n: line(np.log(b.close), n)[0]),
    **family("trend_fit_{n}", [20, 60, 120], lambda b, n: line(b.close, n)[1]),
    "adx_14": lambda b: hlc(talib.ADX, b, 14) / 100,
    "directional_balance": lambda b: (hlc(talib.PLUS_DI, b, 14) - hlc(talib.MINUS_DI, b, 14)) / 100,
    "trix": lambda b: talib.TRIX(b.close.to_numpy(), 15) / 100,
    "drawdown": lambda b: b.close / b.high.rolling(120).max() - 1,
    "recovery": lambda b: b.close / b.low.rolling(120).min() - 1,
    # Oscillators
    **family("rsi_{n}", [6, 14, 24], lambda b, n: talib.RSI(b.close.to_numpy(), n)),
    "rsi_change": lambda b: pd.Series(talib.RSI(b.close.to_numpy(), 14)).diff(6),
    "williams_r": lambda b: hlc(talib.WILLR, b, 14),
    "stochastic_d": lambda b: hlc(talib.STOCHF, b, 14, 3)[1],
    "commodity_channel": lambda b: hlc(talib.CCI, b, 20) / 100,
    "ultimate_oscillator": lambda b: hlc(talib.ULTOSC, b, 7, 14, 28),
    "aroon": lambda b: talib.AROONOSC(b.high.to_numpy(), b.low.to_numpy(), 25) / 100,
    # Bands
    "bollinger_upper": lambda b: bands(b)[0] / b.close - 1,
    "bollinger_lower": lambda b: bands(b)[2] / b.close - 1,
    "bollinger_position": lambda b: (b.close - bands(b)[2]) / (bands(b)[0] - bands(b)[2]),
    "bollinger_width": width,
    "bollinger_squeeze": lambda b: width(b).rolling(120).rank(pct=True),
    "keltner_squeeze": lambda b: talib.STDDEV(b.close.to_numpy(), 20, 2.0) / (1.5 * hlc(talib.ATR, b, 20)),
    "keltner_position": lambda b: (b.close - (ema(b, 20) - 2 * hlc(talib.ATR, b, 10))) / (4 * hlc(talib.ATR, b, 10)),
    # Volatility
    **family("volatility_{n}", [12, 24, 120], deviation),
    **family("volatility_ratio_12_{n}", [24, 120], lambda b, n: deviation(b, 12) / deviation(b, n)),
    "volatility_ratio_24_120": lambda b: deviation(b, 24) / deviation(b, 120),
    **family(
        "volatility_of_volatility_{n}",
        [24, 120],
        lambda b, n: deviation(b, 12).rolling(n).std() / deviation(b, 12).rolling(n).mean(),
    ),
    **family("volatility_lag_{n}", [1, 12, 24], lambda b, n: deviation(b, 12).shift(n)),
    **family("garman_klass_{n}", [12, 24, 120], garman_klass),
    "parkinson": lambda b: np.sqrt((np.log(b.high / b.low) ** 2).rolling(24).mean() / np.log(16)),
    "yang_zhang": lambda b: yang_zhang(b, 24),
    "range_efficiency": lambda b: deviation(b, 24) / garman_klass(b, 24),
    "true_range": lambda b: hlc(talib.TRANGE, b) / b.close,
    "atr_14": lambda b: hlc(talib.NATR, b, 14) / 100,
    "atr_ratio": lambda b: hlc(talib.ATR, b, 14) / average(hlc(talib.TRANGE, b), 120),
    "range_to_atr": lambda b: hlc(talib.TRANGE, b) / pd.Series(hlc(talib.ATR, b, 14)).shift(),
    # Volume
    **family("volume_ratio_{n}", [5, 20, 60], lambda b, n: b.volume / average(b.volume, n)),
    **family("volume_ratio_lag_{n}", [1, 2, 3], lambda b, n: (b.volume / average(b.volume, 20)).shift(n)),
    "volume_mean_5_20": lambda b: average(b.volume, 5) / average(b.volume, 20) - 1,
    "volume_mean_24_120": lambda b: average(b.volume, 24) / average(b.volume, 120) - 1,
    "volume_change": lambda b: np.log1p(b.volume).diff(),
    "volume_surprise": lambda b: (b.volume - average(b.volume, 24)) / b.volume.rolling(24).std(),
    "volume_variation": lambda b: b.volume.rolling(24).std() / average(b.volume, 24),
    "volume_return_corr": lambda b: logs(b).rolling(20).corr(np.log1p(b.volume)),
    "price_volume_trend": lambda b: (back(b) * b.volume).rolling(24).sum() / b.volume.rolling(24).sum(),
    "on_balance_volume": on_balance,
    "money_flow_index": money_flow_index,
    "chaikin_money_flow": money_flow,
    "close_to_vwap": lambda b: b.close * b.volume.rolling(20).sum() / turnover(b).rolling(20).sum() - 1,
    "illiquidity_ratio": lambda b: impact(b, 12) / impact(b, 120),
    # The bar and the session
    "bar_range": lambda b: (b.high - b.low) / b.close,
    "bar_position": lambda b: (b.close - b.low) / (b.high - b.low),
    "bar_body": lambda b: b.close / b.open - 1,
    "gap": lambda b: b.open / b.close.shift() - 1,
    "close_to_high": lambda b: b.close / b.high - 1,
    "close_to_low": lambda b: b.close / b.low - 1,
    "range_ratio": lambda b: (b.high - b.low) / average(b.high - b.low, 24),
    **family("range_position_{n}", [20, 60], place),
    "bars_since_high": lambda b: age(b.high, 20) / 20,
    "bars_since_low": lambda b: age(-b.low, 20) / 20,
    "session_range": lambda b: (session(b)[0] - session(b)[1]) / b.close,
    "session_position": lambda b: (b.close - session(b)[1]) / (session(b)[0] - session(b)[1]),
}


def test_every_feature_has_an_oracle() -> None:
    assert ORACLES.keys() | set(CALENDAR) == technical().keys()
    assert not ORACLES.keys() & set(CALENDAR)


def agree(panel: Panel, agrees: Callable[..., None], tolerance: float) -> None:
    found = Program.compile({name: technical()[name] for name in ORACLES}, names()).run(panel)
    bars = pd.DataFrame({name: values[:, 0].astype(np.float64) for name, values in panel.columns.items()})
    agrees(found, ORACLES, bars, warm=WARM, tolerance=tolerance, loose=TIES)


def test_the_features_agree_with_talib_and_pandas(market, agrees) -> None:
    agree(market(3_000, 1, missing=0), agrees, SYNTHETIC)


def test_the_features_agree_with_talib_and_pandas_on_real_bars(market_data: Path, agrees) -> None:
    frame = pl.read_parquet(market_data / "dev_eq_us_1m_2024.parquet")
    frame = frame.filter(pl.col("symbol") == "SW").sort("timestamp").tail(6_000)
    time = instants(frame["timestamp"])
    panel = Panel.from_frame(frame, time, ["SW"], ["open", "high", "low", "close", "volume"])
    count = pl.int_range(pl.len()).over(pl.col("timestamp").dt.date())
    of_session = frame.select(count).to_series().to_numpy().astype(np.float32)[:, None]
    agree(panel.joined(Panel(time, ("SW",), {"bar_of_session": of_session})), agrees, REAL)


# The calendar


def of_calendar(name: str, interval: str, start: date, end: date) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Bar starts, and the calendar features of each."""
    grid = Grid(CalendarSpec(name), interval)
    slots = grid.slots(start, end)
    program = Program.compile({feature: technical()[feature] for feature in CALENDAR}, names(), section=False)
    fields = calendar_fields(grid, slots, program.inputs)
    panel = Panel(slots, ("A",), {field: np.ascontiguousarray(values[:, None]) for field, values in fields.items()})
    return slots, {feature: values[:, 0] for feature, values in program.run(panel).items()}


def circle(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sin(2 * np.pi * share), np.cos(2 * np.pi * share)


def assert_cyclic(found: dict[str, np.ndarray], **shares: np.ndarray) -> None:
    for word, share in shares.items():
        for name, expected in zip((f"{word}_sin", f"{word}_cos"), circle(share), strict=True):
            np.testing.assert_allclose(found[name], expected, atol=2e-6, err_msg=name)


def test_calendar_features_are_those_of_the_exchanges_clock() -> None:
    # A change of the clocks on 3 November, a holiday on the 28th, a half day on the 29th.
    slots, found = of_calendar("XNYS", "5m", date(2024, 10, 28), date(2024, 12, 2))
    stamps = pd.DatetimeIndex(slots, tz="UTC")
    there = stamps.tz_convert(ZoneInfo("America/New_York"))
    exchange = exchange_calendars.get_calendar("XNYS", start="2024-01-01", end="2024-12-31")
    hours = exchange.schedule.loc[there.strftime("%Y-%m-%d")]
    opens, closes = pd.DatetimeIndex(hours["open"]), pd.DatetimeIndex(hours["close"])
    progress = ((stamps - opens) / (closes - opens)).to_numpy()
    assert len(set(closes - opens)) == 2
    np.testing.assert_allclose(found["session_progress"], progress, atol=1e-6)
    since_open = there.hour + there.minute / 60 - 9.5
    assert_cyclic(found, session=progress, hour=since_open.to_numpy() / 24, weekday=there.weekday.to_numpy() / 7)


def test_around_the_clock_the_hour_is_that_of_utc() -> None:
    slots, found = of_calendar("24/7", "15m", date(2024, 3, 1), date(2024, 3, 20))
    stamps = pd.DatetimeIndex(slots)
    hour = (stamps.hour + stamps.minute / 60).to_numpy() / 24
    assert_cyclic(found, session=hour, hour=hour, weekday=stamps.weekday.to_numpy() / 7)
    assert set(stamps.weekday) == set(range(7))


def test_daily_bars_have_their_weekday_and_stand_at_the_open() -> None:
    slots, found = of_calendar("XNYS", "1d", date(2024, 1, 2), date(2024, 12, 31))
    start = np.zeros(len(slots))
    assert_cyclic(found, session=start, hour=start, weekday=pd.DatetimeIndex(slots).weekday.to_numpy() / 7)
