"""Features that read another horizon: from its own bars, in time, however the run was cut, and up to the bundle."""

import shlex
import shutil
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from assets import names, partitions, window
from assets.plan import Plan
from conf.compose import compose, horizons
from defs.graph import build
from quant.across import NEWEST, needed, reach
from quant.bundle import Bundle
from resources.settings import OVERRIDES_VARIABLE, Settings
from tests.assets.conftest import Pipeline

ACROSS_FEATURES = """# @package features.across
momentum: close / lag(close, 3) - 1
slow: at("1h", close)
slow_momentum: at("1h", momentum_1h)
stretch: close / at("1h", mean(close, 4)) - 1
"""
ACROSS_FACTORS = """# @package factors.across
momentum: momentum
slow_momentum: slow_momentum
stretch: stretch
slow_rank: mean(rank(at("1h", close / lag(close, 2))), 3)
"""
HOURLY = """# @package features.hourly
momentum_1h: close / lag(close, 3) - 1
"""
WORDS = ["features=[across]", "factors=[across]", "horizon=5m"]
MARKET = ["source.start=2021-11-22", "source.sessions=8", "source.symbols=3", "source.gap_rate=0.03"]


@pytest.fixture(scope="module", autouse=True)
def sets(configs: Path) -> None:
    """The sets above, and a horizon 1h made of 5m with a feature of its own."""
    (configs / "features" / "across.yaml").write_text(ACROSS_FEATURES)
    (configs / "factors" / "across.yaml").write_text(ACROSS_FACTORS)
    (configs / "features" / "hourly.yaml").write_text(HOURLY)
    hour = (configs / "horizon" / "1h.yaml").read_text()
    for old, new in (
        ("[technical]", "[hourly]"),
        ("[pass_through, cross_section]", "[pass_through]"),
        ("{from: source}", "{from: 5m}"),
        ("synthetic_long", "synthetic"),
    ):
        assert old in hour
        hour = hour.replace(old, new)
    (configs / "horizon" / "1h.yaml").write_text(hour)


