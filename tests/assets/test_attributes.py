"""Attributes of symbols, from the universe's declaration to the factor table, the bundle and its predictions."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets import model as step
from assets.dataset import load
from conf.compose import ConfigError, compose
from quant.bundle import Bundle
from quant.expression import ExpressionError
from resources.lake import LakeError
from tests.assets.conftest import File, Make, Pipeline

SECTORS = {"S000": "tech", "S001": "energy", "S002": "tech", "S003": "energy"}
CHANGES = (
    "symbol,start,end,sector,cap\n"
    "S000,,2021-11-24,tech,10\nS000,2021-11-26,,energy,20\nS001,,,energy,30\nS002,,,tech,40\n"
)
FACTORS = ["in_sector: neutralize(momentum, by=sector)", "weighted: rank(momentum * cap)", "size: rank(cap)"]

Set = Callable[..., str]


@pytest.fixture
def factors(configs: Path) -> Set:
    """Write entries as a set of factors; the word that chooses it."""
    file = configs / "factors" / "mine.yaml"

    def write(*entries: str) -> str:
        file.write_text("\n".join(["# @package factors.mine", *entries]))
        return "factors=[mine]"

    yield write  # type: ignore[misc]
    file.unlink()


@pytest.fixture
def changes(tmp_path: Path) -> str:
    path = tmp_path / "sectors.csv"
    path.write_text(CHANGES)
    return f"universe.attributes='{path}'"


def inline(sectors: dict[str, str]) -> str:
    return f"universe.attributes={{sector: {{{', '.join(f'{symbol}: {name}' for symbol, name in sectors.items())}}}}}"


def neutral(features: pl.DataFrame, by: pl.Expr) -> pl.Series:
    """Polars' own: momentum less its mean over the rows of one time and group, missing where either is."""
    rows = features.with_columns(group=by, momentum=pl.col("momentum").cast(pl.Float64))
    group = pl.when(pl.col("momentum").is_not_null()).then("group")
    means = rows.group_by("timestamp", group=group).agg(mean=pl.col("momentum").mean()).drop_nulls("group")
    joined = rows.join(means, on=["timestamp", "group"], how="left", maintain_order="left")
    return (joined["momentum"] - joined["mean"]).rename("expected")


def test_neutralize_by_sector_is_what_a_group_by_gives_over_the_features_table(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set
) -> None:
    sectors = {symbol: SECTORS[symbol] for symbol in ("S000", "S001", "S002")}  # S003 has none
    made = pipeline(*file(market), inline(sectors), "features=[few]", factors(FACTORS[0]))
    told = made.run("bars", "features", "factors").metadata["factors"]
    table, rows = made.table("factors"), made.table("features")
    expected = neutral(rows, pl.col("symbol").replace_strict(sectors, default=None))
    assert table["in_sector"].is_null().equals(expected.is_null())
    assert expected.is_not_null().sum() > 1000
    np.testing.assert_allclose(table["in_sector"].to_numpy(), expected.to_numpy(), rtol=0, atol=1e-8)
    assert (table.filter(pl.col("in_sector").is_not_null())["symbol"] != "S003").all()
    assert told["symbols without sector"] == "1 of 4: S003"


def test_a_sector_that_changes_is_read_as_it_was_on_each_session(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set, changes: str
) -> None:
    made = pipeline(*file(market), changes, "features=[few]", factors(*FACTORS))
    made.run("bars", "features", "factors")
    table, rows = made.table("factors"), made.table("features")
    was = pl.when(pl.col("timestamp").dt.date() <= date(2021, 11, 24)).then(pl.lit("tech")).otherwise(pl.lit("energy"))
    by = pl.col("symbol").replace_strict({**SECTORS, "S000": None, "S003": None}, default=None)
    expected = neutral(rows, pl.when(pl.col("symbol") == "S000").then(was).otherwise(by))
    np.testing.assert_allclose(table["in_sector"].to_numpy(), expected.to_numpy(), rtol=0, atol=1e-8)
    # The same file without what came later says the same of the days before.
    upto = pl.col("timestamp").dt.date() <= date(2021, 11, 24)
    early = pipeline(*file(market), inline({"S000": "tech", "S001": "energy", "S002": "tech"}),
                     "features=[few]", factors(FACTORS[0]))  # fmt: skip
    early.run("bars", "features", "factors")
    assert early.table("factors").filter(upto)["in_sector"].equals(table.filter(upto)["in_sector"])
    assert not early.table("factors").filter(~upto)["in_sector"].equals(table.filter(~upto)["in_sector"])


