"""The sets `volatility`, `liquidity` and `momentum` against the papers' formulas, in pandas, SciPy and TA-Lib."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
import yaml
from scipy.stats import linregress, norm

import conf
from quant.inputs import names
from quant.panel import Panel
from quant.program import Program
from quant.sets import Entry, expand

WARM = 900
TOLERANCE = 1e-3  # of the feature's standard deviation

Bars = pd.DataFrame
Series = pd.Series
Oracle = Callable[[Bars], Series | np.ndarray]


@cache
def shipped(name: str) -> dict[str, Entry]:
    declared = yaml.safe_load((Path(conf.__file__).parent / "features" / f"{name}.yaml").read_text())
    return expand({name: declared}, file_of=lambda name: f"conf/features/{name}.yaml")


def family(pattern: str, numbers: list[int], oracle: Callable[[Bars, int], Series | np.ndarray]) -> dict[str, Oracle]:
    return {pattern.format(n=n): lambda b, n=n: oracle(b, n) for n in numbers}  # type: ignore[misc]


def logs(b: Bars, n: int = 1) -> Series:
    return np.log(b.close).diff(n)


def back(b: Bars, n: int = 1) -> Series:
    return b.close.pct_change(n, fill_method=None)


def finite(x: Series) -> Series:
    """Bars without a value are skipped by the windows over them, as in ours."""
    return x.replace([np.inf, -np.inf], np.nan)


def mean(x: Series, n: int) -> Series:
    return x.rolling(n, min_periods=(n + 1) // 2).mean()


# Volatility: the papers write sums of squared returns, ours are per bar


def realized(b: Bars, n: int) -> Series:
    return np.sqrt((logs(b) ** 2).rolling(n).sum() / n)


def half(b: Bars, n: int, sign: int) -> Series:
    r = logs(b)
    return np.sqrt((r**2).where(sign * r > 0, 0.0).rolling(n).sum() / n)


def bipower(b: Bars, n: int) -> Series:
    size = logs(b).abs()
    return np.sqrt(np.pi / 2 * (size * size.shift()).rolling(n).sum() / n)


def smallest(b: Bars, n: int) -> Series:
    size = logs(b).abs()
    return np.sqrt(np.pi / (np.pi - 2) * mean(np.minimum(size, size.shift()) ** 2, n))


def middle(b: Bars, n: int) -> Series:
    scale = np.pi / (6 - 4 * np.sqrt(3) + np.pi)
    return np.sqrt(scale * mean(logs(b).abs().rolling(3).median() ** 2, n))


def signed_jump(b: Bars, n: int) -> Series:
    return (half(b, n, 1) ** 2 - half(b, n, -1) ** 2) / realized(b, n) ** 2


def amaya(b: Bars, n: int, power: int) -> Series:
    r = logs(b)
    return n ** (power / 2 - 1) * (r**power).rolling(n).sum() / (r**2).rolling(n).sum() ** (power / 2)


def hinkley(b: Bars) -> Series:
    low, centre, high = (logs(b).rolling(250).quantile(q) for q in (0.05, 0.5, 0.95))
    return (high + low - 2 * centre) / (high - low)


def garman_klass(b: Bars, n: int) -> Series:
    u, d, c = np.log(b.high / b.open), np.log(b.low / b.open), np.log(b.close / b.open)
    return np.sqrt(((u - d) ** 2 / 2 - (2 * np.log(2) - 1) * c**2).rolling(n).mean())


def driftless(b: Bars, n: int) -> Series:
    u, d, c = np.log(b.high / b.open), np.log(b.low / b.open), np.log(b.close / b.open)
    return np.sqrt((u * (u - c) + d * (d - c)).rolling(n).mean())


def yang_zhang(b: Bars, n: int) -> Series:
    o, c = np.log(b.open) - np.log(b.close.shift()), np.log(b.close / b.open)
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    return np.sqrt(o.rolling(n).var() + k * c.rolling(n).var() + (1 - k) * driftless(b, n) ** 2)


def gap_share(b: Bars, n: int) -> Series:
    gaps, bodies = (np.log(b.open / b.close.shift()) ** 2).rolling(n).sum(), (np.log(b.close / b.open) ** 2).rolling(n)
    return gaps / (gaps + bodies.sum())


VOLATILITY: dict[str, Oracle] = {
    **family("realized_{n}", [5, 22, 66, 250], realized),
    "realized_ratio_5_22": lambda b: realized(b, 5) / realized(b, 22),
    "realized_ratio_22_66": lambda b: realized(b, 22) / realized(b, 66),
    "realized_ratio_66_250": lambda b: realized(b, 66) / realized(b, 250),
    "riskmetrics": lambda b: np.sqrt((logs(b) ** 2).ewm(alpha=2 / 33).mean()),
    **family("good_volatility_{n}", [22, 66], lambda b, n: half(b, n, 1)),
    **family("bad_volatility_{n}", [22, 66], lambda b, n: half(b, n, -1)),
    **family("signed_jump_{n}", [22, 66], signed_jump),
    **family("bipower_{n}", [22, 66], bipower),
    **family("min_volatility_{n}", [22, 66], smallest),
    **family("median_volatility_{n}", [22, 66], middle),
    **family("jump_share_{n}", [22, 66], lambda b, n: (1 - bipower(b, n) ** 2 / realized(b, n) ** 2).clip(lower=0)),
    **family("realized_skew_{n}", [22, 66], lambda b, n: amaya(b, n, 3)),
    **family("realized_kurtosis_{n}", [22, 66], lambda b, n: amaya(b, n, 4)),
    "value_at_risk": lambda b: -logs(b).rolling(250).quantile(0.05),
    "tail_asymmetry": hinkley,
    **family(
        "range_volatility_{n}", [5, 22, 66], lambda b, n: np.sqrt(mean(np.log(b.high / b.low) ** 2, n) / np.log(16))
    ),
    **family("bar_volatility_{n}", [5, 22, 66], garman_klass),
    **family("driftless_volatility_{n}", [5, 22, 66], driftless),
    **family("gap_volatility_{n}", [5, 22, 66], yang_zhang),
    **family("gap_share_{n}", [22, 66], gap_share),
    **family(
        "range_variation_{n}",
        [22, 66],
        lambda b, n: np.log(b.high / b.low).rolling(n).std() / np.log(b.high / b.low).rolling(n).mean(),
    ),
    "leverage": lambda b: (logs(b) ** 2).rolling(66).corr(logs(b).shift()),
    "clustering": lambda b: logs(b).abs().rolling(66).corr(logs(b).abs().shift()),
}


# Liquidity


def turnover(b: Bars) -> Series:
    return b.close * b.volume


def illiquidity(b: Bars, n: int) -> Series:
    return mean(finite(back(b).abs() / turnover(b)), n)


def corwin_schultz_alpha(b: Bars) -> Series:
    beta = np.log(b.high / b.low) ** 2 + np.log(b.high / b.low).shift() ** 2
    gamma = np.log(np.maximum(b.high, b.high.shift()) / np.minimum(b.low, b.low.shift())) ** 2
    k = 3 - 2 * np.sqrt(2)
    return (np.sqrt(2 * beta) - np.sqrt(beta)) / k - np.sqrt(gamma / k)


def corwin_schultz(b: Bars, n: int) -> Series:
    e = np.exp(corwin_schultz_alpha(b))
    return mean((2 * (e - 1) / (1 + e)).clip(lower=0), n)


def abdi_ranaldo(b: Bars, n: int) -> Series:
    close, centre = np.log(b.close), (np.log(b.high) + np.log(b.low)) / 2
    return 2 * np.sqrt(mean((close.shift() - centre.shift()) * (close.shift() - centre), n).clip(lower=0))


def roll(b: Bars, n: int) -> Series:
    return 2 * np.sqrt((-logs(b).rolling(n).cov(logs(b).shift())).clip(lower=0))


def response(y: Series, x: Series, n: int) -> Series:
    return y.rolling(n).cov(x) / x.rolling(n).var()


def bulk(b: Bars) -> Series:
    """Volume classified by the normal distribution, as the paper has it."""
    buys = norm.cdf(logs(b) / logs(b).rolling(50).std())
    return (np.abs(2 * buys - 1) * b.volume).rolling(50).sum() / b.volume.rolling(50).sum()


LIQUIDITY: dict[str, Oracle] = {
    **family("roll_spread_{n}", [22, 66], roll),
    "two_bar_alpha": corwin_schultz_alpha,
    **family("corwin_schultz_{n}", [22, 66], corwin_schultz),
    **family("abdi_ranaldo_{n}", [22, 66], abdi_ranaldo),
    **family("zero_returns_{n}", [22, 66], lambda b, n: mean((b.close.diff() == 0).astype(float), n)),
    **family("impact_{n}", [22, 66], lambda b, n: np.log(illiquidity(b, n) * 1e6)),
    "impact_trend": lambda b: np.log(illiquidity(b, 22) / illiquidity(b, 250)),
    **family(
        "lambda_{n}",
        [22, 66],
        lambda b, n: (
            response(logs(b), np.sign(logs(b)) * np.sqrt(turnover(b)), n) * np.sqrt(turnover(b).rolling(n).mean())
        ),
    ),
    "reversal_on_volume": lambda b: (
        response(logs(b), (np.sign(logs(b)) * turnover(b)).shift(), 66) * turnover(b).rolling(66).mean()
    ),
    "order_imbalance": bulk,
    "turnover_trend_5_22": lambda b: np.log(turnover(b).rolling(5).mean() / turnover(b).rolling(22).mean()),
    "turnover_trend_22_250": lambda b: np.log(turnover(b).rolling(22).mean() / turnover(b).rolling(250).mean()),
    **family(
        "turnover_variation_{n}", [22, 66], lambda b, n: turnover(b).rolling(n).std() / turnover(b).rolling(n).mean()
    ),
    **family("zero_volume_{n}", [22, 66], lambda b, n: (b.volume == 0).rolling(n).mean()),
    "volume_state": lambda b: b.volume.rolling(50).rank(pct=True),
    **family(
        "volume_persistence_{n}", [22, 66], lambda b, n: np.log1p(b.volume).rolling(n).corr(np.log1p(b.volume).shift())
    ),
    **family("volume_of_moves_{n}", [22, 66], lambda b, n: logs(b).abs().rolling(n).corr(np.log1p(b.volume))),
}


# Momentum


def discreteness(b: Bars, n: int) -> Series:
    falls, rises = (back(b) < 0).rolling(n).mean(), (back(b) > 0).rolling(n).mean()
    return np.sign(back(b, n)) * (falls - rises)


def trend_score(b: Bars) -> Series:
    return (b.close.ewm(alpha=1 / 8).mean() - b.close.ewm(alpha=1 / 24).mean()) / b.close.rolling(63).std()


def trend_signal(b: Bars) -> Series:
    z = trend_score(b) / trend_score(b).rolling(252).std()
    return z * np.exp(-(z**2) / 4) / 0.89


def significance(b: Bars, n: int) -> Series:
    def t(window: np.ndarray) -> float:
        fit = linregress(np.arange(n), window)
        return fit.slope / fit.stderr

    return np.log(b.close).rolling(n).apply(t, raw=True)


def twice(x: Series, m: int, n: int) -> Series:
    return x.ewm(span=m).mean().ewm(span=n).mean()


def know_sure_thing(b: Bars) -> Series:
    parts = [(10, 10), (15, 10), (20, 10), (30, 15)]
    return sum((at + 1) * 100 * back(b, n).rolling(m).mean() for at, (n, m) in enumerate(parts))


def vortex(b: Bars) -> Series:
    up, down = (b.high - b.low.shift()).abs(), (b.low - b.high.shift()).abs()
    return (up - down).rolling(14).sum() / path(b)


def path(b: Bars) -> Series:
    return pd.Series(talib.TRANGE(b.high.to_numpy(), b.low.to_numpy(), b.close.to_numpy())).rolling(14).sum()


def choppiness(b: Bars) -> Series:
    return np.log10(path(b) / (b.high.rolling(14).max() - b.low.rolling(14).min())) / np.log10(14)


def mass_index(b: Bars) -> Series:
    once = (b.high - b.low).ewm(span=9).mean()
    return (once / once.ewm(span=9).mean()).rolling(25).sum()


def ease(b: Bars) -> Series:
    moved = ((b.high + b.low) / 2).diff()
    eased = finite(moved / (b.volume / (b.high - b.low)) / b.close**2)
    return mean(eased, 14) * b.volume.rolling(60).mean()


def vigor(b: Bars) -> Series:
    def smooth(x: Series) -> Series:
        return x.rolling(4).apply(lambda window: window @ [1, 2, 2, 1], raw=True)

    return smooth(b.close - b.open).rolling(10).sum() / smooth(b.high - b.low).rolling(10).sum()


def prices(b: Bars) -> np.ndarray:
    return b.close.to_numpy()


MOMENTUM: dict[str, Oracle] = {
    **family(
        "time_series_momentum_{n}",
        [21, 63, 126, 250],
        lambda b, n: logs(b, n) / (logs(b).rolling(60).std() * np.sqrt(n)),
    ),
    "momentum_12_1": lambda b: (1 + back(b, 231)).shift(21) - 1,
    "momentum_12_7": lambda b: back(b, 126).shift(126),
    **family("reversal_{n}", [5, 21], lambda b, n: -back(b, n)),
    "high_ratio": lambda b: b.close / b.close.rolling(252).max(),
    "high_recency": lambda b: 1 - b.close.rolling(252).apply(lambda x: np.argmax(x[::-1]), raw=True) / 252,
    **family("discreteness_{n}", [63, 252], discreteness),
    **family("largest_return_{n}", [21, 63], lambda b, n: back(b).rolling(n).max()),
    **family(
        "variance_ratio_{n}", [2, 5, 10], lambda b, n: logs(b, n).rolling(120).var() / (n * logs(b).rolling(120).var())
    ),
    **family("trend_average_{n}", [3, 50, 100, 200, 400], lambda b, n: talib.SMA(prices(b), n) / b.close),
    "trend_score": trend_score,
    "trend_signal": trend_signal,
    **family("trend_significance_{n}", [63, 126], significance),
    "overnight_momentum": lambda b: np.log(b.open / b.close.shift()).rolling(63).mean(),
    "intraday_momentum": lambda b: np.log(b.close / b.open).rolling(63).mean(),
    "dema": lambda b: b.close / talib.DEMA(prices(b), 20) - 1,
    "tema": lambda b: b.close / talib.TEMA(prices(b), 20) - 1,
    "hull": lambda b: b.close / talib.WMA(2 * talib.WMA(prices(b), 8) - talib.WMA(prices(b), 16), 4) - 1,
    "awesome_oscillator": lambda b: (
        ((b.high + b.low).rolling(5).mean() - (b.high + b.low).rolling(34).mean()) / 2 / b.close
    ),
    "true_strength": lambda b: 100 * twice(b.close.diff(), 25, 13) / twice(b.close.diff().abs(), 25, 13),
    "coppock": lambda b: talib.WMA(talib.ROC(prices(b), 14) + talib.ROC(prices(b), 11), 10),
    "know_sure_thing": know_sure_thing,
    "stochastic_rsi": lambda b: talib.STOCHRSI(prices(b), 14, 14, 1)[0] / 100,
    "vortex": vortex,
    "choppiness": choppiness,
    "mass_index": mass_index,
    **family(
        "ulcer_{n}", [14, 60], lambda b, n: np.sqrt(((b.close / b.close.rolling(n).max() - 1) ** 2).rolling(n).mean())
    ),
    "bull_power": lambda b: (b.high - talib.EMA(prices(b), 13)) / b.close,
    "bear_power": lambda b: (b.low - talib.EMA(prices(b), 13)) / b.close,
    "force_index": lambda b: (b.close.diff() * b.volume).ewm(span=13).mean() / (b.close * b.volume.rolling(60).mean()),
    "ease_of_movement": ease,
    "relative_vigor": vigor,
}
SETS = {"volatility": VOLATILITY, "liquidity": LIQUIDITY, "momentum": MOMENTUM}
LOOSE = {
    "order_imbalance": 0.02,  # its tanh is within 4e-4 of the normal distribution
    "abdi_ranaldo_22": 5e-3,  # roots of what is nearly 0
    "abdi_ranaldo_66": 5e-3,
}


@pytest.fixture(scope="module")
def panel(market) -> Panel:
    """Bars without gaps; some closes stay where they were, some bars have no volume."""
    made = market(2_400, 1, missing=0)
    random = np.random.default_rng(1)
    columns = dict(made.columns)
    columns["close"] = columns["close"].copy()
    for at in np.flatnonzero(random.random(2_400) < 0.05)[1:]:
        columns["close"][at] = columns["close"][at - 1]
    columns["high"] = np.maximum(columns["high"], columns["close"])
    columns["low"] = np.minimum(columns["low"], columns["close"])
    columns["volume"] = np.where(random.random((2_400, 1)) < 0.03, np.float32(0), columns["volume"])
    return Panel(made.time, made.symbols, columns)


@pytest.mark.parametrize("name", SETS)
def test_a_set_agrees_with_its_papers(name: str, panel: Panel, agrees) -> None:
    assert SETS[name].keys() == shipped(name).keys()
    found = Program.compile(shipped(name), names(), section=False).run(panel)
    bars = pd.DataFrame({column: values[:, 0].astype(np.float64) for column, values in panel.columns.items()})
    agrees(found, SETS[name], bars, warm=WARM, tolerance=TOLERANCE, loose=LOOSE)
