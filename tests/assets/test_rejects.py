"""One symbol's broken data costs that symbol's rows, with a reason, and nothing else."""

import re
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import features
from tests.assets.conftest import File, Make, Pipeline
from tests.assets.test_derived import bits

FEATURES = """# @package features.bounded
momentum: {expr: "close / lag(close, 3) - 1", group: trend, description: change over three bars, low: -0.995, high: 5}
range: {expr: (high - low) / close, group: bar, high: 1}
volume_ratio: {expr: "volume / mean(volume, 5)", group: volume, nulls: 0.2}
"""
FACTORS = """# @package factors.bounded
momentum: momentum
momentum_rank: rank(momentum)
momentum_zscore: {expr: zscore(momentum), group: score, low: -3, high: 3}
level_zscore: zscore(raw_close)
"""
SETS = ["features=[bounded]", "factors=[bounded]"]
BROKEN = "S002"
FIRST, LAST = 100, 110  # slots of the broken bars


@pytest.fixture(scope="module", autouse=True)
def sets(configs: Path) -> None:
    (configs / "features" / "bounded.yaml").write_text(FEATURES)
    (configs / "factors" / "bounded.yaml").write_text(FACTORS)


def scaled(market: pl.DataFrame, factor: float, first: int = FIRST, last: int = LAST) -> pl.DataFrame:
    """The market with one symbol's prices on another scale for some bars: each bar is valid for itself."""
    slots = market["timestamp"].unique().sort()
    here = (pl.col("symbol") == BROKEN) & pl.col("timestamp").is_between(slots[first], slots[last])
    prices = pl.col("open", "high", "low", "close")
    return market.with_columns(pl.when(here).then(prices * factor).otherwise(prices))


def made_of(pipeline: Make, file: File, bars: pl.DataFrame, *words: str) -> Pipeline:
    """Bars as they are: what a bound does is seen where no bar was kept apart as a jump before."""
    made = pipeline(*file(bars), "validation.max_jump=null", *(words or SETS))
    made.run("bars")
    return made


def where(market: pl.DataFrame, first: int, last: int) -> pl.Expr:
    slots = market["timestamp"].unique().sort()
    return pl.col("timestamp").is_between(slots[first], slots[last])


@pytest.fixture
def alone(pipeline: Make, file: File, market: pl.DataFrame) -> Pipeline:
    """The other symbols without the broken one."""
    made = made_of(pipeline, file, market.filter(pl.col("symbol") != BROKEN))
    made.run("features", "factors")
    return made


