"""45 indicators for many symbols: Tenor against a TA-Lib loop, and its windows against Polars' rolling expressions.

    python bench/features.py            100 symbols x 5,000 bars and 1,000 x 500
    python bench/features.py --quick    20 x 1,500, a few seconds

One thread on each side, the same bars (float32 prices; the peers get them as float64, their own type), parity before
speed, medians of interleaved runs. TA-Lib is given one contiguous array per symbol, and a call that returns several
indicators is made once; Polars a frame sorted by symbol. What is timed for Tenor is the panel to NumPy arrays.
"""

import os

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import talib
from _measure import medians

from quant.panel import Panel
from quant.program import Program

WARM = 450  # bars until the exponential means of both sides have forgotten how they began
COLUMNS = ("open", "high", "low", "close", "volume")
Bars = dict[str, np.ndarray]  # of one symbol
Outputs = Sequence[np.ndarray]


def change(values: np.ndarray, n: int) -> np.ndarray:
    """A running total over a window of n."""
    return values - np.concatenate([np.full(n, np.nan), values[:-n]])


def close_of(function: Callable[..., np.ndarray], *numbers: float) -> Callable[[Bars], Outputs]:
    return lambda bars: [function(bars["close"], *numbers)]


def bars_of(
    function: Callable[..., np.ndarray], *numbers: float, of: str = "high low close"
) -> Callable[[Bars], Outputs]:
    names = of.split()
    return lambda bars: [function(*(bars[name] for name in names), *numbers)]


def money_flow(bars: Bars) -> Outputs:
    total = talib.AD(bars["high"], bars["low"], bars["close"], bars["volume"])
    return [change(total, 20) / talib.SUM(bars["volume"], 20)]


# One call of TA-Lib, and the expressions of what it returns.
TALIB: list[tuple[Callable[[Bars], Outputs], list[str]]] = [
    *((close_of(talib.SMA, n), [f"mean(close, {n})"]) for n in (10, 20, 50)),
    *((close_of(talib.EMA, n), [f"ema(close, {n})"]) for n in (12, 26, 50)),
    *((close_of(talib.RSI, n), [f"rsi(close, {n})"]) for n in (7, 14, 21)),
    (close_of(talib.WMA, 20), ["wma(close, 20)"]),
    (close_of(talib.SUM, 20), ["sum(close, 20)"]),
    (close_of(talib.STDDEV, 20), ["std(close, 20, 0)"]),
    (close_of(talib.MOM, 10), ["momentum(close, 10)"]),
    (close_of(talib.ROC, 10), ["roc(close, 10)"]),
    (close_of(talib.LINEARREG_SLOPE, 14), ["slope(close, 14)"]),
    (close_of(talib.TRIX, 15), ["trix(close, 15)"]),
    (close_of(talib.PPO, 12, 26, 1), ["ppo(close, 12, 26)"]),
    (lambda b: talib.MACD(b["close"], 12, 26, 9), ["macd(close)", "macd_signal(close)", "macd_histogram(close)"]),
    (lambda b: talib.BBANDS(b["close"], 20, 2, 2)[::2], ["bollinger_upper(close)", "bollinger_lower(close)"]),
    (lambda b: [talib.MIN(b["low"], 20)], ["min(low, 20)"]),
    (lambda b: [talib.MAX(b["high"], 20)], ["max(high, 20)"]),
    (bars_of(talib.MIDPRICE, 20, of="high low"), ["donchian_middle(20)"]),
    (bars_of(talib.AROONOSC, 25, of="high low"), ["aroon_oscillator(25)"]),
    (lambda b: talib.AROON(b["high"], b["low"], 14)[::-1], ["aroon_up(14)", "aroon_down(14)"]),
    (bars_of(talib.TRANGE), ["true_range()"]),
    (bars_of(talib.TYPPRICE), ["typical_price()"]),
    (bars_of(talib.WILLR, 14), ["williams_r(14)"]),
    (lambda b: talib.STOCHF(b["high"], b["low"], b["close"], 14, 3), ["stoch_k(14)", "stoch_d(14, 3)"]),
    *((bars_of(talib.ATR, n), [f"atr({n})"]) for n in (7, 14)),
    (bars_of(talib.NATR, 14), ["natr(14)"]),
    (bars_of(talib.ADX, 14), ["adx(14)"]),
    (bars_of(talib.DX, 14), ["dx(14)"]),
    (bars_of(talib.PLUS_DI, 14), ["di_plus(14)"]),
    (bars_of(talib.MINUS_DI, 14), ["di_minus(14)"]),
    (bars_of(talib.CCI, 20), ["cci(20)"]),
    (bars_of(talib.ULTOSC, 7, 14, 28), ["ultimate_oscillator()"]),
    (bars_of(talib.MFI, 14, of="high low close volume"), ["mfi(14)"]),
    (lambda b: [change(talib.OBV(b["close"], b["volume"]), 20)], ["obv(20)"]),
    (money_flow, ["chaikin_money_flow(20)"]),
]
POLARS: dict[str, pl.Expr] = {
    **{f"mean(close, {n})": pl.col("close").rolling_mean(n) for n in (10, 20, 50)},
    **{f"std(close, {n})": pl.col("close").rolling_std(n) for n in (10, 20, 50)},
    **{f"min(low, {n})": pl.col("low").rolling_min(n) for n in (10, 20, 50)},
    **{f"max(high, {n})": pl.col("high").rolling_max(n) for n in (10, 20, 50)},
    **{f"sum(volume, {n})": pl.col("volume").rolling_sum(n) for n in (10, 20, 50)},
    **{f"ema(close, {n})": pl.col("close").ewm_mean(span=n) for n in (12, 26, 50)},
    "quantile(close, 20, 0.8)": pl.col("close").rolling_quantile(0.8, "linear", window_size=20),
    "corr(close, volume, 20)": pl.rolling_corr(pl.col("close"), pl.col("volume"), window_size=20),
}


