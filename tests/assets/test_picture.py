"""The page of a set, and the numbers that it and the statistics are made of: the same however rows stream by."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets import picture, sample
from assets.sample import Sample
from assets.values import Statistics
from quant.sets import Entry
from tests.assets.conftest import Make

NAMES = ["a", "b", "c"]


@pytest.fixture
def table() -> pl.DataFrame:
    """400 slots of three symbols; `b` follows `a`, half of `c` is missing."""
    random = np.random.default_rng(7)
    slots = np.arange("2024-01-01T00:00", "2024-01-01T06:40", dtype="datetime64[m]").astype("datetime64[us]")
    a = random.normal(size=1200) * 1e-3 + 50
    c = np.where(random.random(1200) < 0.5, np.nan, random.normal(size=1200))
    frame = pl.DataFrame(
        {
            "symbol": ["X", "Y", "Z"] * 400,
            "timestamp": pl.Series(np.repeat(slots, 3)).dt.replace_time_zone("UTC"),
            "a": a,
            "b": -np.exp(a),
            "c": c,
        }
    )
    return frame.with_columns(pl.col(NAMES).cast(pl.Float32).fill_nan(None))


def slots_of(table: pl.DataFrame) -> np.ndarray:
    return table["timestamp"].dt.replace_time_zone(None).unique().sort().to_numpy().astype("datetime64[us]")


@pytest.mark.parametrize("size", [1200, 77, 1])
def test_statistics_are_those_of_the_whole_table(table: pl.DataFrame, size: int) -> None:
    statistics = Statistics(NAMES)
    for part in table.iter_slices(size):
        statistics.take(part)
    header, rows = statistics.table()
    assert header == ["column", "null", "min", "max", "mean", "std"]
    for name, *told in rows:
        values = table[name].drop_nulls().cast(pl.Float64)
        expected = [values.min(), values.max(), values.mean(), values.std()]
        assert told[0] == f"{table[name].null_count() / 1200:.1%}"
        np.testing.assert_allclose([float(figure) for figure in told[1:]], expected, rtol=2e-3)


def test_a_column_without_values_has_no_figures() -> None:
    statistics = Statistics(["a"])
    statistics.take(pl.DataFrame({"a": [None, None]}, schema={"a": pl.Float32}))
    assert statistics.table()[1] == [["a", "100.0%", "–", "–", "–", "–"]]
    assert statistics.empty == ["a"]


@pytest.mark.parametrize("size", [77, 3])
def test_the_sample_and_the_coverage_do_not_depend_on_the_chunks(
    table: pl.DataFrame, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "ROWS", 100)
    whole, pieces = Sample(NAMES, slots_of(table)), Sample(NAMES, slots_of(table))
    whole.take(table)
    for part in table.iter_slices(size):
        pieces.take(part)
    assert whole.size == 100
    assert pieces.drawn is not None
    assert whole.drawn is not None
    assert pieces.drawn.sort("_draw").equals(whole.drawn.sort("_draw"))
    np.testing.assert_array_equal(pieces.present, whole.present)
    np.testing.assert_array_equal(pieces.rows, whole.rows)
    assert whole.rows.sum() == 1200
    assert whole.present.sum(axis=0).tolist() == [1200, 1200, 1200 - table["c"].null_count()]
    assert whole.sizes.sum() == 400


def test_the_correlation_is_by_rank_over_all_rows_of_a_small_table(table: pl.DataFrame) -> None:
    made = Sample(NAMES, slots_of(table))
    made.take(table)
    found = made.correlation()
    assert found[0, 1] == pytest.approx(-1, abs=1e-4)
    assert abs(found[0, 2]) < 0.1


def test_the_page_holds_every_pair_and_every_column_and_fetches_nothing(table: pl.DataFrame) -> None:
    entries = {name: Entry(name, "close", group) for name, group in zip(NAMES, ("<up>", "down", "<up>"), strict=True)}
    made = Sample(NAMES, slots_of(table))
    made.take(table)
    html = picture.render("5m · features", "some sessions", entries, made, 3)
    assert "all 1,200 rows" in html
    assert "<title>b × a: -1.00</title>" in html
    assert len(re.findall(r"<title>\w × \w: ", html)) == 3
    assert len(re.findall(r"<title>c, 2024-01-01 \d\d:\d\d", html)) > 30
    assert "&lt;up&gt;" in html
    assert "<up>" not in html
    assert not re.search(r"(src|href)=(?!\"data:)|url\(|<script", html)


def test_columns_of_a_group_stand_together() -> None:
    entries = {name: Entry(name, "close", group) for name, group in zip("abcd", "xyxy", strict=True)}
    assert picture.grouped(entries) == [0, 2, 1, 3]


def test_a_run_without_rows_has_a_page_too() -> None:
    entries = {"a": Entry("a", "close", "g"), "b": Entry("b", "close", "g")}
    slots = np.arange("2024-01-01", "2024-01-03", dtype="datetime64[D]").astype("datetime64[us]")
    for there in (slots, slots[:0]):
        assert 'class="none"' in picture.render("t", "", entries, Sample(["a", "b"], there), 0)


def test_every_step_links_its_page(pipeline: Make) -> None:
    made = pipeline()
    told = made.run("bars", "features", "factors").metadata
    for step in ("features", "factors"):
        path = Path(told[step]["report file"])
        assert told[step]["report"].endswith(f"/reports/5m/{path.name}")
        html = path.read_text(encoding="utf-8")
        assert all(f">{name}</text>" in html for name in getattr(made.plan(), step).names)
        assert f"{told[step]['dagster/row_count']:,} rows" in html
