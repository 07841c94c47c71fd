"""Analogs as of a time: nothing later is seen, neither a state nor an outcome; against a search by hand in numpy."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.grid import CalendarSpec, Grid
from quant.labels import ExpressionLabel
from quant.panel import instants
from quant.program import Program
from quant.states import KEYS, MARKET, States
from resources.analogs import Analogs, Terms, analogs
from resources.database import Database
from resources.lake import Lake
from resources.vectors import NoVectors, Vectors, market_of

GRID = Grid(CalendarSpec("XNYS"), "5m")
SLOTS = GRID.slots(date(2024, 7, 1), date(2024, 7, 9))  # a half day and a holiday among them
DAYS = GRID.session_dates(SLOTS)
SYMBOLS = ("A", "B", "C")
AHEAD, APART, DIMENSIONS = 3, 5, 3
TEXT = f"lead(close, {AHEAD}) / lead(open, 1) - 1"
LABEL = ExpressionLabel(Program.compile({"label": TEXT}, ("open", "close"), lookahead=True), TEXT)
TERMS = Terms("5m", GRID, LABEL, APART)
COLUMNS = {f"factor_{number}": "its expression" for number in range(DIMENSIONS)}
ENDS = np.repeat(GRID.ends(SLOTS), len(SYMBOLS))


def utc(values: np.ndarray) -> pl.Series:
    return pl.Series(values).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


class World:
    """States and bars of three symbols; some arrive late. What is known after a time can be made another."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        rows = len(SLOTS) * len(SYMBOLS)
        late = np.where(self.random.random(rows) < 0.1, self.random.integers(0, 4 * 86400, rows), 0)
        known = ENDS + late * np.timedelta64(1, "s")
        keys = {"symbol": list(SYMBOLS) * len(SLOTS), "timestamp": utc(np.repeat(SLOTS, len(SYMBOLS)))}
        close = 100 * np.exp(np.cumsum(self.random.normal(0, 0.001, (len(SLOTS), 3)), axis=0))
        prices = {name: close.ravel() for name in ("open", "high", "low", "close")}
        self.bars = pl.DataFrame(
            {
                **keys, **prices, "volume": 1.0, "source": "test", "known_at": utc(known),
                "price_factor": 1.0, "volume_factor": 1.0,
                "partition": np.datetime_as_string(np.repeat(DAYS, len(SYMBOLS))).tolist(),
            }
        )  # fmt: skip
        self.keys = pl.DataFrame({**keys, "known_at": utc(known), "coverage": 1.0}).cast(KEYS)  # type: ignore[arg-type]
        # A path, as real states are: neighbours in time are near each other.
        path = np.cumsum(self.random.normal(size=(len(SLOTS), len(SYMBOLS), DIMENSIONS)), axis=0) % 7
        self.vectors = path.reshape(rows, DIMENSIONS).astype(np.float32)

    def later(self, than: datetime) -> "World":
        """The same until `than`; what was known later is something else altogether."""
        other = World()
        late = (self.bars["known_at"] > than).to_numpy()
        drawn = np.exp(self.random.normal(0, 1, late.sum())) * 50
        prices = np.where(late, 0.0, self.bars["close"].to_numpy())
        prices[late] = drawn
        other.bars = self.bars.with_columns(**{name: pl.Series(prices) for name in ("open", "high", "low", "close")})
        other.keys, other.vectors = self.keys, self.vectors.copy()
        other.vectors[late] = self.random.normal(size=(late.sum(), DIMENSIONS))
        return other

    def store(self, vectors: Vectors, root: Path) -> Lake:
        """Write all of it; the market's states are the first symbol's, under another name."""
        vectors.write("5m", States(self.keys, self.vectors), SLOTS, DAYS, columns=COLUMNS)
        first = (self.keys["symbol"] == "A").to_numpy()
        keys = self.keys.filter(pl.Series(first)).with_columns(symbol=pl.lit(MARKET))
        vectors.write(market_of("5m"), States(keys, self.vectors[first]), SLOTS, DAYS, columns=COLUMNS)
        lake = Lake(root)
        lake.write("bars/5m", [self.bars], sorted(set(self.bars["partition"])), {"test": True})
        return lake

    def expected(self, symbol: str, at: datetime, k: int) -> tuple[datetime, list[datetime], list[float | None]]:
        """The state, its analogs and what followed them, by a full scan in time's order of nearness."""
        own = self.keys.with_row_index().filter(pl.col("symbol") == symbol, pl.col("known_at") <= at)
        state = own.tail(1)
        now = int(np.searchsorted(SLOTS, instants(state["timestamp"])[0]))
        places = np.searchsorted(SLOTS, instants(own["timestamp"]))
        near = np.linalg.norm(self.vectors[own["index"].to_numpy()] - self.vectors[state["index"].item()], axis=1)
        taken: list[int] = []
        for at_row in np.argsort(near, kind="stable"):
            place = int(places[at_row])
            if place <= now - APART and all(abs(place - other) >= APART for other in taken):
                taken.append(place)
        taken = taken[:k]
        return (
            state["timestamp"].item(),
            [_moment(SLOTS[p]) for p in taken],
            [self.followed(symbol, p, at) for p in taken],
        )

    def followed(self, symbol: str, place: int, at: datetime) -> float | None:
        rows = self.bars.filter(pl.col("symbol") == symbol)[place : place + AHEAD + 1]
        if rows.height <= AHEAD or rows["known_at"].max() > at:  # type: ignore[operator]
            return None
        price = rows["close"].cast(pl.Float32)
        return float(price[AHEAD]) / float(price[1]) - 1


