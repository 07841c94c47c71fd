"""Operators that read the order of a window, its slots one by one, or its session so far, against pandas and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from quant.panel import Floats, Panel
from quant.program import Program

COLUMNS = ("open", "high", "low", "close", "volume", "bar_of_session")


def run(text: str, panel: Panel) -> Floats:
    return Program.compile({"x": text}, COLUMNS).run(panel)["x"]


def closes(panel: Panel, ties: bool = False) -> pd.DataFrame:
    if ties:
        panel.columns["close"][:] = np.round(panel.columns["close"] * 4) / 4
    return pd.DataFrame(panel.columns["close"].astype(np.float64))


def gated(values: pd.DataFrame, series: pd.DataFrame, n: int) -> np.ndarray:
    """Missing unless the slot is present and half of its window is."""
    count = series.notna().rolling(n, min_periods=1).sum()
    return values.where(series.notna() & (count >= (n + 1) // 2)).to_numpy()


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 10, 20, 31, 60])
@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantiles_are_pandas(q: float, n: int, missing: float, market) -> None:
    panel = market(150, 3, missing=missing)
    close = closes(panel, ties=n == 7)
    expected = gated(close.rolling(n, min_periods=1).quantile(q), close, n)
    np.testing.assert_allclose(run(f"quantile(close, {n}, {q})", panel), expected, rtol=5e-7)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 60])
def test_ranks_in_a_window_are_pandas(n: int, missing: float, market) -> None:
    panel = market(150, 3, missing=missing)
    close = closes(panel, ties=True)
    expected = gated(close.rolling(n, min_periods=1).rank(pct=True), close, n)
    np.testing.assert_allclose(run(f"rank_in_window(close, {n})", panel), expected, rtol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_mean_deviations_are_numpys(missing: float, market) -> None:
    panel = market(150, 3, missing=missing)
    close = closes(panel)

    def deviation(window: np.ndarray) -> float:
        return float(np.nanmean(np.abs(window - np.nanmean(window)))) if not np.isnan(window).all() else np.nan

    expected = gated(close.rolling(12, min_periods=1).apply(deviation, raw=True), close, 12)
    np.testing.assert_allclose(run("mean_deviation(close, 12)", panel), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_session_so_far_is_pandas_cumulation_by_session(missing: float, market) -> None:
    panel = market(300, 3, missing=missing)
    close = closes(panel)
    session = np.arange(300) // 78
    groups = close.groupby(session)
    slots = np.arange(300) % 78 + 1
    enough = close.notna() & (2 * groups.transform(lambda x: x.notna().cumsum()) >= slots[:, None])
    for name in ("sum", "min", "max"):
        expected = groups.transform(f"cum{name}").where(enough)
        found = run(f"{name}_since(close, bar_of_session == 0, 78)", panel)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)


def test_what_began_before_the_window_is_missing(market) -> None:
    panel = market(200, 2, missing=0)
    found = run("sum_since(close, bar_of_session == 0, 10)", panel)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), np.arange(200) % 78 >= 10)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_winsorized_sections_are_clipped_to_numpys_quantiles(missing: float, market) -> None:
    panel = market(60, 23, missing=missing)
    close = closes(panel)
    low, high = close.quantile(0.1, axis=1), close.quantile(0.9, axis=1)
    expected = close.clip(low, high, axis=0)
    np.testing.assert_allclose(run("winsorize(close, 0.1)", panel), expected, rtol=5e-7)
    assert np.nanmax(run("winsorize(close)", panel)[0]) < close.iloc[0].max()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_neutral_values_are_pandas_differences_from_the_groups_mean(missing: float, market) -> None:
    panel = market(60, 23, missing=missing)
    panel.columns["open"][:] = np.random.default_rng(0).integers(-2, 4, (60, 23))
    panel.columns["open"][:, 4] = np.nan  # a symbol without a group
    close, group = panel.columns["close"].astype(np.float64), panel.columns["open"]
    expected = np.stack(
        [
            (row - row.groupby(of).transform("mean")).to_numpy()
            for row, of in ((pd.Series(close[slot]), pd.Series(group[slot])) for slot in range(60))
        ]
    )
    np.testing.assert_allclose(run("neutralize(close, by=open)", panel), expected, atol=1e-4)
    assert np.isnan(run("neutralize(close, open)", panel)[:, 4]).all()


def test_a_group_is_not_moved_by_the_others(market) -> None:
    panel = market(60, 12, missing=0.1)
    panel.columns["open"][:] = np.arange(12) % 3
    whole = run("neutralize(close, open)", panel)
    alone = {name: np.ascontiguousarray(values[:, 1::3]) for name, values in panel.columns.items()}
    part = run("neutralize(close, open)", Panel(panel.time, panel.symbols[1::3], alone))
    np.testing.assert_array_equal(part, whole[:, 1::3])


def test_another_symbols_value_is_read_at_the_same_slot(market) -> None:
    panel = market(60, 4, missing=0.2)
    program = Program.compile({"x": 'of("S2", lag(close, 3)) / close'}, COLUMNS, section=False)
    expected = np.full((60, 4), np.nan, np.float32)
    expected[3:] = panel.columns["close"][:-3, 2:3] / panel.columns["close"][3:]
    np.testing.assert_array_equal(program.run(panel)["x"], expected)
    assert program.symbols == ("S2",)
    assert (program.lookback, program.crosses) == (3, False)


def test_a_panel_without_a_named_symbol_is_refused(market) -> None:
    with pytest.raises(ValueError, match=r'of\("SPY", …\): the panel has 2 symbols, and not SPY'):
        run('of("SPY", close)', market(10, 2))


def test_constants_fold_through_functions(market) -> None:
    panel = market(10, 2)
    found = run("log(2) * close + sqrt(abs(-4)) * maximum(1, 2)", panel)
    np.testing.assert_allclose(found, np.log(2) * panel.columns["close"] + 4, rtol=3e-7)


def test_a_percentile_rank_is_scipys(market) -> None:
    panel = market(40, 1, missing=0)
    close = panel.columns["close"][:, 0]
    found = run("rank_in_window(close, 30)", panel)[-1, 0]
    assert found == pytest.approx(stats.percentileofscore(close[-30:], close[-1], "mean") / 100 + 0.5 / 30)
