"""at("1h", x): another horizon's newest value that had closed and was known, bit for bit the same however it is cut."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.across import NEWEST, Other, needed, reach, told, with_others
from quant.expression import ExpressionError
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel, names
from quant.program import Program
from quant.sets import Entry, expand

SYMBOLS = ("AAA", "BBB", "CCC")
FIVE = Grid(CalendarSpec("XNYS"), "5m")
FIRST, LAST = date(2024, 11, 25), date(2024, 12, 4)  # around Thanksgiving and its half day
US = timedelta(microseconds=1)
RSI = "rsi(close, 3)"

law = settings(max_examples=20)
seeds = st.integers(0, 1000)


def other(interval: str = "1h", calendar: str = "XNYS", **features: str) -> Other:
    return Other(CalendarSpec(calendar), interval, names(), features)


HOURS = {"1h": other(rsi_3=RSI, trend="mean(close, 4) / close - 1")}
TEXTS = {
    "newest": 'at("1h", close)',
    "entry": 'at("1h", rsi_3)',
    "written": f'at("1h", {RSI})',
    "mixed": 'mean(close, 3) / at("1h", trend)',
    "rolled": 'mean(at("1h", close), 4)',
    "named": 'at("1h", of("AAA", close)) / close',
    "minute": 'at("1h", minute_of_session)',
}


def make_bars(grid: Grid, seed: int, missing: float = 0.1, late: float = 0.1) -> pl.DataFrame:
    """Bars of a random walk with gaps, some of them known later than they end."""
    rng = np.random.default_rng(seed)
    slots = grid.slots(FIRST, LAST)
    at, of = np.nonzero(rng.random((len(slots), len(SYMBOLS))) >= missing)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (len(slots), len(SYMBOLS))), axis=0))[at, of]
    delay = np.where(rng.random(len(at)) < late, rng.integers(0, 3 * 3_600_000_000, len(at)), 0)
    return pl.DataFrame(
        {
            "symbol": [SYMBOLS[column] for column in of],
            "timestamp": pl.Series(slots[at]).dt.replace_time_zone("UTC"),
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": 1.0,
            "known_at": pl.Series(grid.ends(slots)[at] + delay.astype("timedelta64[us]")).dt.replace_time_zone("UTC"),
            "price_factor": 1.0,
            "volume_factor": 1.0,
        }
    )


def run(
    texts: dict[str, str],
    bars: pl.DataFrame,
    theirs: pl.DataFrame,
    others: dict[str, Other] = HOURS,
    slots: np.ndarray | None = None,
    symbols: tuple[str, ...] = SYMBOLS,
    exactly: bool = False,
) -> dict[str, np.ndarray]:
    """Values [slots, symbols]; exactly: give the other horizon's bars of the `needed` slots only."""
    program = Program.compile(texts, names(), others={name: one.names for name, one in others.items()})
    slots = FIVE.slots(FIRST, LAST) if slots is None else slots
    bars = bars.filter(pl.col("timestamp").is_between(aware(slots[0]), aware(slots[-1])))
    bars = bars.filter(pl.col("symbol").is_in(symbols))

    def bars_of(_: str, wanted: np.ndarray) -> pl.DataFrame:
        return theirs.filter(pl.col("timestamp").is_between(aware(wanted[0]), aware(wanted[-1]))) if exactly else theirs

    panel = bar_panel(bars, FIVE, slots, symbols, program.inputs)
    return program.run(with_others(panel, program, others, FIVE, bars, bars_of))


def aware(slot: np.datetime64) -> datetime:
    return slot.astype("datetime64[us]").item().replace(tzinfo=UTC)


def at_slot(values: dict[str, np.ndarray], name: str, slot: datetime, symbol: str = "AAA") -> float:
    place = np.searchsorted(FIVE.slots(FIRST, LAST), np.datetime64(slot.replace(tzinfo=None), "us"))
    return float(values[name][place, SYMBOLS.index(symbol)])


def close_of(bars: pl.DataFrame, slot: datetime, symbol: str = "AAA") -> float:
    return float(np.float32(bars.filter(pl.col("symbol") == symbol, pl.col("timestamp") == slot)["close"].item()))


def known(bars: pl.DataFrame, slot: datetime, moment: datetime, symbol: str = "AAA") -> pl.DataFrame:
    """The bars with one of them known at another moment."""
    chosen = (pl.col("timestamp") == slot) & (pl.col("symbol") == symbol)
    return bars.with_columns(
        known_at=pl.when(chosen).then(pl.lit(moment, pl.Datetime("us", "UTC"))).otherwise("known_at")
    )