@pytest.fixture(scope="module")
def made(sets: None, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Eight sessions around a half day; the hourly bars cover two months, cut by month."""
    found = Pipeline(tmp_path_factory.mktemp("across"), *WORDS, *MARKET)
    found.run("bars")
    found.run("bars", horizon="1h")
    found.run("features", "factors")
    return found


def test_a_value_is_that_of_the_newest_hour_that_had_closed(made: Pipeline) -> None:
    """Against Polars' as-of join of the bars tables. An hour is known when it ends, thin or not."""
    minutes, hours, features = made.table("bars"), made.table("bars", "1h"), made.table("features")
    adjusted = pl.col("close") * pl.col("price_factor")
    closed = hours.select("symbol", "known_at", expected=adjusted).sort("known_at")
    expected = minutes.sort("known_at").join_asof(closed, on="known_at", by="symbol", check_sortedness=False)
    both = features.join(expected.select("symbol", "timestamp", "expected"), on=["symbol", "timestamp"])
    assert both.height == features.height > 1000
    assert both["slow"].null_count() < both.height / 7
    assert both["slow"].equals(both["expected"].cast(pl.Float32), check_names=False, null_equal=True)


def test_a_row_is_known_when_its_own_bars_are(made: Pipeline) -> None:
    both = made.table("features").join(made.table("bars"), on=["symbol", "timestamp"], suffix="_bar")
    assert (both["known_at"] == both["known_at_bar"]).all()


@pytest.mark.slow
def test_values_made_partition_by_partition_and_in_small_chunks_are_those_of_the_backfill(
    made: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "CELLS", 1)
    pieces = Pipeline(tmp_path, *WORDS, *MARKET)
    pieces.run("bars")
    pieces.run("bars", horizon="1h")
    for key in pieces.partition_keys():
        pieces.run("features", keys=[key])
    for key in pieces.partition_keys():
        pieces.run("factors", keys=[key])
    for step in ("features", "factors"):
        assert pieces.table(step).equals(made.table(step)), step


def test_the_steps_say_what_they_read_of_the_other_horizon(made: Pipeline) -> None:
    reported = made.run("features").metadata["features"]
    assert reported["bars/1h version"] == made.lake.version("bars/1h")
    steps = {key: step for step in build(made.horizons).assets or () for key in step.keys}  # type: ignore[union-attr]
    features, factors = (steps[names.key("5m", step)] for step in ("features", "factors"))
    assert {dep.to_user_string() for dep in features.dependency_keys} == {"5m/bars", "1h/bars"}
    assert {dep.to_user_string() for dep in factors.dependency_keys} == {"5m/features", "1h/bars"}
    metadata = features.metadata_by_key[names.key("5m", "features")]
    assert metadata["look-back (1h bars)"] == reach(made.plan().features.outputs.values())["1h"] == 10
    [column] = [one for one in metadata["dagster/column_schema"].columns if one.name == "stretch"]
    assert column.tags["look-back (bars)"] == "0, 1h 10"


def test_the_bundle_carries_the_hours_and_proves_itself_from_them(made: Pipeline) -> None:
    small = ["model.n_estimators=5", "model.min_data_in_leaf=20"]
    id = made.run("model", values=small).metadata["model"]["bundle"]
    bundle = made.registry.load("5m", id)
    assert bundle.recipe.reads == ("1h",)
    assert bundle.columns_of("1h") == ("close",)
    hours = made.table("bars", "1h").drop("partition")
    kept = bundle.golden_others["1h"]
    assert kept.height == kept.join(hours, on=hours.columns).height > 0
    bundle.verify()
    files = bundle.to_files()
    assert Bundle.from_files(files).to_files() == files
    rows = made.table("factors").join(bundle.golden, on=["symbol", "timestamp"], suffix="_golden")
    assert rows.height == bundle.golden.height
    for name in bundle.factors:
        assert rows[name].equals(rows[f"{name}_golden"].fill_nan(None), check_names=False), name


@pytest.mark.parametrize(
    ("words", "other", "lookback", "slots"),
    [
        (["horizon=5m"], "1h", 0, 10),
        (["horizon=5m"], "1h", 200, 60),
        (["horizon=5m"], "1d", 3, 260),
        (["horizon=1h"], "5m", 3, 300),
        (["horizon=1d"], "1h", 20, 10),
        (["horizon=5m", "calendar=24x7"], "1h XNYS", 12, 60),
        (["horizon=5m"], "1h 24x7", 12, 60),
        (["horizon=1h", "calendar=us_index_cfd"], "5m XTKS", 3, 30),
        (["horizon=5m", "calendar.name=XTKS"], "1h us_index_cfd", 3, 30),
    ],
)
def test_every_slot_that_a_partition_reads_lies_in_a_partition_mapped_to_it(
    words: list[str], other: str, lookback: int, slots: int
) -> None:
    """Brute force over two years."""
    plan = Plan(compose([*words, "features=[few]", "factors=[few]"])[words[0].partition("=")[2]])
    interval, _, calendar = other.partition(" ")
    chosen = [f"calendar={calendar}"] if calendar in ("24x7", "us_index_cfd") else []
    chosen = chosen or ([f"calendar.name={calendar}"] if calendar else [])
    their = Plan(compose([f"horizon={interval}", *chosen])[interval])
    first, last = date(2021, 1, 4), date(2022, 12, 30)
    ours, theirs = (partitions.definition(one, first, last, last) for one in (plan, their))
    mapping = partitions.elsewhere(plan, lookback, their.grid, slots)
    held = {*theirs.get_partition_keys()}
    for key in ours.get_partition_keys():
        begin, end = partitions.window(plan, [key])
        read = window.window(plan, begin, end, lookback).slots
        if not len(read):
            continue
        program = _Reach(slots)
        theirs_read = needed(program, their.grid, plan.grid.ends(read))  # type: ignore[arg-type]
        wanted = {*their.grid.partition_keys(theirs_read, their.horizon.partition).tolist()} & held
        result = mapping.get_upstream_mapped_partitions_result_for_partitions(
            ours.subset_with_partition_keys([key]), ours, theirs
        )
        assert wanted <= {*result.partitions_subset.get_partition_keys()}, key


class _Reach:
    """A program of which `needed` reads so many slots before the newest."""

    def __init__(self, slots: int) -> None:
        self.lookback = slots - NEWEST + 1


def test_a_run_reads_the_other_horizon_as_the_code_location_does(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overrides that name no horizon shape all of them, also the one that is read."""
    folder = shutil.copytree(configs, tmp_path / "conf")
    file = folder / "horizon" / "5m.yaml"
    file.write_text(file.read_text().replace("/features: [technical]", "/features: [across, hourly]"))
    monkeypatch.setenv("TENOR_CONF", str(folder))
    words = ["features.hourly.momentum_1h='close / lag(close, 5) - 1'"]
    monkeypatch.setenv(OVERRIDES_VARIABLE, shlex.join(words))
    found = Settings().horizon("5m")
    assert found == compose([f"horizon={','.join(horizons())}", *words])["5m"]
    assert found.at is not None
    assert found.at["1h"].features["hourly"]["momentum_1h"] == "close / lag(close, 5) - 1"
