"""The drift step: quiet before the first bundle, a report after, and a failed check where factors have moved."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets import names
from assets.layout import layout_of
from tests.assets.conftest import SMALL, Pipeline

FACTORS = ["momentum", "range", "volume_ratio", "momentum_rank", "smooth_rank", "change"]
WATCH = ["drift.window_sessions=2", "drift.calibration_windows=4", "drift.sample_rows=500"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("drift"), *SMALL, *WATCH)
    made.run("bars", "features", "factors")
    return made


def newest(made: Pipeline) -> list[str]:
    return made.partition_keys()[-1:]


def test_without_a_bundle_it_is_skipped_and_says_so(made: Pipeline) -> None:
    assert made.registry.champion("5m") is None
    run = made.run("drift", keys=newest(made))
    assert "no bundle exists yet" in run.metadata["drift"]["skipped"]
    check = run.checks[names.NO_DRIFT]
    assert check.passed
    assert "no bundle exists yet" in str(check.metadata["skipped"].value)


def test_with_a_bundle_it_reports_and_a_planted_shift_fails_the_check_as_a_warning(made: Pipeline) -> None:
    id = made.run("model").metadata["model"]["bundle"]
    quiet = made.run("drift", keys=newest(made))
    told, check = quiet.metadata["drift"], quiet.checks[names.NO_DRIFT]
    assert "skipped" not in told
    assert told["champion"] == id
    assert told["window"] == " to ".join(made.partition_keys()[-2:])
    assert told["columns compared"] == 1 + len(FACTORS)  # predictions too
    assert check.passed
    report = Path(told["report file"])
    assert report.name == f"drift-{newest(made)[0]}.html"
    assert "prediction" in report.read_text()

    table = made.table("factors")
    moved = pl.col("partition").is_in(made.partition_keys()[-2:])
    shifted = table.with_columns(pl.when(moved).then(pl.col(FACTORS) * 3 + 1).otherwise(pl.col(FACTORS)))
    made.lake.write("factors/5m", [shifted], made.partition_keys(), layout_of(made.plan()))
    run = made.run("drift", keys=newest(made))
    loud, check = run.metadata["drift"], run.checks[names.NO_DRIFT]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert not check.blocking
    assert loud["share drifted"] > 0.3 >= told["share drifted"]
    # Sessions before the shift look as they did: the window ends where the partition does.
    before = made.run("drift", keys=[made.partition_keys()[-3]])
    assert before.checks[names.NO_DRIFT].metadata["window"].value == " to ".join(made.partition_keys()[-4:-2])
    assert before.metadata["drift"]["share drifted"] < loud["share drifted"]


def test_a_training_window_too_short_to_compare_with_is_skipped_and_says_so(made: Pipeline) -> None:
    wide = Pipeline(Path(made.lake.root).parent, *SMALL, "drift.window_sessions=5")
    assert wide.registry.champion("5m") is not None
    run = wide.run("drift", keys=newest(wide))
    told = "trained on 7 sessions; two windows of drift.window_sessions need 10"
    assert told in run.metadata["drift"]["skipped"]
    assert run.checks[names.NO_DRIFT].passed