def _moment(slot: np.datetime64) -> datetime:
    return slot.item().replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def vectors(root: Path) -> Vectors:
    return Vectors(Database(root))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def lake(world: World, vectors: Vectors, root: Path) -> Lake:
    return world.store(vectors, root / "lake")


def ask(vectors: Vectors, lake: Lake, at: datetime, symbol: str | None = "B", k: int = 6) -> Analogs:
    return analogs(vectors, lake, TERMS, at=at, symbol=symbol, k=k)


@pytest.mark.parametrize("at", [SLOTS[60], SLOTS[200], SLOTS[-1] + np.timedelta64(9, "D")])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_analogs_are_those_of_a_full_scan_and_outcomes_those_of_the_bars(
    world: World, vectors: Vectors, lake: Lake, at: np.datetime64, symbol: str
) -> None:
    told = ask(vectors, lake, _moment(at), symbol)
    state, timestamps, outcomes = world.expected(symbol, _moment(at), 6)
    assert told.state["timestamp"] == state
    assert told.rows["timestamp"].to_list() == timestamps
    assert told.rows["outcome"].to_list() == [None if one is None else pytest.approx(one, abs=1e-6) for one in outcomes]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(30, len(SLOTS) - 1),
    seconds=st.integers(0, 600),
    symbol=st.sampled_from([*SYMBOLS, None]),
)
def test_what_is_known_later_changes_no_answer(
    world: World, vectors: Vectors, tmp_path_factory: pytest.TempPathFactory, lake: Lake,
    place: int, seconds: int, symbol: str | None,
) -> None:  # fmt: skip
    at = _moment(SLOTS[place]) + timedelta(seconds=seconds)
    world.store(vectors, Path(lake.root))
    before = ask(vectors, lake, at, symbol)
    assert before.rows["known_at"].is_between(datetime(2000, 1, 1, tzinfo=UTC), at).all()
    assert before.rows["outcome_known_at"].drop_nulls().is_between(datetime(2000, 1, 1, tzinfo=UTC), at).all()
    other = world.later(at)
    after = ask(vectors, other.store(vectors, tmp_path_factory.mktemp("later")), at, symbol)
    assert after.to_dict() == before.to_dict()


def test_analogs_are_apart_from_each_other_and_from_the_state(vectors: Vectors, lake: Lake) -> None:
    told = ask(vectors, lake, _moment(SLOTS[-1]), "A", k=40)
    stamps = [told.state["timestamp"], *told.rows["timestamp"]]
    places = sorted(np.searchsorted(SLOTS, instants(pl.Series(stamps))))
    assert len(places) > 20
    assert (np.diff(places) >= APART).all()
    assert (told.rows["timestamp"] < told.state["timestamp"]).all()
    assert told.rows["distance"].is_sorted()


