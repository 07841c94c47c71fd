"""The audit of a horizon's own sets on its own bars: clean ones are OK, a planted fault is named."""

import itertools
from pathlib import Path

import polars as pl
import pytest

from assets.audit import Audit
from assets.audit_parity import parity
from assets.plan import Plan
from conf.compose import compose
from conf.errors import ConfigError
from quant.audit import Finding, verdict
from quant.audit_columns import judge, scale
from quant.audit_laws import examine
from tests.assets.conftest import File, Make, Pipeline

STEPS = ("bars", "features", "factors")
PARITY = ("features: the table equals the bars", "factors: the table equals the bars")


def audit(made: Pipeline, *more: str) -> Audit:
    return Audit(Plan(compose([*made.words, *more])["5m"]), made.lake)


def tables(made: Pipeline, *more: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in parity(audit(made, *more), "tenor run horizon=5m")}


@pytest.fixture
def made(pipeline: Make) -> Pipeline:
    pipe = pipeline("source.sessions=6")
    pipe.run(*STEPS)
    return pipe


def test_a_clean_pipeline_is_ok(made: Pipeline) -> None:
    sample = audit(made)
    findings = [finding for subject in sample.subjects() for finding in examine(subject)]
    findings += [*parity(sample, "tenor run horizon=5m"), *judge(sample.columns())]
    assert verdict(findings).text == "OK", [finding for finding in findings if finding.status != "pass"]
    assert sample.stretches
    assert all(one[1] < other[0] for one, other in itertools.pairwise(sample.stretches))


def test_the_judged_columns_are_the_factor_table_beside_its_label(made: Pipeline) -> None:
    columns = audit(made).columns()
    stored = made.table("factors").rename({"timestamp": "time"})
    both = columns.rows.join(stored, on=["time", "symbol"], how="left", suffix="_stored")
    for name in columns.names:
        assert both[name].equals(both[f"{name}_stored"].alias(name), null_equal=True), name
    close = made.table("bars").sort("symbol", "timestamp").select("symbol", pl.col("timestamp").alias("time"), "close")
    assert columns.lookahead == 6
    # The label that has just become known is the label of six bars before.
    by_symbol = columns.rows.sort("symbol", "time").with_columns(was=pl.col("label").shift(6).over("symbol"))
    dense = close.group_by("symbol").len().filter(pl.col("len") == pl.col("len").max())["symbol"].to_list()
    checked = by_symbol.filter(pl.col("symbol").is_in(dense)).drop_nulls(["was", "past"])
    assert checked.height > 100
    assert (checked["was"] == checked["past"]).all()


def test_a_source_column_that_holds_the_next_return_is_named(
    pipeline: Make, file: File, market: pl.DataFrame, configs: Path
) -> None:
    following = pl.col("close").shift(-1).over("symbol") / pl.col("close") - 1
    words = file(market.sort("symbol", "timestamp").with_columns(peek=following.fill_null(0.0)))
    (configs / "features" / "leaky.yaml").write_text("# @package features.leaky\nmine: peek * 2\nbody: close / open\n")
    pipe = pipeline("features=[leaky]", "factors=[pass_through]", "source.extras=[peek]", *words)
    pipe.run(*STEPS)
    sample = audit(pipe)
    findings = [finding for subject in sample.subjects() for finding in examine(subject)]
    assert all(finding.status == "pass" for finding in findings)  # expressions cannot know what a column holds
    found = verdict(judge(sample.columns()))
    assert found.text == "look at this column: mine"
    assert "when each source column was known" in found.advice[0]


def test_another_expression_is_found_in_the_tables_written_before(made: Pipeline) -> None:
    found = tables(made, "++features.few.range='(high - low) / open'")
    features, factors = (found[check] for check in PARITY)
    assert (features.status, features.columns) == ("fail", ("range",))
    assert "the expressions or the code of range changed" in features.details[0]
    assert "tenor run horizon=5m" in features.advice
    assert factors.columns == ("range",)
    assert found["serving: the last bar equals the batch"].status == "pass"


def test_another_factor_leaves_the_features_alone(made: Pipeline) -> None:
    found = tables(made, "++factors.few.smooth_rank='mean(rank(volume_ratio), 5)'")
    assert found[PARITY[0]].status == "pass"
    assert (found[PARITY[1]].check, found[PARITY[1]].columns) == (PARITY[1], ("smooth_rank",))


def test_a_new_entry_is_missing_from_the_tables(made: Pipeline) -> None:
    found = tables(made, "++features.few.body='close / open'")
    assert "it lacks body" in found[PARITY[0]].details[0]


def test_revised_bars_are_found_with_their_symbol(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    pipe = pipeline(*file(market))
    pipe.run(*STEPS)
    symbol, stamp = market["symbol"].min(), market["timestamp"].sort()[-40]
    hit = (pl.col("symbol") == symbol) & (pl.col("timestamp") == stamp)
    file(market.with_columns(pl.when(hit).then(pl.col("high") * 1.01).otherwise(pl.col("high")).alias("high")))
    pipe.run("bars")
    found = tables(pipe)[PARITY[0]]
    assert found.status == "fail"
    assert f"bars were revised since it was written: {symbol} from {stamp:%Y-%m-%d %H:%M}Z" in found.details[0]


def test_bars_that_came_later_have_no_row(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    pipe = pipeline(*file(market))
    pipe.run("bars")
    pipe.run("features", "factors", keys=pipe.partition_keys()[:-1])
    found = tables(pipe)
    for check in PARITY:
        assert found[check].status == "fail"
        assert "bars have no row" in found[check].number
        assert "bars came or went" in found[check].details[0]


def test_tables_that_are_not_there_yet_are_skipped_and_the_rest_is_done(pipeline: Make) -> None:
    pipe = pipeline()
    pipe.run("bars")
    found = tables(pipe)
    assert [finding.status for finding in found.values()] == ["skip", "skip", "pass"]
    assert verdict(found.values()).text == "OK, with 2 of 3 checks skipped"
    assert verdict(found.values()).advice == ("`tenor run horizon=5m` makes the tables",)


def test_a_column_in_units_of_the_price_is_found_and_a_ratio_to_another_price_is_not(
    pipeline: Make, file: File, market: pl.DataFrame, configs: Path
) -> None:
    words = file(market.with_columns(vwap=(pl.col("high") + pl.col("low")) / 2))
    text = "# @package features.units\nrange: high - low\nto_vwap: close / vwap\ntraded: mean(volume, 3)\n"
    (configs / "features" / "units.yaml").write_text(text)
    pipe = pipeline("features=[units]", "factors=[pass_through]", "source.extras=[vwap]", *words)
    pipe.run("bars")
    sample = audit(pipe)
    found = scale(sample.columns(), *sample.doubled())
    assert [detail.partition("?")[0] for detail in found.details] == [
        "range: divide by the price",
        "traded: divide by the volume",
    ]


def test_bars_without_a_column_that_the_sets_read_now_are_told(pipeline: Make, file: File, market) -> None:
    words = file(market.with_columns(spread=pl.lit(0.01)))
    pipe = pipeline(*words)
    pipe.run("bars")
    with pytest.raises(ConfigError, match="written without the column spread"):
        audit(pipe, "source.extras=[spread]", "++features.few.cost='spread / close'")


def test_bars_that_do_not_reach_the_look_back_are_told(pipeline: Make) -> None:
    pipe = pipeline("++features.few.long='mean(close, 2000) / close'")
    pipe.run("bars")
    with pytest.raises(ConfigError, match=r"look back 2002: not one session"):
        audit(pipe).sessions  # noqa: B018
