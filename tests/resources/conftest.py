"""A store with an embedded Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.database import Database


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One per file: its database is let go of at the file's end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TENOR_DATABASE_URL", raising=False)
        root = tmp_path_factory.mktemp("store")
        yield root
        Database(root).release()
