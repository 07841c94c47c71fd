"""Each partition of a run over a range says what it holds: made again but unchanged, it says the same."""

from collections.abc import Mapping

import dagster as dg
import polars as pl

from assets import names
from tests.assets.conftest import File, Make, Pipeline

STEPS = ("bars", "features", "factors")
CHANGED = (pl.col("symbol") == "S001") & (pl.col("timestamp").dt.strftime("%Y-%m-%d %H:%M") == "2021-11-23 15:00")


def versions(made: Pipeline, step: str) -> Mapping[str, str]:
    """The data version that Dagster has for each partition."""
    return made._instance.event_log_storage._get_partition_data_versions(
        asset_key=names.key("5m", step), partitions=made.partition_keys()
    )


def test_partitions_that_did_not_change_keep_their_version_and_those_that_a_revision_touches_do_not(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run(*STEPS)
    keys = made.partition_keys()
    first = {step: versions(made, step) for step in STEPS}
    assert all([*first[step]] == keys and len({*first[step].values()}) == len(keys) for step in STEPS)
    made.run(*STEPS)
    assert {step: versions(made, step) for step in STEPS} == first
    file(market.with_columns(close=pl.when(CHANGED).then(pl.col("low")).otherwise("close")))
    made.run(*STEPS)
    moved = {step: [key for key in keys if versions(made, step)[key] != first[step][key]] for step in STEPS}
    assert moved == {step: ["2021-11-23"] for step in STEPS}  # look-backs of the small sets end inside the session


def test_a_check_is_of_the_newest_event_of_its_step(pipeline: Make) -> None:
    made = pipeline()
    made.run("bars")
    key = dg.AssetCheckKey(names.key("5m", "bars"), names.BARS_ACCOUNTED)
    [record] = made._instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    [newest] = made._instance.fetch_materializations(key.asset_key, limit=1).records
    assert record.event is not None
    target = record.event.dagster_event.event_specific_data.target_materialization_data  # type: ignore[union-attr]
    assert target.storage_id == newest.storage_id
