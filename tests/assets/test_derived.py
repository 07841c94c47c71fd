"""Features and factors: a value depends on its look-back and its section, never on how a run was cut."""

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import window
from quant.grid import CalendarSpec, Grid
from resources.sources.synthetic import SyntheticSource
from tests.assets.conftest import File, Make, Pipeline

TECHNICAL = ["features=[technical]", "factors=[pass_through,cross_section]"]


def derive(made: Pipeline, keys: Collection[str] | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    made.run("features", "factors", keys=keys)
    return made.table("features"), made.table("factors")


def bits(table: pl.DataFrame) -> bytes:
    """The table's floats as they are stored, a null told from a NaN."""
    floats = table.select(pl.col(pl.Float32))
    return floats.fill_null(-1e30).to_numpy().tobytes() + np.asarray(floats.null_count().rows()).tobytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Sixteen sessions around a half day, every technical feature and factor, made in one run."""
    market = ["source.start=2021-11-22", "source.sessions=16", "source.symbols=4", "source.gap_rate=0.03"]
    made = Pipeline(tmp_path_factory.mktemp("whole"), "horizon=5m", *TECHNICAL, *market)
    made.run("bars", "features", "factors")
    return made


def sharing_bars(whole: Pipeline, root: Path) -> Pipeline:
    """A pipeline over the same bars, with nothing derived from them yet."""
    other = Pipeline(root, *[word for word in whole.words if not word.startswith("store.root")])
    other.run("bars")
    assert other.table("bars").equals(whole.table("bars"))
    return other


def test_values_made_partition_by_partition_are_those_of_the_backfill_to_the_bit(
    whole: Pipeline, tmp_path: Path
) -> None:
    pieces = sharing_bars(whole, tmp_path)
    keys = pieces.partition_keys()
    for step in ("features", "factors"):
        for part in (keys[:11], keys[11:12], keys[12:14], *([key] for key in keys[14:])):
            pieces.run(step, keys=part)
    for step in ("features", "factors"):
        assert pieces.table(step).equals(whole.table(step))
        assert bits(pieces.table(step)) == bits(whole.table(step))


def test_values_do_not_depend_on_the_size_of_the_chunks(
    whole: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chunk is at least two look-backs long; none, as of the factors, makes it one session.
    monkeypatch.setattr(window, "CELLS", 1)
    plan, keys = whole.plan(), whole.partition_keys()
    first, last = date.fromisoformat(keys[0]), date.fromisoformat(keys[-1])
    assert len(list(window.windows(plan, first, last, plan.features.lookback, 10))) > 1
    assert len(list(window.windows(plan, first, last, plan.factors.lookback, 10))) == len(keys)
    chunked = sharing_bars(whole, tmp_path)
    for found, step in zip(derive(chunked), ("features", "factors"), strict=True):
        assert found.equals(whole.table(step))
        assert bits(found) == bits(whole.table(step))


def test_chunks_of_one_session_with_a_look_back_across_them_change_nothing(
    pipeline: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, chunked = pipeline(), pipeline()
    plain.run("bars", "features", "factors")
    chunked.run("bars")
    monkeypatch.setattr(window, "CELLS", 1)
    plan, keys = plain.plan(), plain.partition_keys()
    first, last = date.fromisoformat(keys[0]), date.fromisoformat(keys[-1])
    assert len(list(window.windows(plan, first, last, plan.features.lookback, 10))) == len(keys)
    assert plan.factors.lookback > 0
    for found, step in zip(derive(chunked), ("features", "factors"), strict=True):
        assert found.equals(plain.table(step))


def test_one_session_is_read_with_exactly_its_look_back(whole: Pipeline) -> None:
    plan, day = whole.plan(), date(2021, 11, 29)  # after a half day and a holiday
    found = window.window(plan, day, day, 200)
    assert found.asked == 78
    assert len(found.slots) == 78 + 200
    # 200 bars: the half day's 42, two whole sessions, and the last two bars of the 22nd.
    assert found.slots[0] == np.datetime64("2021-11-22T20:50")


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(TECHNICAL, marks=pytest.mark.slow, id="technical"),
        pytest.param(["features=[few]", "factors=[few]"], id="few"),
    ],
)
def test_changing_any_bar_after_a_session_changes_no_row_up_to_it(
    pipeline: Make, file: File, market: pl.DataFrame, sets: list[str]
) -> None:
    made = pipeline(*file(market), *sets)
    made.run("bars")
    before = derive(made)
    kept = made.partition_keys()[:4]
    after = ~made.until(kept)
    # Every value of every later bar is other, some bars are gone, and one more symbol appears.
    prices = pl.col("open", "high", "low", "close")
    moved = market.with_columns(pl.when(after).then(prices * 1.5).otherwise(prices), pl.col("volume") + after * 5)
    moved = moved.filter(~after | (pl.col("timestamp").dt.minute() != 35))
    newcomer = market.filter(after, symbol="S000").with_columns(symbol=pl.lit("S001B"))
    changed = pipeline(*file(pl.concat([moved, newcomer])), *sets)
    changed.run("bars")
    for old, new in zip(before, derive(changed), strict=True):
        upto = changed.until(kept)
        assert new.filter(upto).equals(old.filter(upto))
        assert not new.filter(~upto).equals(old.filter(~upto))


def test_changing_one_bar_changes_values_up_to_the_look_back_after_it_and_no_further(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made, changed = pipeline(*file(market)), pipeline(*file(market))
    made.run("bars")
    old = derive(made)
    slots = market["timestamp"].unique().sort()
    at = 200
    bar = (pl.col("symbol") == "S002") & (pl.col("timestamp") == slots[at])
    assert market.filter(bar).height == 1
    file(
        market.with_columns(
            pl.when(bar).then(pl.col("high") * 2).otherwise("high").alias("high"), pl.col("volume") + bar * 9
        )
    )
    changed.run("bars")
    new = derive(changed)
    plan = made.plan()
    for one, other, reach in zip(
        old, new, (plan.features.lookback, plan.features.lookback + plan.factors.lookback), strict=True
    ):
        moved = pl.Series([a != b for a, b in zip(one.rows(), other.rows(), strict=True)])
        assert moved.any()
        touched = one.filter(moved)["timestamp"]
        assert touched.min() == slots[at]
        assert touched.max() <= slots[at + reach]


def test_a_factor_row_is_known_when_the_last_bar_of_its_section_and_look_back_was(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    slots = market["timestamp"].unique().sort()
    late = (pl.col("symbol") == "S002") & (pl.col("timestamp") == slots[200])
    file(market.with_columns(pl.col("volume") + late * 9))
    made.run("bars")  # a revision: known since the clock's now
    rows, factors = derive(made)
    plan, now = made.plan(), made.clock.now()
    ends = pl.col("timestamp") + timedelta(minutes=5)
    own = set(slots[200 : 200 + plan.features.lookback + 1])
    restated = (pl.col("symbol") == "S002") & pl.col("timestamp").is_in(list(own))
    expected = rows.with_columns(expected=pl.when(restated).then(now).otherwise(ends))
    assert (expected["known_at"] == expected["expected"]).all()
    section = set(slots[200 : 200 + plan.features.lookback + plan.factors.lookback + 1])
    restated = pl.col("timestamp").is_in(list(section))
    expected = factors.with_columns(expected=pl.when(restated).then(now).otherwise(ends))
    assert (expected["known_at"] == expected["expected"]).all()


@pytest.fixture
def members(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "members.csv"
        path.write_text("symbol,start,end\n" + text)
        return f"universe.members='{path}'"

    return write


def test_non_members_have_no_factor_rows_and_do_not_move_the_members_ranks(
    pipeline: Make, file: File, market: pl.DataFrame, members: Callable[[str], str]
) -> None:
    declared = members("S000,2000-01-01,\nS001,2000-01-01,2021-11-24\nS002,2021-11-26,\n")
    made = pipeline(*file(market), declared)
    made.run("bars", "features", "factors")
    factors = made.table("factors")
    dates = factors.select("symbol", day=pl.col("timestamp").dt.date().cast(pl.String)).unique()
    held = {symbol: sorted(dates.filter(symbol=symbol)["day"]) for symbol in sorted({*dates["symbol"]})}
    assert held == {
        "S000": ["2021-11-22", "2021-11-23", "2021-11-24", "2021-11-26", "2021-11-29", "2021-11-30"],
        "S001": ["2021-11-22", "2021-11-23", "2021-11-24"],
        "S002": ["2021-11-26", "2021-11-29", "2021-11-30"],
    }
    assert {*made.table("features")["symbol"]} == {"S000", "S001", "S002", "S003"}  # a past before membership
    # The same section without the others' bars at all.
    alone = pipeline(*file(market.filter(pl.col("symbol").is_in(["S000", "S001"]))))
    alone.run("bars", "features", "factors")
    early = pl.col("timestamp").dt.date() <= date(2021, 11, 24)
    assert factors.filter(early).equals(alone.table("factors").filter(early))


def test_membership_goes_by_the_session_and_not_by_the_date_in_utc(
    pipeline: Make, file: File, members: Callable[[str], str]
) -> None:
    """Sydney's session of the 2nd opens at 23:00 UTC of the 1st."""
    source = SyntheticSource(
        Grid(CalendarSpec("XASX"), "5m"),
        seed=3, start=date(2023, 2, 1), sessions=3, symbols=3, signal_ic=0.0, gap_rate=0.0, splits=0,
    )  # fmt: skip
    span = datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 3, 1, tzinfo=UTC)
    bars = pl.concat(list(source.bars(*span, None))).drop("source")
    assert bars["timestamp"].dt.hour().is_in([23]).any()
    declared = members("S000,2000-01-01,\nS001,2023-02-02,2023-02-02\nS002,2000-01-01,\n")
    made = pipeline(*file(bars), declared, "calendar.name=XASX")
    made.run("bars", "features", "factors")
    held = made.table("factors").filter(symbol="S001")
    assert held["partition"].unique().to_list() == ["2023-02-02"]
    assert held.height == made.table("bars").filter(symbol="S001", partition="2023-02-02").height


