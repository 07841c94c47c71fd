"""A small market with gaps, for tests of expressions."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest

from quant.panel import Panel

Market = Callable[..., Panel]
BARS = ("open", "high", "low", "close", "volume")


def make_market(slots: int = 400, symbols: int = 5, missing: float = 0.06, seed: int = 0) -> Panel:
    """Minute bars of a random walk. Bars are missing at random and in one long run; some bars are flat."""
    random = np.random.default_rng(seed)
    shape = (slots, symbols)
    close = 50 * np.exp(np.cumsum(random.normal(0, 0.003, shape), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.0005, shape))
    spread = np.abs(random.normal(0, 0.002, shape)) * (random.random(shape) > 0.05)
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + spread),
        "low": np.minimum(open_, close) * (1 - spread),
        "close": close,
        "volume": random.integers(0, 5_000, shape).astype(float),
        "session_progress": np.repeat((np.arange(slots) % 78 / 78)[:, None], symbols, axis=1),
        "minute_of_session": np.repeat((np.arange(slots) % 78)[:, None], symbols, axis=1),
        "bar_of_session": np.repeat((np.arange(slots) % 78)[:, None], symbols, axis=1),
        "day_of_week": np.repeat((np.arange(slots) // 78 % 5)[:, None], symbols, axis=1),
    }
    absent = random.random(shape) < missing
    if missing:
        absent[slots // 3 : slots // 3 + 45, 0] = True
    dense = {
        name: np.where(absent & (name in BARS), np.nan, values).astype(np.float32) for name, values in columns.items()
    }
    time = np.datetime64("2024-01-02T14:30", "us") + np.arange(slots) * np.timedelta64(60_000_000, "us")
    return Panel(time, tuple(f"S{index}" for index in range(symbols)), dense)


@pytest.fixture(scope="session")
def market() -> Market:
    return make_market


Oracle = Callable[[pd.DataFrame], pd.Series | np.ndarray]
Agrees = Callable[..., None]


def assert_agrees(
    found: Mapping[str, np.ndarray],
    oracles: Mapping[str, Oracle],
    bars: pd.DataFrame,
    *,
    warm: int,
    tolerance: float,
    loose: Mapping[str, float],
) -> None:
    """Each value [T, S] of the first symbol is its oracle's of `bars`, within `tolerance` of its standard deviations.

    warm: slots that are not looked at. loose: other tolerances, by name. A value that the oracle does not have is
    not judged; one that only the oracle has may be a tenth.
    """
    for name, oracle in oracles.items():
        expected = np.asarray(oracle(bars), dtype=np.float64)[warm:]
        values = found[name][warm:, 0].astype(np.float64)
        judged = np.isfinite(values) & np.isfinite(expected)
        assert judged.mean() > 0.5, f"{name}: {judged.mean():.0%} judged"
        assert (np.isfinite(values) | ~np.isfinite(expected)).mean() > 0.9, f"{name} is missing where its oracle is not"
        off = np.abs(values - expected)[judged].max() / expected[judged].std()
        assert off < loose.get(name, tolerance), f"{name}: {off:.1e} of its deviation"


@pytest.fixture(scope="session")
def agrees() -> Agrees:
    return assert_agrees
