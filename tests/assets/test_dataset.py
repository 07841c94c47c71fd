"""The rows a model sees: every row of the factor table is used or dropped for a reason, and no label leaks."""

from datetime import timedelta

import exchange_calendars as xcals
import numpy as np
import polars as pl
import pytest

from assets.dataset import Dataset, load, split
from assets.plan import Plan
from conf.compose import compose
from tests.assets.conftest import File, Make, Pipeline


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Six sessions with a split, a half day and gaps."""
    market = ["source.start=2021-11-22", "source.sessions=6", "source.symbols=4", "source.gap_rate=0.05"]
    made = Pipeline(
        tmp_path_factory.mktemp("dataset"), "horizon=5m", "features=[few]", "factors=[few]", *market, "source.splits=2"
    )
    made.run("bars", "features", "factors")
    return made


def minutes() -> list[np.datetime64]:
    """Bar starts of the exchange, from its own minutes."""
    calendar = xcals.get_calendar("XNYS", start="2021-11-01", end="2021-12-31")
    found = calendar.sessions_minutes("2021-11-22", "2021-11-30").tz_localize(None).to_numpy()
    return [moment for moment in found.astype("datetime64[us]") if moment.astype("datetime64[m]").astype(int) % 5 == 0]


def test_the_rows_used_and_the_rows_dropped_are_the_factor_table(made: Pipeline) -> None:
    data = load(made.plan(), made.lake)
    table = made.table("factors")
    assert len(data.y) + sum(data.dropped.values()) == table.height
    assert data.dropped["no label"] > 0
    assert len(data.y) == len(data.X) == len(data.symbol) == len(data.timestamp) == len(data.last_return)


def test_each_label_is_the_return_of_a_holder_from_the_next_open(made: Pipeline) -> None:
    data, bars, slots = load(made.plan(), made.lake), made.table("bars"), minutes()
    place = {slot: index for index, slot in enumerate(slots)}
    adjusted = bars.select(
        "symbol",
        pl.col("timestamp").dt.replace_time_zone(None),
        o=pl.col("open") * pl.col("price_factor"),
        c=pl.col("close") * pl.col("price_factor"),
    )
    price = {(symbol, np.datetime64(stamp, "us")): (o, c) for symbol, stamp, o, c in adjusted.iter_rows()}
    expected = []
    for symbol, stamp in zip(data.symbol, data.timestamp, strict=True):
        at = place[stamp]
        expected.append(price[symbol, slots[at + 6]][1] / price[symbol, slots[at + 1]][0] - 1)
    np.testing.assert_allclose(data.y, expected, atol=2e-6)
    # And no row that has such a label was left out for want of one.
    have = sum(
        (symbol, slots[place[stamp] + 6]) in price and (symbol, slots[place[stamp] + 1]) in price
        for symbol, stamp in price
        if place[stamp] + 6 < len(slots)
    )
    assert len(price) - have == data.dropped["no label"]


def test_a_label_is_known_when_its_last_bar_ends_whatever_the_calendar_does_between(made: Pipeline) -> None:
    data, slots = load(made.plan(), made.lake), minutes()
    place = {slot: index for index, slot in enumerate(slots)}
    five = np.timedelta64(5, "m")
    expected = np.array([slots[place[stamp] + 6] + five for stamp in data.timestamp])
    assert (data.label_known == expected).all()
    assert (data.known == data.timestamp + five).all()
    assert (data.label_known - data.known).max() > np.timedelta64(2, "D")  # over the weekend


def test_a_grade_is_known_when_the_last_label_of_its_section_is(made: Pipeline) -> None:
    def data(*words: str) -> Dataset:
        plan = Plan(compose([*made.words, "label=triple_barrier", "label.window=20", "model.embargo=0", *words])["5m"])
        return load(plan, made.lake)

    own, graded = data(), data("model.objective=lambdarank")
    frame = pl.DataFrame({"time": own.timestamp, "end": own.label_known})
    last = frame.select(pl.col("end").max().over("time"))["end"].to_numpy()
    assert (own.label_known < last).any()
    np.testing.assert_array_equal(graded.label_known, last)


def test_no_label_of_one_part_is_known_in_the_next(made: Pipeline) -> None:
    data = load(made.plan(), made.lake)
    parts = split(made.plan(), data)
    assert parts.counts["purged"] > 0
    assert parts.counts["embargoed"] > 0
    for before, after in ((parts.train, parts.valid), (parts.valid, parts.test)):
        sections = np.unique(data.known)
        first = data.known[after].min()
        assert data.label_known[before].max() < first
        # The embargo, as far as the label looks ahead by default.
        assert (sections[sections < first] > data.label_known[before].max()).sum() >= 6
    assert sum(parts.counts[name] for name in ("train", "valid", "test", "purged", "embargoed")) == len(data.y)


def test_an_embargo_of_the_config_is_counted_in_sections(made: Pipeline) -> None:
    data = load(made.plan(), made.lake)
    wide = Pipeline.plan(made)
    horizon = wide.horizon.model_copy(update={"model": wide.horizon.model.model_copy(update={"embargo": 20})})
    parts = split(type(wide)(horizon), data)
    assert parts.counts["embargoed"] > split(wide, data).counts["embargoed"]


def test_a_row_known_after_the_deadline_is_left_out_as_restated(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars", "features", "factors")
    plain = load(made.plan(), made.lake)
    at = market["timestamp"].unique().sort()[200]
    bar = (pl.col("symbol") == "S002") & (pl.col("timestamp") == at)
    file(market.with_columns(pl.col("volume") + bar * 9))
    made.run("bars", "features", "factors")
    data = load(made.plan(), made.lake)
    late = made.table("factors").filter(pl.col("known_at") > pl.col("timestamp") + timedelta(minutes=6))
    assert data.dropped["restated"] == late.height > 0
    keys = {*zip(data.symbol, data.timestamp, strict=True)}
    assert not keys & {*late.select("symbol", pl.col("timestamp").dt.replace_time_zone(None)).iter_rows()}
    assert len(plain.y) - len(data.y) <= late.height
    assert len(data.y) + sum(data.dropped.values()) == made.table("factors").height


def test_a_late_bar_is_no_restatement_within_the_seconds_that_the_config_allows(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    at = market["timestamp"].unique().sort()[200]
    made.clock.set(at + timedelta(minutes=5, seconds=60))
    bar = (pl.col("symbol") == "S002") & (pl.col("timestamp") == at)
    file(market.with_columns(pl.col("volume") + bar * 9))
    assert made.run("bars", "features", "factors").metadata["bars"]["rows revised"] == 1
    assert load(made.plan(), made.lake).dropped["restated"] == 0


def test_thin_rows_are_left_out_and_counted(made: Pipeline) -> None:
    plan = made.plan()
    strict = plan.horizon.model_copy(update={"model": plan.horizon.model.model_copy(update={"min_coverage": 1.0})})
    data = load(type(plan)(strict), made.lake)
    assert data.dropped["coverage below the minimum"] > 0
    assert not np.isnan(data.X).any()
    assert len(data.y) + sum(data.dropped.values()) == made.table("factors").height