def test_a_number_is_ranked_among_the_symbols_that_have_a_bar(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set, changes: str
) -> None:
    made = pipeline(*file(market), changes, "features=[few]", factors(*FACTORS))
    made.run("bars", "features", "factors")
    size = made.table("factors").select("symbol", "timestamp", "size")
    expected = (
        size.filter(pl.col("symbol") != "S003")
        .with_columns(expected=(pl.col("symbol").rank() / pl.len()).over("timestamp").cast(pl.Float32))
    )  # fmt: skip
    assert expected["size"].equals(expected["expected"])  # caps grow with the names
    assert expected["expected"].n_unique() > 3  # some sections lack a symbol
    assert size.filter(symbol="S003")["size"].null_count() == size.filter(symbol="S003").height


def predicted(made: Pipeline) -> tuple[Bundle, pl.DataFrame, np.ndarray]:
    """The newest bundle as the service loads it, and the factor rows it makes of the bars table."""
    [id] = made.registry.bundles("5m")
    bundle = made.registry.load("5m", id)
    keys, X = bundle.recipe.rows(made.table("bars").drop("partition"))
    return bundle, keys, X


def equal_bits(made: Pipeline, keys: pl.DataFrame, X: np.ndarray) -> None:
    table = keys.join(made.table("factors"), on=["symbol", "timestamp"], how="left", maintain_order="left")
    expected = table.select(list(made.plan().factor_entries)).to_numpy().astype(np.float32)
    assert len(X) > 100
    assert np.isfinite(X).any(axis=0).all()
    same = X.view(np.int32) == np.ascontiguousarray(expected).view(np.int32)
    assert (same | (np.isnan(X) & np.isnan(expected))).all()


def test_a_bundle_makes_the_rows_of_the_pipeline_with_its_own_attributes(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set, changes: str, tmp_path: Path
) -> None:
    words = [*file(market), changes, "features=[few]", factors(*FACTORS, "momentum: momentum", "spread: range")]
    made = pipeline(*words, "model.n_estimators=5", "model.min_data_in_leaf=20")
    made.run("bars", "features", "factors", "drift", "model")
    (tmp_path / "sectors.csv").unlink()  # a service has no such file
    bundle, keys, X = predicted(made)
    equal_bits(made, keys, X)
    bundle.verify()
    assert set(bundle.recipe.attributes) == {"sector", "cap"}
    assert bundle.recipe.attributes["sector"].categories == ("energy", "tech")
    assert not {"sector", "cap"} & {*bundle.columns}  # a client does not send them
    bars = made.table("bars").drop("partition", "known_at", "source")
    newest = bundle.predict_bars(bars, last=1)
    assert newest["prediction"].to_numpy().tobytes() == bundle.predict_rows(X[-newest.height :]).tobytes()


def test_attributes_that_are_read_make_another_bundle_and_others_do_not(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set, changes: str, tmp_path: Path
) -> None:
    words = [*file(market), changes, "features=[few]", factors(FACTORS[0], "momentum: momentum")]
    made = pipeline(*words)
    made.run("bars", "features", "factors")
    data = load(made.plan(), made.lake)
    told = step.digests_of(made.plan(), data)
    for old, new, differ in (("40", "41", set()), ("S002,,,tech", "S002,,,retail", {"content"})):
        (tmp_path / "sectors.csv").write_text(CHANGES.replace(old, new))
        changed = step.digests_of(made.plan(), data)
        assert {name for name in told if told[name] != changed[name]} == differ


def test_rows_of_other_codes_are_not_mixed_into_a_table_that_passes_codes_on(
    pipeline: Make, file: File, market: pl.DataFrame, factors: Set, changes: str, tmp_path: Path
) -> None:
    words = [*file(market), changes, "features=[few]"]
    grouped, passing = pipeline(*words, factors(FACTORS[0])), None
    grouped.run("bars", "features", "factors")
    keys = grouped.partition_keys()
    (tmp_path / "sectors.csv").write_text(CHANGES + "S003,,,autos,50\n")  # every other code moves by one
    grouped.run("factors", keys=keys[-1:])
    (tmp_path / "sectors.csv").write_text(CHANGES)
    passing = pipeline(*words, factors("code: sector", "momentum: momentum"))
    passing.run("bars", "features", "factors")
    assert passing.table("factors").filter(symbol="S002")["code"].unique().to_list() == [1]
    (tmp_path / "sectors.csv").write_text(CHANGES + "S003,,,autos,50\n")
    with pytest.raises(LakeError, match="categories was"):
        passing.run("factors", keys=keys[-1:])


def test_an_expression_that_names_an_undeclared_attribute_fails_at_load(
    file: File, market: pl.DataFrame, factors: Set, pipeline: Make
) -> None:
    words = [*file(market), "features=[few]", factors("in_sector: neutralize(momentum, by=sector)")]
    with pytest.raises(ExpressionError, match=r"factors/mine\.yaml: in_sector, column 25: unknown name sector: no col"):
        pipeline(*words)
    near = r"factors/mine\.yaml: in_sector, column 25: unknown name sector; did you mean sectors\?"
    with pytest.raises(ExpressionError, match=near):
        pipeline(*words, "universe.attributes={sectors: {S000: tech}}")