def random_walks(symbols: int, bars: int) -> Panel:
    """Bars without gaps: TA-Lib knows none."""
    random = np.random.default_rng(0)
    shape = (bars, symbols)
    close = 50 * np.exp(np.cumsum(random.normal(0, 0.003, shape), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.0005, shape))
    spread = 1 + np.abs(random.normal(0, 0.002, shape))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * spread,
        "low": np.minimum(open_, close) / spread,
        "close": close,
        "volume": random.integers(100, 5_000, shape),
    }
    dense = {name: np.ascontiguousarray(values, np.float32) for name, values in columns.items()}
    time_ = np.datetime64("2024-01-02", "us") + np.arange(bars) * np.timedelta64(60_000_000, "us")
    return Panel(time_, tuple(f"S{index:04d}" for index in range(symbols)), dense)


def check(text: str, found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-3) -> float:
    """The worst difference in standard deviations of the peer's values; SystemExit beyond the tolerance."""
    apart = np.abs(found[WARM:] - expected[WARM:]) / expected[WARM:].std()
    # Where a typical price moved by rounding alone, chance decides whether mfi counts a rise or a fall.
    worst = float(np.quantile(apart, 0.999) if text.startswith("mfi") else apart.max())
    if not worst < tolerance:
        raise SystemExit(f"{text} differs from its peer by {worst:.1e} standard deviations: no claim without parity")
    return worst


def against_talib(panel: Panel, runs: int) -> None:
    texts = [text for _, group in TALIB for text in group]
    program = Program.compile({f"x{at}": text for at, text in enumerate(texts)}, COLUMNS)
    wide = {name: np.ascontiguousarray(values.T, np.float64) for name, values in panel.columns.items()}
    symbols = [{name: values[at] for name, values in wide.items()} for at in range(len(panel.symbols))]

    def loop() -> list[list[np.ndarray]]:
        return [[array for call, _ in TALIB for array in call(bars)] for bars in symbols]

    found, expected = list(program.run(panel).values()), loop()
    worst = max(
        check(text, found[at], np.stack([arrays[at] for arrays in expected], axis=1)) for at, text in enumerate(texts)
    )
    report(
        f"{len(texts)} indicators, TA-Lib loop",
        panel,
        worst,
        medians({"tenor": lambda: program.run(panel), "peer": loop}, runs),
    )


def against_polars(panel: Panel, runs: int) -> None:
    program = Program.compile({f"x{at}": text for at, text in enumerate(POLARS)}, COLUMNS)
    slots = len(panel.time)
    frame = pl.DataFrame(
        {"symbol": np.repeat(panel.symbols, slots)}
        | {name: values.T.ravel().astype(np.float64) for name, values in panel.columns.items()}
    )
    rolling = [expression.over("symbol").alias(text) for text, expression in POLARS.items()]

    def select() -> pl.DataFrame:
        return frame.select(rolling)

    found, expected = list(program.run(panel).values()), select()
    worst = max(
        check(text, found[at], expected[text].to_numpy().reshape(len(panel.symbols), slots).T)
        for at, text in enumerate(POLARS)
    )
    report(
        f"{len(POLARS)} windows, Polars",
        panel,
        worst,
        medians({"tenor": lambda: program.run(panel), "peer": select}, runs),
    )


def report(what: str, panel: Panel, worst: float, seconds: dict[str, float]) -> None:
    ours, theirs = seconds["tenor"], seconds["peer"]
    size = f"{len(panel.symbols):,} x {len(panel.time):,}"
    print(
        f"{what:<26} {size:>13}   Tenor {ours * 1e3:8.1f} ms   peer {theirs * 1e3:8.1f} ms   "
        f"{theirs / ours:5.2f}x   parity {worst:.0e} std"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small size, three runs")
    quick = parser.parse_args().quick
    for symbols, bars in ((20, 1_500),) if quick else ((100, 5_000), (1_000, 500)):
        panel = random_walks(symbols, bars)
        against_talib(panel, runs=3 if quick else 7)
        against_polars(panel, runs=3 if quick else 7)


if __name__ == "__main__":
    main()
