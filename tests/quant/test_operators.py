"""Every operator against an oracle that we did not write: pandas, polars, numpy or scipy, through gaps."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from quant.operators import OPERATORS
from quant.panel import Panel
from quant.program import Program

COLUMNS = ("open", "high", "low", "close", "volume")
N = 12


def run(text: str, panel) -> np.ndarray:
    return Program.compile({"x": text}, COLUMNS, lookahead=True).run(panel)["x"].astype(np.float64)


def frames(panel) -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(values.astype(np.float64)) for name, values in panel.columns.items()}


def gated(values: pd.DataFrame, series: pd.DataFrame, n: int, least: int = 1) -> np.ndarray:
    """Missing unless the slot is present, half of the window is, and the statistic has what it needs."""
    count = series.notna().rolling(n, min_periods=1).sum()
    return values.where(series.notna() & (count >= max(least, (n + 1) // 2))).to_numpy()


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in standard deviations of the expected values; both miss the same slots."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    return float(np.nanmax(np.abs(found - expected)) / np.nanstd(expected))


def by_scipy(x: pd.DataFrame, statistic: Callable, least: int) -> pd.DataFrame:
    """A statistic, bias removed, over the present slots of a window; pandas' own gives up in a long gap."""

    def of(window: np.ndarray) -> float:
        present = window[~np.isnan(window)]
        return statistic(present, bias=False) if len(present) >= least else np.nan

    return x.rolling(N, min_periods=1).apply(of, raw=True)


ORACLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], int]] = {
    "sum(close, 12)": (lambda x: x.rolling(N, min_periods=1).sum(), 1),
    "mean(close, 12)": (lambda x: x.rolling(N, min_periods=1).mean(), 1),
    "min(close, 12)": (lambda x: x.rolling(N, min_periods=1).min(), 1),
    "max(close, 12)": (lambda x: x.rolling(N, min_periods=1).max(), 1),
    "count(close, 12)": (lambda x: x.rolling(N, min_periods=1).count(), 1),
    "std(close, 12)": (lambda x: x.rolling(N, min_periods=1).std(), 2),
    "var(close, 12)": (lambda x: x.rolling(N, min_periods=1).var(), 2),
    "std(close, 12, 0)": (lambda x: x.rolling(N, min_periods=1).std(ddof=0), 1),
    "skew(close, 12)": (lambda x: by_scipy(x, stats.skew, 3), 3),
    "kurt(close, 12)": (lambda x: by_scipy(x, stats.kurtosis, 4), 4),
    "product(close / 50, 12)": (lambda x: (x / 50).rolling(N, min_periods=1).apply(np.nanprod, raw=True), 1),
}


@pytest.mark.parametrize("text", ORACLES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_windows_agree_with_pandas_and_scipy_through_gaps(text: str, missing: float, market) -> None:
    panel = market(500, 4, missing=missing)
    compute, least = ORACLES[text]
    close = frames(panel)["close"]
    assert worst(run(text, panel), gated(compute(close), close, N, least)) < 2e-4


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 16, 31, 33, 63, 100])
def test_every_window_length_is_assembled_rightly(n: int, market) -> None:
    panel = market(300, 3, missing=0.2)
    close = frames(panel)["close"]
    rolling = close.rolling(n, min_periods=1)
    assert worst(run(f"mean(close, {n})", panel), gated(rolling.mean(), close, n)) < 1e-5
    np.testing.assert_array_equal(run(f"max(close, {n})", panel), gated(rolling.max(), close, n))
    np.testing.assert_array_equal(run(f"min(close, {n})", panel), gated(rolling.min(), close, n))


