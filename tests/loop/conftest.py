"""The config of the stores that live through a month."""

from pathlib import Path

import pytest

from tests.loop.replay import small_configs


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_configs(tmp_path_factory.mktemp("configs"))