TEN = datetime(2024, 11, 26, 15, 25, tzinfo=UTC)  # the 5m bar that ends at 15:30, as the 1h bar of 14:30 does
OPEN = datetime(2024, 11, 26, 14, 30, tzinfo=UTC)
LATER = datetime(2024, 11, 26, 15, 30, tzinfo=UTC)
CLOSED = LATER


def test_a_bar_that_closes_with_this_one_is_seen_and_one_known_a_microsecond_later_is_not() -> None:
    bars, theirs = make_bars(FIVE, 1, 0, 0), make_bars(HOURS["1h"].grid, 2, 0, 0)
    before = datetime(2024, 11, 25, 20, 30, tzinfo=UTC)  # the half hour that ends the session before
    assert at_slot(run(TEXTS, bars, theirs), "newest", TEN) == close_of(theirs, OPEN)
    late = known(theirs, OPEN, CLOSED + US)
    assert at_slot(run(TEXTS, bars, late), "newest", TEN) == close_of(theirs, before)
    both = known(bars, TEN, CLOSED + US)
    assert at_slot(run(TEXTS, both, late), "newest", TEN) == close_of(theirs, OPEN)


def test_a_bar_that_is_still_open_is_never_seen_even_where_a_part_of_it_is_known() -> None:
    bars, theirs = make_bars(FIVE, 1, 0, 0), make_bars(HOURS["1h"].grid, 2, 0, 0)
    slot = TEN - timedelta(minutes=5)  # ends five minutes before the hour does
    part = known(theirs, OPEN, slot)
    arrived = known(bars, slot, LATER + timedelta(hours=5))  # and late: the hour was closed and known by then
    for ours, other_bars in ((bars, part), (arrived, theirs), (arrived, part)):
        assert at_slot(run(TEXTS, ours, other_bars), "newest", slot) == close_of(
            theirs, datetime(2024, 11, 25, 20, 30, tzinfo=UTC)
        )


def test_a_value_is_known_when_the_last_bar_that_it_reads_is() -> None:
    bars, theirs = make_bars(FIVE, 1, 0, 0), make_bars(HOURS["1h"].grid, 2, 0, 0)
    late = known(theirs, OPEN - timedelta(hours=24), LATER + timedelta(hours=1))  # one bar of the window of four
    texts = {"mean": 'at("1h", mean(close, 9))', "newest": 'at("1h", close)'}
    plain, delayed = run(texts, bars, theirs), run(texts, bars, late)
    assert at_slot(plain, "newest", TEN) == at_slot(delayed, "newest", TEN)
    assert at_slot(plain, "mean", TEN) != at_slot(delayed, "mean", TEN)
    seen = TEN + timedelta(hours=1)
    assert at_slot(plain, "mean", seen) == at_slot(delayed, "mean", seen)


@law
@given(seed=seeds)
def test_with_a_bar_in_every_slot_it_is_the_as_of_join_of_polars(seed: int) -> None:
    """Where no bar is late: polars joins on the end of the bars, by symbol, backward and with equality."""
    for grid in (HOURS["1h"].grid, Grid(CalendarSpec("XNYS"), "1d"), Grid(CalendarSpec("24/7"), "1h")):
        bars, theirs = make_bars(FIVE, seed, 0.2, 0), make_bars(grid, seed + 1, 0, 0)
        found = run({"x": 'at("o", close)'}, bars, theirs, {"o": Other(grid.calendar, grid.interval, names(), {})})["x"]
        slots = FIVE.slots(FIRST, LAST)
        expected = bars.sort("known_at").join_asof(
            theirs.sort("known_at").select("symbol", "known_at", value="close"),
            on="known_at",
            by="symbol",
            check_sortedness=False,
        )
        dense = np.full(found.shape, np.nan, np.float32)
        rows = np.searchsorted(slots, expected["timestamp"].dt.replace_time_zone(None).to_numpy())
        columns = [SYMBOLS.index(symbol) for symbol in expected["symbol"]]
        dense[rows, columns] = expected["value"].cast(pl.Float32).to_numpy()
        np.testing.assert_array_equal(found, dense)
        assert np.isfinite(found).mean() > 0.5


def test_a_slot_without_a_bar_and_a_symbol_that_is_not_there_have_no_value() -> None:
    bars, theirs = make_bars(FIVE, 1, 0.3, 0), make_bars(HOURS["1h"].grid, 2, 0, 0)
    found = run(TEXTS, bars, theirs.filter(pl.col("symbol") != "BBB"))
    absent = np.isnan(bar_panel(bars, FIVE, FIVE.slots(FIRST, LAST), SYMBOLS, ["close"]).columns["close"])
    assert np.isnan(found["newest"][absent]).all()
    assert np.isnan(found["newest"][:, 1]).all()
    assert np.isfinite(found["newest"][50:, [0, 2]][~absent[50:, [0, 2]]]).all()
    nothing = run(TEXTS, bars, theirs.clear())
    assert all(np.isnan(values).all() for values in nothing.values())