def test_an_unknown_name_is_told_what_there_is_and_how_it_would_be_declared(
    file: File, market: pl.DataFrame, factors: Set, pipeline: Make
) -> None:
    bars = market.with_columns(vwap="close")
    words = [*file(bars), "features=[few]", factors("follow: mean(signal, 3)"), "source.extras=[vwap]"]
    with pytest.raises(ExpressionError) as caught:
        pipeline(*words, "universe.attributes={sector: {S000: tech}}")
    text = str(caught.value)
    assert "factors/mine.yaml: follow, column 6: unknown name signal" in text
    assert "There are the columns open, high, low, close, volume," in text
    assert " raw_volume, vwap, minute_of_session, " in text
    assert (
        "; attributes: sector. A further column of the source is declared with source.extras=[signal], one that" in text
    )
    assert "that follows from the others with source.derived.signal=<expression>, what is known" in text
    assert text.endswith("what is known of a symbol with universe.attributes")


def test_a_name_stands_for_one_thing(file: File, market: pl.DataFrame, pipeline: Make) -> None:
    with pytest.raises(ConfigError, match=r"universe\.attributes declares close, which is a column of the bars"):
        pipeline(*file(market), "universe.attributes={close: {S000: 1}}")
    with pytest.raises(ConfigError, match=r"universe\.attributes declares vwap, which is a column of the bars"):
        pipeline(
            *file(market.with_columns(vwap="close")), "source.extras=[vwap]", "universe.attributes={vwap: {S000: 1}}"
        )
    with pytest.raises(ExpressionError, match=r"few\.yaml: momentum: momentum is already the name of an input"):
        pipeline(*file(market), "universe.attributes={momentum: {S000: 1}}")


def test_the_demo_universe_has_a_sector_for_the_factors_that_need_one(pipeline: Make) -> None:
    words = ["source.sessions=6", "source.symbols=20", "features=[technical]", "factors=[sector]"]
    made = pipeline(*words)
    told = made.run("bars", "features", "factors").metadata["factors"]
    assert told["columns without a value"] == "none"
    assert "symbols without sector" not in told
    every = compose(["horizon=glob(*)", "factors=[pass_through,cross_section,sector]"])
    assert all(len(set(horizon.universe.attributes["sector"].values())) == 5 for horizon in every.values())


@pytest.mark.slow
def test_alpha101_s_industries_run_from_bars_to_a_bundle_that_serves_the_same(
    pipeline: Make, file: File, tmp_path: Path
) -> None:
    """The symbols' industries and market values come from a file, vwap from the bars."""
    made = pipeline("source.sessions=14", "source.symbols=12", "source.gap_rate=0.01")
    made.run("bars")
    bars = made.table("bars").drop("partition", "known_at", "source", "price_factor", "volume_factor")
    bars = bars.with_columns(vwap=(pl.col("high") + pl.col("low") + pl.col("close")) / 3)
    path = tmp_path / "industries.csv"
    symbols = [f"S{number:03d}" for number in range(12)]
    lines = [f"{s},{'ab'[i % 2]},{'abcd'[i % 4]},{i % 6},{1e9 * (i + 1)}" for i, s in enumerate(symbols)]
    path.write_text("\n".join(["symbol,sector,industry,subindustry,cap", *lines, "ELSE,z,z,9,1"]))
    small = ["model.n_estimators=5", "model.min_data_in_leaf=20", "model.min_coverage=0"]
    sets = ["features=[few]", "factors=[alpha101_industry]", "source.extras=[vwap]"]
    derived = ["features=[few]", "factors=[alpha101_industry]", "source.derived.vwap='(high + low + close) / 3'"]
    other = pipeline(*file(bars), f"universe.attributes='{path}'", *sets, *small)
    metadata = other.run("bars", "features", "factors", "drift", "model").metadata
    assert len(other.plan().factor_entries) == 19
    assert metadata["factors"]["columns without a value"] == "none"
    bundle, keys, X = predicted(other)
    equal_bits(other, keys, X)
    bundle.verify()
    manifest = json.loads(bundle.to_files()["manifest.json"])
    assert manifest["recipe"]["attributes"]["sector"]["categories"] == ["a", "b", "z"]
    assert {span[0] for span in manifest["recipe"]["attributes"]["sector"]["spans"]} == set(symbols)
    # The same column as a derived one of bars without it.
    again = pipeline(*file(bars.drop("vwap")), f"universe.attributes='{path}'", *derived, *small)
    again.run("bars", "features", "factors", "drift", "model")
    bundle, keys, Y = predicted(again)
    equal_bits(again, keys, Y)
    Bundle.from_files(bundle.to_files()).verify()
    assert "vwap" not in bundle.columns
    near = np.isclose(Y, X, rtol=1e-3, atol=1e-3, equal_nan=True)
    assert near.mean() > 0.999  # a rounding that breaks a tie moves a rank
