"""Estimators of volatility, liquidity and spread that TA-Lib lacks, against pandas and their papers' formulas."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from quant.program import Program

COLUMNS = ("open", "high", "low", "close", "volume", "bar_of_session")
N = 20

Prices = dict[str, pd.DataFrame]


def logs(p: Prices) -> tuple[pd.DataFrame, ...]:
    """Log gap, high, low and close of the bar; the last three over its open, as Yang and Zhang write them."""
    gap = np.log(p["open"] / p["close"].shift())
    return gap, *(np.log(p[name] / p["open"]) for name in ("high", "low", "close"))


def parkinson(p: Prices) -> pd.DataFrame:
    return (np.log(p["high"] / p["low"]) ** 2).rolling(N).mean().div(4 * np.log(2)) ** 0.5


def garman_klass(p: Prices) -> pd.DataFrame:
    _, up, down, body = logs(p)
    return ((0.5 * (up - down) ** 2 - (2 * np.log(2) - 1) * body**2).rolling(N).mean()) ** 0.5


def rogers_satchell(p: Prices) -> pd.DataFrame:
    _, up, down, body = logs(p)
    return (up * (up - body) + down * (down - body)).rolling(N).mean() ** 0.5


def yang_zhang(p: Prices) -> pd.DataFrame:
    gap, _, _, body = logs(p)
    k = 0.34 / (1.34 + (N + 1) / (N - 1))
    whole = gap.rolling(N).var() + k * body.rolling(N).var() + (1 - k) * rogers_satchell(p) ** 2
    return whole**0.5


def amihud(p: Prices) -> pd.DataFrame:
    turnover = p["close"] * p["volume"]
    return (1e6 * p["close"].pct_change().abs() / turnover.where(turnover > 0)).rolling(N).mean()


def roll_spread(p: Prices) -> pd.DataFrame:
    change = np.log(p["close"]).diff()
    return 2 * (-change.rolling(N).cov(change.shift())).clip(lower=0) ** 0.5


def vwap(p: Prices) -> pd.DataFrame:
    typical = (p["high"] + p["low"] + p["close"]) / 3
    session = np.arange(len(typical)) // 78
    return (typical * p["volume"]).groupby(session).cumsum() / p["volume"].groupby(session).cumsum()


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("parkinson(20)", parkinson),
        ("garman_klass(20)", garman_klass),
        ("rogers_satchell(20)", rogers_satchell),
        ("yang_zhang(20)", yang_zhang),
        ("amihud(20)", amihud),
        ("roll_spread(20)", roll_spread),
        ("vwap(78)", vwap),
    ],
)
def test_an_estimator_is_its_papers_formula_in_double_precision(
    text: str, oracle: Callable[[Prices], pd.DataFrame], market
) -> None:
    panel = market(500, 4, missing=0)
    prices = {name: pd.DataFrame(values.astype(np.float64)) for name, values in panel.columns.items()}
    found = Program.compile({"x": text}, COLUMNS).run(panel)["x"][N + 1 :]
    expected = oracle(prices).to_numpy()[N + 1 :]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-3 * np.nanstd(expected)


def test_bands_are_where_they_say(market) -> None:
    panel = market(300, 2, missing=0)
    entries = {
        "upper": "keltner_upper()",
        "lower": "keltner_lower()",
        "place": "keltner_position()",
        "top": "donchian_upper(20)",
        "bottom": "donchian_lower(20)",
        "middle": "donchian_middle(20)",
        "width": "donchian_width(20)",
    }
    made = {name: values[150:] for name, values in Program.compile(entries, COLUMNS).run(panel).items()}
    close = panel.columns["close"][150:]
    place = (close - made["lower"]) / (made["upper"] - made["lower"])
    np.testing.assert_allclose(made["place"], place, atol=1e-4)
    assert ((made["bottom"] <= close) & (close <= made["top"])).all()
    np.testing.assert_allclose(made["width"], (made["top"] - made["bottom"]) / made["middle"], rtol=1e-4)
