"""The small pipelines of tests/assets, to plant leaks in."""

from tests.assets.conftest import configs, file, market, pipeline

__all__ = ["configs", "file", "market", "pipeline"]