def last_index(pick: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    return lambda window: len(window) - 1 - np.flatnonzero(window == pick(window)).max()


def test_arg_extremes_count_slots_since_the_newest_extreme(market) -> None:
    panel = market(300, 3, missing=0.2)
    panel.columns["close"][:] = np.round(panel.columns["close"] * 4) / 4  # many ties
    close = frames(panel)["close"]
    rolling = close.rolling(N, min_periods=1)
    for name, pick in (("argmin", np.nanmin), ("argmax", np.nanmax)):
        expected = rolling.apply(lambda w, pick=pick: np.nan if np.isnan(w).all() else last_index(pick)(w), raw=True)
        # before the panel's first N slots pandas' window is shorter, but its newest slot is the same
        np.testing.assert_array_equal(run(f"{name}(close, {N})", panel), gated(expected, close, N))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_two_series_agree_with_pandas_over_slots_where_both_are_present(missing: float, market) -> None:
    panel = market(400, 3, missing=missing)
    panel.columns["volume"][np.random.default_rng(3).random((400, 3)) < missing / 2] = np.nan
    data = frames(panel)
    both = data["close"].where(data["volume"].notna())
    volume = data["volume"].where(both.notna())
    rolling = both.rolling(N, min_periods=1)
    cov = gated(rolling.cov(volume), both, N, 2)
    assert worst(run(f"cov(close, volume, {N})", panel), cov) < 1e-4
    assert worst(run(f"corr(close, volume, {N})", panel), gated(rolling.corr(volume), both, N, 2)) < 1e-4
    beta = cov / gated(volume.rolling(N, min_periods=1).var(), both, N, 2)
    assert worst(run(f"beta(close, volume, {N})", panel), beta) < 1e-4


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_trends_agree_with_scipys_regression(missing: float, market) -> None:
    panel = market(200, 3, missing=missing)
    close = panel.columns["close"].astype(np.float64)
    slope, rsquare, residual = (np.full_like(close, np.nan) for _ in range(3))
    for slot in range(len(close)):
        for symbol in range(close.shape[1]):
            window = close[max(0, slot - N + 1) : slot + 1, symbol]
            here = ~np.isnan(window)
            if not here[-1] or here.sum() < N // 2:
                continue
            fit = stats.linregress(np.flatnonzero(here), window[here])
            slope[slot, symbol], rsquare[slot, symbol] = fit.slope, fit.rvalue**2
            residual[slot, symbol] = window[-1] - fit.intercept - fit.slope * (len(window) - 1)
    assert worst(run(f"slope(close, {N})", panel), slope) < 1e-4
    assert worst(run(f"rsquare(close, {N})", panel), rsquare) < 1e-3
    assert worst(run(f"residual(close, {N})", panel), residual) < 1e-4


def weighted(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of the present slots, weights newest first; half of the weight must be present."""
    out = np.full_like(x, np.nan)
    for slot in range(len(x)):
        window = x[max(0, slot - len(weights) + 1) : slot + 1][::-1]
        here = ~np.isnan(window)
        weight = weights[: len(window)] @ here
        mean = weights[: len(window)] @ np.nan_to_num(window) / np.where(weight > 0, weight, np.nan)
        out[slot] = np.where(here[0] & (weight >= weights.sum() / 2), mean, np.nan)
    return out


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_weighted_means_are_what_they_say(missing: float, market) -> None:
    panel = market(300, 3, missing=missing)
    close = panel.columns["close"].astype(np.float64)
    linear = np.arange(N, 0, -1)
    assert worst(run(f"wma(close, {N})", panel), weighted(close, linear)) < 1e-5
    assert worst(run(f"decay_linear(close, {N})", panel), weighted(close, linear)) < 1e-5
    for name, keep in (("ema", 1 - 2 / (N + 1)), ("wilder", 1 - 1 / N)):
        taps = OPERATORS[name].reads(N)[0]
        weights = keep ** np.arange(1 - taps)
        enough = [n for n in range(1, 2 * len(weights)) if keep**n <= 1e-5 and n.bit_count() <= 2]
        assert len(weights) == enough[0]  # the fewest slots that leave 1e-5 of the weight and merge once
        assert worst(run(f"{name}(close, {N})", panel), weighted(close, weights)) < 2e-5


def test_exponential_means_agree_with_polars_beyond_their_residual(market) -> None:
    panel = market(600, 1, missing=0.1)
    close = pl.Series(panel.columns["close"][:, 0].astype(np.float64)).fill_nan(None)
    expected = close.ewm_mean(span=N, adjust=True, ignore_nulls=False).to_numpy()
    found = run(f"ema(close, {N})", panel)[:, 0]
    both = ~np.isnan(found) & ~np.isnan(expected)
    both[:100] = False
    assert both.sum() > 400
    assert np.abs(found - expected)[both].max() / np.nanstd(expected) < 2e-5


def test_moments_keep_their_digits_far_from_zero() -> None:
    """A price of 5,000 that moves by one in ten thousand: raw second moments in float32 lose every digit."""
    random = np.random.default_rng(1)
    close = (5_000 + np.cumsum(random.normal(0, 0.5, (2_000, 1)), axis=0)).astype(np.float32)
    time = np.datetime64("2024-01-02", "us") + np.arange(len(close)) * np.timedelta64(1, "s")
    panel = Panel(time, ("A",), {"close": close})
    exact = pd.DataFrame(close.astype(np.float64)).rolling(240).std().to_numpy()[239:]
    found = Program.compile({"x": "std(close, 240)"}, ["close"]).run(panel)["x"][239:]
    assert np.abs(found / exact - 1).max() < 3e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqrt(close)", np.sqrt),
        ("log(close)", np.log),
        ("exp(close / 50)", lambda x: np.exp(x / 50)),
        ("abs(close - 50)", lambda x: np.abs(x - 50)),
        ("sign(close - 50)", lambda x: np.sign(x - 50)),
        ("close ** 1.7", lambda x: x**1.7),
        ("close ** 0.5", np.sqrt),
        ("clip(close, 49, 51)", lambda x: np.clip(x, 49, 51)),
        ("sigmoid(close - 50)", lambda x: 1 / (1 + np.exp(50 - x))),
        ("tanh(close / 50)", lambda x: np.tanh(x / 50)),
        ("sin(close / 9)", lambda x: np.sin(x / 9)),
        ("cos(close / 9)", lambda x: np.cos(x / 9)),
        ("maximum(close, 50)", lambda x: np.where(np.isnan(x), x, np.maximum(x, 50))),
        ("minimum(close, 50)", lambda x: np.where(np.isnan(x), x, np.minimum(x, 50))),
    ],
)
def test_functions_of_one_slot_agree_with_numpy(text: str, expected: Callable, market) -> None:
    panel = market(100, 3)
    close = panel.columns["close"].astype(np.float64)
    np.testing.assert_allclose(run(text, panel), expected(close), rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("text", ["sqrt(0 - close)", "log(0 - close)", "log(close * 0)", "(0 - close) ** 0.3"])
def test_what_has_no_value_is_missing(text: str, market) -> None:
    assert np.isnan(run(text, market(20, 2))).all()


def test_shifts_move_by_slots_and_not_by_bars(market) -> None:
    panel = market(60, 3, missing=0.3)
    close = panel.columns["close"]
    np.testing.assert_array_equal(run("lag(close, 5)", panel)[5:], close[:-5])
    np.testing.assert_array_equal(run("lag(close, 0)", panel), close)
    np.testing.assert_array_equal(run("lead(close, 5)", panel)[:-5], close[5:])


def test_a_choice_ignores_what_is_missing_in_the_branch_not_taken(market) -> None:
    panel = market(60, 3, missing=0)
    panel.columns["open"][::2] = np.nan
    found = run("where(close > 0, close, open)", panel)
    np.testing.assert_array_equal(found, panel.columns["close"])


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_sections_agree_with_scipy_and_pandas(missing: float, market) -> None:
    panel = market(80, 23, missing=missing)
    panel.columns["close"][:] = np.round(panel.columns["close"] * 2) / 2  # ties
    close = frames(panel)["close"]
    np.testing.assert_allclose(run("rank(close)", panel), close.rank(axis=1, pct=True), rtol=1e-6)
    demeaned = close.sub(close.mean(axis=1), axis=0)
    assert worst(run("demean(close)", panel), demeaned.to_numpy()) < 1e-5
    assert worst(run("zscore(close)", panel), demeaned.div(close.std(axis=1), axis=0).to_numpy()) < 1e-5
    scaled = (-close).div(close.abs().sum(axis=1), axis=0).to_numpy()
    assert worst(run("scale(-close)", panel), scaled) < 1e-5
    row = close.iloc[40].dropna()
    np.testing.assert_allclose(run("rank(close)", panel)[40][row.index], stats.rankdata(row) / len(row), rtol=1e-6)


def test_a_section_of_one_has_a_rank_but_no_deviation(market) -> None:
    panel = market(10, 1, missing=0)
    assert (run("rank(close)", panel) == 1).all()
    assert np.isnan(run("zscore(close)", panel)).all()