def test_a_missing_bar_is_a_missing_row_and_never_a_filled_one(whole: Pipeline) -> None:
    keys = whole.table("bars").select("symbol", "timestamp")
    for step in ("features", "factors"):
        assert whole.table(step).select("symbol", "timestamp").equals(keys)
    assert keys.height < 4 * (15 * 78 + 42)


def test_numbers_are_float32_and_missing_ones_null(whole: Pipeline) -> None:
    for step, entries in (("features", whole.plan().feature_entries), ("factors", whole.plan().factor_entries)):
        table = whole.table(step)
        assert table.columns == ["symbol", "timestamp", "known_at", *entries, "partition"]
        values = table.select(list(entries))
        assert set(values.dtypes) == {pl.Float32}
        assert not values.select(pl.any_horizontal(pl.all().is_nan().any())).item()


def test_the_metadata_names_the_version_that_was_read_and_the_columns_without_a_value(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market), "source.volume=null")
    told = made.run("bars", "features", "factors").metadata
    assert told["features"]["bars/5m version"] == told["bars"]["table version"]
    assert told["factors"]["features/5m version"] == told["features"]["table version"]
    assert told["features"]["columns without a value"] == "volume_ratio"
    assert told["factors"]["columns without a value"] == "volume_ratio, smooth_rank"
    assert told["features"]["dagster/row_count"] == made.table("features").height


def test_a_symbol_without_bars_is_told_with_the_entry_that_reads_it(pipeline: Make, configs: Path) -> None:
    (configs / "features" / "apart.yaml").write_text(
        '# @package features.apart\nfine: close\nspread: close - of("S0O1", close)\n'
    )
    made = pipeline("features=[apart]", "factors=[pass_through]")
    made.run("bars")
    told = (
        r'features/apart\.yaml: spread: of\("S0O1", …\), but horizon 5m has no bars of S0O1; did you mean S001\? '
        r"It has bars of S000, S001, S002, S003$"
    )
    with pytest.raises(dg.Failure, match=told):
        made.run("features")