def test_a_label_that_reaches_further_than_apart_keeps_its_outcomes_apart(vectors: Vectors, lake: Lake) -> None:
    text = "lead(close, 30) / close - 1"
    label = ExpressionLabel(Program.compile({"label": text}, ("close",), lookahead=True), text)
    terms = Terms("5m", GRID, label, APART)
    told = analogs(vectors, lake, terms, at=_moment(SLOTS[-1]), symbol="A", k=8)
    places = np.searchsorted(SLOTS, instants(told.rows["timestamp"]))
    assert (np.diff(sorted(places)) > 30).all()
    assert told.to_dict()["apart"] == 31


def test_the_market_s_outcome_is_the_mean_over_members_whose_own_was_known(
    world: World, vectors: Vectors, lake: Lake
) -> None:
    at = _moment(SLOTS[-1])
    told = ask(vectors, lake, at, None, k=20)
    assert told.symbol == MARKET
    counts = []
    for row in told.rows.iter_rows(named=True):
        place = int(np.searchsorted(SLOTS, np.datetime64(row["timestamp"].replace(tzinfo=None))))
        known = [one for symbol in SYMBOLS if (one := world.followed(symbol, place, at)) is not None]
        assert row["members"] == len(known)
        assert row["outcome"] == (pytest.approx(np.mean(known), abs=1e-6) if known else None)
        counts.append(len(known))
    assert min(counts) < 3 <= max(counts)


def test_hnsw_gives_as_many_and_the_same_up_to_its_recall(vectors: Vectors, lake: Lake) -> None:
    exact = ask(vectors, lake, _moment(SLOTS[-1]), "A", k=10)
    vectors.index("5m", "hnsw")
    graph = ask(vectors, lake, _moment(SLOTS[-1]), "A", k=10)
    vectors.index("5m", "none")
    assert graph.rows.height == 10
    assert len(set(graph.rows["timestamp"]) & set(exact.rows["timestamp"])) >= 9


def test_too_early_a_time_a_strange_symbol_or_k_are_told(
    vectors: Vectors, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoVectors, match="no state of A in 5m was known at 2024-07-01 13:00:00 UTC"):
        ask(vectors, lake, datetime(2024, 7, 1, 13, tzinfo=UTC), "A")
    with pytest.raises(NoVectors, match=r"no state of NOBODY in 5m.*check the symbol; there are A, B, C"):
        ask(vectors, lake, _moment(SLOTS[-1]), "NOBODY")
    with monkeypatch.context() as patch:
        patch.setattr("resources.vectors.SHOWN", 1)
        with pytest.raises(NoVectors, match=r"check the symbol; nearest of 3 by name: B$"):
            ask(vectors, lake, _moment(SLOTS[-1]), "BB")
    with pytest.raises(ValueError, match="1 to 100 analogs"):
        ask(vectors, lake, _moment(SLOTS[-1]), k=101)
    with pytest.raises(ValueError, match="no time zone"):
        ask(vectors, lake, datetime(2024, 7, 5))


def test_a_symbol_whose_last_bar_was_late_is_among_those_that_there_are(world: World, vectors: Vectors) -> None:
    there = ~((world.keys["symbol"] == "B") & (world.keys["timestamp"] >= _moment(SLOTS[-3])))
    vectors.write("7m", States(world.keys.filter(there), world.vectors[there.to_numpy()]), SLOTS, DAYS, columns=COLUMNS)
    with pytest.raises(NoVectors, match=r"check the symbol; there are A, B, C$"):
        vectors.newest("7m", "NOBODY", _moment(SLOTS[-1]))


def test_a_state_without_a_past_has_no_analogs(vectors: Vectors, lake: Lake) -> None:
    early = World().keys.filter(symbol="A")["known_at"][0]
    told = ask(vectors, lake, early, "A")
    assert told.rows.height == 0
    assert told.to_dict()["followed"] == {"known": 0, "mean": None, "median": None, "share_above_zero": None}
