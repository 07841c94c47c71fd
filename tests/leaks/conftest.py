"""The small pipelines of tests/assets, to plant leaks in."""

from tests.assets.conftest import configs, environment, file, market, pipeline

__all__ = ["configs", "environment", "file", "market", "pipeline"]
