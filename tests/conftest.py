"""Fixtures that several folders share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from conf import compose
from tests.merging import remembered

settings.register_profile("tenor", deadline=None)  # a busy machine is no broken law
settings.load_profile("tenor")

SHIPPED = Path(__file__).parents[1] / "conf"  # Tenor's own config, whatever TENOR_CONF says


@pytest.fixture(scope="session", autouse=True)
def merged_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "merge", remembered(compose.merge))
        yield


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The folder of real market data; the test skips, saying so, where there is none."""
    folder = os.environ.get("TENOR_MARKET_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real market data is absent: set TENOR_MARKET_DATA to its folder")
    return Path(folder)
