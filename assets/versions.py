"""What each partition of a table holds, told to Dagster: a partition that was made again but not changed is no change.

Dagster gives all partitions of a run over a range one and the same data version. The step therefore says itself, for
each partition, what it holds, after what Dagster says; the conditions of defs/automation.py compare that.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

TAG = "dagster/data_version"


def told(key: dg.AssetKey, versions: Mapping[str, str], result: dg.MaterializeResult) -> Iterator[Any]:
    """A step's result, then an event for each partition with its version (`Written.versions`), then its checks.

    Checks come last because one that is older than the newest event of its asset counts as not executed.
    """
    # Dagster's own version is that of the newest event, for it warns where the two differ.
    yield dg.MaterializeResult(metadata=result.metadata, data_version=dg.DataVersion([*versions.values()][-1]))
    if len(versions) > 1:
        for partition, version in versions.items():
            yield dg.AssetMaterialization(key, partition=partition, tags={TAG: version}, metadata=result.metadata)
    yield from result.check_results
