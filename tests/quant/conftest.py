"""A small market with gaps, for tests of expressions."""

from collections.abc import Callable

import numpy as np
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
        "bar_of_session": np.repeat((np.arange(slots) % 78)[:, None], symbols, axis=1),
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