def test_a_value_older_than_the_newest_slots_is_missing() -> None:
    grid = HOURS["1h"].grid
    bars, theirs = make_bars(FIVE, 1, 0, 0), make_bars(grid, 2, 0, 0)
    only = theirs.filter(pl.col("timestamp") == OPEN)
    found = run(TEXTS, bars, only)["newest"][:, 0]
    slots, theirs_slots = FIVE.slots(FIRST, LAST), grid.slots(FIRST, LAST)
    first = int(np.searchsorted(theirs_slots, np.datetime64(OPEN.replace(tzinfo=None), "us")))
    begin, end = grid.ends(theirs_slots)[[first, first + NEWEST]]
    expected = (FIVE.ends(slots) >= begin) & (FIVE.ends(slots) < end)
    np.testing.assert_array_equal(np.isfinite(found), expected)


@law
@given(seed=seeds, after=st.integers(0, 500))
def test_no_value_moves_when_every_later_bar_of_both_horizons_changes(seed: int, after: int) -> None:
    slots, grid = FIVE.slots(FIRST, LAST), HOURS["1h"].grid
    bars, theirs = make_bars(FIVE, seed), make_bars(grid, seed + 1)
    end = aware(FIVE.ends(slots)[after])

    def changed(frame: pl.DataFrame, of: Grid, seed: int) -> pl.DataFrame:
        """Other bars, and other gaps, where a bar ends later than `end`: also those that had begun."""
        ends = pl.Series(of.ends(frame["timestamp"].dt.replace_time_zone(None).to_numpy())).dt.replace_time_zone("UTC")
        fresh = make_bars(of, seed, 0.3, 0.5)
        fresh_ends = pl.Series(of.ends(fresh["timestamp"].dt.replace_time_zone(None).to_numpy()))
        return pl.concat([frame.filter(ends <= end), fresh.filter(fresh_ends.dt.replace_time_zone("UTC") > end)])

    before = run(TEXTS, bars, theirs)
    moved = run(TEXTS, changed(bars, FIVE, seed + 2), changed(theirs, grid, seed + 3))
    for name in TEXTS:
        assert moved[name][: after + 1].tobytes() == before[name][: after + 1].tobytes(), name


@law
@given(seed=seeds, start=st.integers(0, 300), length=st.integers(1, 200))
def test_history_outside_the_look_back_of_each_horizon_changes_nothing(seed: int, start: int, length: int) -> None:
    slots = FIVE.slots(FIRST, LAST)
    bars, theirs = make_bars(FIVE, seed), make_bars(HOURS["1h"].grid, seed + 1)
    whole = run(TEXTS, bars, theirs)
    for name, text in TEXTS.items():
        lookback = Program.compile({name: text}, names(), others={"1h": HOURS["1h"].names}).lookback
        part = run({name: text}, bars, theirs, slots=slots[start : start + lookback + length], exactly=True)[name]
        kept = np.ascontiguousarray(whole[name][start + lookback : start + lookback + length])
        assert part[lookback:].tobytes() == kept.tobytes(), text


@law
@given(seed=seeds, chosen=st.sets(st.sampled_from(SYMBOLS)))
def test_a_subset_of_symbols_equals_the_whole(seed: int, chosen: set[str]) -> None:
    symbols = tuple(sorted({"AAA", *chosen}))  # AAA is read by name
    bars, theirs = make_bars(FIVE, seed), make_bars(HOURS["1h"].grid, seed + 1)
    whole, part = run(TEXTS, bars, theirs), run(TEXTS, bars, theirs, symbols=symbols)
    for name in TEXTS:
        columns = [SYMBOLS.index(symbol) for symbol in symbols]
        assert part[name].tobytes() == np.ascontiguousarray(whole[name][:, columns]).tobytes(), name