def test_a_row_outside_its_bounds_is_kept_apart_and_the_rest_is_committed(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    clean = made_of(pipeline, file, market)
    clean.run("features")
    made = made_of(pipeline, file, scaled(market, 1000))
    told = made.run("features")
    # Three bars into the wrong scale the change is within it again; the three bars after it fall by 99.9 %.
    slots = market["timestamp"].unique().sort()
    lost = [*slots[FIRST : FIRST + 3], *slots[LAST + 1 : LAST + 4]]
    rejected = made.lake.scan("rejected_features/5m").sort("timestamp").collect()
    bars = market.filter(pl.col("symbol") == BROKEN, pl.col("timestamp").is_in(lost))
    assert rejected["timestamp"].to_list() == bars["timestamp"].to_list()
    assert set(rejected["symbol"]) == {BROKEN}
    assert set(rejected["column"]) == {"momentum"}
    assert rejected["reason"].to_list() == ["above_high"] * 3 + ["below_low"] * (rejected.height - 3)
    assert rejected["value"].min() < -0.995
    assert rejected["value"].max() > 900
    gone = (pl.col("symbol") == BROKEN) & pl.col("timestamp").is_in(rejected["timestamp"].to_list())
    kept = made.table("features")
    assert kept.select("symbol", "timestamp").equals(
        clean.table("features").filter(~gone).select("symbol", "timestamp")
    )
    others = pl.col("symbol") != BROKEN
    assert bits(kept.filter(others)) == bits(clean.table("features").filter(others))

    found = told.metadata["features"]
    assert found["rows in"] == made.table("bars").height
    assert found["dagster/row_count"] == kept.height == found["rows in"] - rejected.height
    assert found["rejected: above_high"] + found["rejected: below_low"] == rejected.height
    assert f"| {BROKEN} | {rejected.height} |" in found["rejected by symbol"].replace("|  ", "| ")
    check = told.checks["features_match_their_schema"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert BROKEN in check.metadata["worst symbols"].value
    assert "momentum above_high 5 (3)" in check.metadata["worst columns"].value


def test_rejected_rows_move_no_other_symbol_of_their_section(
    pipeline: Make, file: File, market: pl.DataFrame, alone: Pipeline
) -> None:
    made = made_of(pipeline, file, scaled(market, 1000))
    made.run("features", "factors")
    there = where(market, FIRST, FIRST + 2)
    found = made.table("factors").filter(there)
    assert BROKEN not in set(found["symbol"])
    # Also the factor over bars, which reads no feature.
    assert found.height == 9
    assert bits(found) == bits(alone.table("factors").filter(there))


def test_without_bounds_a_finite_outlier_moves_ranks_by_one_place_and_scores_by_any_amount(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    unbounded = [*SETS, "features.bounded.momentum.low=null", "features.bounded.momentum.high=null"]
    wild = [*unbounded, "factors.bounded.momentum_zscore.low=null", "factors.bounded.momentum_zscore.high=null"]
    others = where(market, FIRST, FIRST + 2) & (pl.col("symbol") != BROKEN)
    clean, moved = made_of(pipeline, file, market, *wild), made_of(pipeline, file, scaled(market, 1000), *wild)
    clean.run("features", "factors")
    moved.run("features", "factors")
    apart = clean.table("factors").filter(others).select(pl.col(pl.Float32)) - moved.table("factors").filter(
        others
    ).select(pl.col(pl.Float32))
    assert apart["momentum"].abs().max() == 0
    assert 0 < apart["momentum_rank"].abs().max() <= 1 / 3  # one place of three or four
    assert apart["momentum_zscore"].abs().max() > 0.25


def test_a_symbol_beyond_float32_has_no_values_and_moves_no_other(
    pipeline: Make, file: File, market: pl.DataFrame, alone: Pipeline
) -> None:
    slots = market["timestamp"].n_unique()
    bars = scaled(market, 1e38, 0, slots - 1)
    made = made_of(pipeline, file, bars)
    told = made.run("features", "factors")
    assert not [name for name in told.metadata["features"] if name.startswith("rejected: ")]
    broken = made.table("features").filter(symbol=BROKEN)
    assert broken.height == bars.filter(symbol=BROKEN).height
    assert broken["momentum"].null_count() == broken.height
    others = made.table("factors").filter(pl.col("symbol") != BROKEN)
    assert bits(others) == bits(alone.table("factors"))


def test_the_same_rows_are_rejected_however_a_run_is_cut(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    whole, pieces = made_of(pipeline, file, scaled(market, 1000)), made_of(pipeline, file, scaled(market, 1000))
    whole.run("features", "factors")
    for step in ("features", "factors"):
        for key in pieces.partition_keys():
            pieces.run(step, keys=[key])
    for table in ("features", "factors", "rejected_features"):
        assert pieces.table(table).equals(whole.table(table))


def test_mended_bars_empty_the_table_of_rejected_rows(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = made_of(pipeline, file, scaled(market, 1000))
    made.run("features")
    assert made.table("rejected_features").height
    file(market)
    told = made.run("bars", "features")
    assert not made.table("rejected_features").height
    assert told.checks["features_match_their_schema"].passed


def test_a_factor_outside_its_bounds_costs_its_row_too(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    tight = [*SETS, "factors.bounded.momentum_zscore.high=1.4"]
    made = made_of(pipeline, file, market, *tight)
    told = made.run("features", "factors")
    rejected = made.table("rejected_factors")
    assert rejected.height
    assert (rejected["value"] > 1.4).all()
    assert made.table("factors")["momentum_zscore"].max() <= np.float32(1.4)
    assert told.metadata["factors"]["rows in"] == rejected.height + made.table("factors").height


def test_the_service_leaves_out_the_rows_that_the_pipeline_rejects(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = made_of(pipeline, file, scaled(market, 1000), *SETS, "factors.bounded.momentum_zscore.high=1.4")
    made.run("features", "factors")
    bars = made.table("bars").drop("partition")
    recipe = made.plan().recipe(tuple(bars["symbol"].unique().sort()), None)
    keys, X = type(recipe).from_dict(recipe.to_dict()).rows(bars)
    table = made.table("factors")
    table = table.filter(pl.col("timestamp") >= keys["timestamp"].min())
    assert keys.equals(table.select("symbol", "timestamp"))
    stored = table.select(list(made.plan().factor_entries)).fill_null(float("nan")).to_numpy()
    assert 0 < len(X) < bars.filter(pl.col("timestamp") >= keys["timestamp"].min()).height
    assert X.tobytes() == np.ascontiguousarray(stored).tobytes()


def test_too_many_rejected_rows_fail_the_step_and_commit_nothing(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = made_of(pipeline, file, market, *SETS, "features.bounded.range.high=1e-9")
    told = r"5m features: .* of .* rows \(\d+%\) break .* range above_high 1e-09 .* S00\d .* rejected_features/5m"
    with pytest.raises(dg.Failure, match=re.compile(told)):
        made.run("features")
    assert not made.lake.exists("features/5m")
    assert made.table("rejected_features").height > market.height / 2


def test_how_many_is_too_many_is_a_choice(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = made_of(pipeline, file, scaled(market, 1000), *SETS)
    with pytest.raises(dg.Failure, match=r"validation\.max_rejected is 0%"):
        made.run("features", values=["validation.max_rejected=0.0"])
    assert not made.lake.exists("features/5m")
    made.run("features", values=["validation.max_rejected=0.01"])


def test_infinite_values_are_rejected_whatever_is_declared(pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipeline()
    made.run("bars")
    honest = features.to_rows

    def broken(*arguments):  # type: ignore[no-untyped-def]
        infinite = pl.when(pl.col("symbol") == "S001").then(pl.lit(float("inf"), pl.Float32)).otherwise("momentum")
        return honest(*arguments).with_columns(momentum=infinite)

    monkeypatch.setattr(features, "to_rows", broken)
    told = made.run("features").metadata["features"]
    assert told["rejected: not_finite"] == made.table("rejected_features").height
    assert "S001" not in set(made.table("features")["symbol"])


def test_what_is_wrong_beyond_single_rows_fails_the_step(pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipeline()
    made.run("bars")
    honest = features.to_rows
    monkeypatch.setattr(features, "to_rows", lambda *given: pl.concat([honest(*given)] * 2))
    with pytest.raises(dg.Failure, match="5m features: the table does not match its schema"):
        made.run("features")
    assert not made.lake.exists("features/5m")


def test_a_column_that_is_missing_too_often_is_a_warning_and_no_row_is_lost(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market), *SETS, "source.volume=null")
    made.run("bars")
    told = made.run("features")
    check = told.checks["features_match_their_schema"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["too many missing"].value == "volume_ratio 100.0% (nulls: 0.2)"
    assert made.table("features").height == made.table("bars").height


def test_the_ui_shows_of_every_column_what_tenor_features_lists(pipeline: Make) -> None:
    made = pipeline(*SETS)
    for step, program in (("features", made.plan().features), ("factors", made.plan().factors)):
        key = dg.AssetKey(["5m", step])
        schema = made.assets[key].metadata_by_key[key]["dagster/column_schema"]
        shown = {column.name: column for column in schema.columns}
        assert list(shown) == list(program.names)
        for row in program.describe().iter_rows(named=True):
            tags = shown[row["name"]].tags
            assert tags["expression"] == row["expression"]
            assert tags["look-back (bars)"] == str(row["lookback"])
        if step == "features":
            assert shown["momentum"].description == "change over three bars"
            assert shown["momentum"].tags["group"] == "trend"
            assert shown["momentum"].constraints.other == ["at least -0.995", "at most 5"]
            assert shown["volume_ratio"].constraints.other == ["share missing at most 0.2"]
