"""A label shifted into the features: an expression that does it does not load, a source column that does is named."""

from pathlib import Path

import polars as pl
import pytest

from assets.audit import Audit
from conf.compose import compose
from conf.errors import ConfigError
from defs.cli import main
from defs.graph import build
from quant.audit_columns import too_good
from quant.expression import ExpressionError
from tests.assets.conftest import File, Make

REFRESH = ("bars", "features", "factors")


@pytest.mark.parametrize("group", ["features", "factors"])
@pytest.mark.parametrize(
    "expression",
    [
        "lead(close, 6) / lead(open, 1) - 1",  # the label itself
        "lag(lead(close, 6), 5)",  # a look-back does not hide what is left of the look-ahead
        "mean(lead(close, 1), 3) / close",
    ],
)
def test_an_expression_that_looks_ahead_does_not_load_in_features_or_factors(
    configs: Path, tmp_path: Path, group: str, expression: str
) -> None:
    file = configs / group / "peeking.yaml"
    file.write_text(f"# @package {group}.peeking\ntip: {expression}\n")
    try:
        sets = {"features": "features=[few]", "factors": "factors=[few]", group: f"{group}=[few,peeking]"}
        with pytest.raises((ExpressionError, ConfigError), match="tip") as refused:
            build(compose(["horizon=5m", *sets.values(), f"store.root='{tmp_path}'"]))
        assert "peeking.yaml" in str(refused.value)
        assert "lead" in str(refused.value)
    finally:
        file.unlink()


def test_a_source_column_that_holds_the_label_is_named_by_verify_and_no_clean_column_is(
    pipeline: Make, file: File, market: pl.DataFrame, configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in an expression can tell when a column was known: there the numbers have to."""
    label = pl.col("close").shift(-6).over("symbol") / pl.col("open").shift(-1).over("symbol") - 1
    words = file(market.sort("symbol", "timestamp").with_columns(vendor_score=label.fill_null(0.0)))
    planted = configs / "features" / "vendor.yaml"
    planted.write_text("# @package features.vendor\nvendor: mean(vendor_score, 2)\nbody: close / open\n")
    try:
        words = ["features=[vendor]", "factors=[pass_through]", "source.extras=[vendor_score]", *words]
        made = pipeline(*words)
        made.run(*REFRESH)
        found = too_good(Audit(made.plan(), made.lake).columns())
        capsys.readouterr()
        status = main(["verify", *made.words])
        out = capsys.readouterr().out
    finally:
        planted.unlink()
    assert (found.status, [line.partition(":")[0] for line in found.details]) == ("warn", ["vendor"])
    assert status == 0
    assert "look at this column: vendor" in out


def test_the_sets_that_are_there_by_default_hold_no_such_column(pipeline: Make) -> None:
    made = pipeline("source.sessions=6")
    made.run(*REFRESH)
    assert too_good(Audit(made.plan(), made.lake).columns()).status == "pass"