def test_the_slots_needed_are_those_of_the_look_back_before_the_newest_closed_one() -> None:
    evening = CalendarSpec(
        "template", timezone="America/Los_Angeles", open="06:30", close="23:00", weekdays=(0, 1, 2, 3, 4)
    )
    late = Other(evening, "1h", names(), {})  # its sessions end on the next day in UTC, and those of XASX begin before
    for other_one in (HOURS["1h"], other("1d"), other("1h", "24/7"), other("15m", "XASX"), late):
        program = Program.compile({"x": 'at("o", mean(close, 10))'}, names(), others={"o": other_one.names})
        grid = other_one.grid
        slots = grid.slots(date(2024, 9, 1), LAST)
        for day, hour, minute in ((27, 20, 30), (30, 3, 0), (30, 23, 59), (25, 14, 35), (25, 23, 30), (27, 6, 0)):
            end = np.datetime64(datetime(2024, 11, day, hour, minute), "us")
            closed = slots[grid.ends(slots) <= end]
            np.testing.assert_array_equal(needed(program.others["o"], grid, np.array([end])), closed[-(9 + NEWEST) :])


def test_the_same_text_means_what_each_horizon_says_it_does() -> None:
    texts = {"x": 'at("1h", trend)'}
    short, long = (other(trend=f"mean(close, {n})") for n in (5, 50))
    made = [Program.compile(texts, names(), others={"1h": one.names}) for one in (short, long)]
    assert [reach(program.outputs.values())["1h"] for program in made] == [4 + NEWEST - 1, 49 + NEWEST - 1]


def test_look_back_is_told_per_horizon() -> None:
    others = {"1h": HOURS["1h"].names, "1d": other("1d").names}
    texts = {"x": 'mean(at("1h", mean(close, 5)), 3) + at("1d", close) + at("1h", close)', "y": "mean(close, 9)"}
    program = Program.compile(texts, names(), others=others)
    assert program.lookback == 8
    assert reach(program.outputs.values()) == {"1d": NEWEST - 1, "1h": 4 + NEWEST - 1}
    assert [told(value) for value in program.outputs.values()] == [f"2, 1d {NEWEST - 1}, 1h {4 + NEWEST - 1}", "8"]
    assert program.others["1h"].names == ('at("1h", mean(close, 5))', 'at("1h", close)')


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('at("2h", close)', "column 1: at: there is no horizon 2h here: the others are 1h"),
        ('close / at("1h", rsi_33)', "column 18: unknown name rsi_33 in horizon 1h; did you mean rsi_3?"),
        ('close + at("1h", at("1d", close))', 'column 18: at inside at("1h", …)'),
        ('at("1h", further)', 'reads at("1d", close) in turn'),
        ('at("1h", rank(close))', "mixes the symbols of a section"),
        ('at("1h", lead(close, 2))', "looks 2 slots ahead"),
        ('at("1h", 3)', "x is the constant 3, it must be a series"),
        ('at("1h")', 'at takes a horizon in quotes and a series: at("HORIZON", x)'),
        ("at(close, 3)", "at takes a horizon in quotes"),
        ("at", "at is no column here; as an operator it needs arguments"),
    ],
)
def test_a_mistake_names_file_entry_and_column(text: str, problem: str) -> None:
    hours = other(rsi_3=RSI, further='1 + at("1d", close)')
    with pytest.raises(ExpressionError) as error:
        Program.compile({"mine": Entry("mine", text, "g", file="conf/features/mine.yaml")}, names(),
                        others={"1h": hours.names})  # fmt: skip
    assert str(error.value).startswith("conf/features/mine.yaml: mine")
    assert problem in str(error.value)


def test_without_other_horizons_at_says_who_may_read_them() -> None:
    with pytest.raises(ExpressionError, match="no horizon 1h here: only features and factors read one"):
        Program.compile({"x": 'at("1h", close)'}, names())


def test_two_horizons_may_read_each_others_bars() -> None:
    hours, minutes = other(slow='close / at("5m", close)', plain="log(close)"), other("5m", fast='at("1h", close)')
    assert Program.compile({"x": 'at("1h", plain)'}, names(), others={"1h": hours.names}).others
    assert Program.compile({"x": 'at("5m", close)'}, names(), others={"5m": minutes.names}).others


def test_hostile_nesting_inside_at_is_refused_quickly() -> None:
    with pytest.raises(ExpressionError, match="nested"):
        Program.compile({"x": f'at("1h", {"-" * 900}close)'}, names(), others={"1h": HOURS["1h"].names})


def test_a_familys_parameter_may_be_the_horizon() -> None:
    declared = {"slow_{h}_{n}": {"expr": "at(h, mean(close, n))", "h": ["1h", "1d"], "n": [3]}}
    entries = expand({"mine": declared}, file_of=lambda name: f"{name}.yaml")
    others = {"1h": HOURS["1h"].names, "1d": other("1d").names}
    program = Program.compile(entries, names(), others=others)
    assert program.names == ("slow_1h_3", "slow_1d_3")
    assert [program.others[horizon].lookback for horizon in ("1h", "1d")] == [2, 2]
