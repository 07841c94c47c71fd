"""The config of the stores that live through a month: small sets, and a horizon that is resampled."""

import shutil
from pathlib import Path

import pytest

from tests.assets.conftest import FEW_FACTORS, FEW_FEATURES
from tests.conftest import SHIPPED
from tests.defs.conftest import HALF_HOUR


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs") / "conf"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "features" / "few.yaml").write_text(FEW_FEATURES)
    (folder / "factors" / "few.yaml").write_text(FEW_FACTORS)
    (folder / "horizon" / "30m.yaml").write_text(HALF_HOUR)
    return folder
