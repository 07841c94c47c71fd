"""Drift on market-like data: volatility that clusters, and changes of a known size."""

import re
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.spatial import distance

from quant import drift

METHODS = ("wasserstein", "jensenshannon", "psi", "kl_div", "hellinger", "ed")
COLUMNS = [f"factor_{number}" for number in range(8)]
SETTINGS = {"method": "wasserstein", "sample_rows": 2000}
WINDOWS = {"session": "session", "window_sessions": 5, "windows": 12, "quantile": 0.99}


def market(sessions: int, seed: int, bars: int = 60, scale: float = 1.0, shift: float = 0.0) -> pl.DataFrame:
    """Columns whose volatility is a slow random walk over sessions, as returns have it."""
    random = np.random.default_rng(seed)
    walk = np.exp(0.15 * random.normal(size=(sessions, 1, len(COLUMNS))).cumsum(axis=0) * 0.3)
    values = random.normal(size=(sessions, bars, len(COLUMNS))) * walk * scale + shift
    frame = pl.DataFrame(values.reshape(-1, len(COLUMNS)).astype(np.float32), schema=COLUMNS)
    days = [date(2024, 1, 1) + timedelta(days=row // bars) for row in range(frame.height)]
    return frame.with_columns(session=pl.Series(days))


@pytest.fixture(scope="module")
def reference() -> pl.DataFrame:
    return market(120, seed=1)


@pytest.fixture(scope="module")
def thresholds(reference: pl.DataFrame) -> dict[str, float]:
    return drift.calibrate(reference, COLUMNS, **WINDOWS, **SETTINGS)


def report(
    current: pl.DataFrame, reference: pl.DataFrame, thresholds: dict[str, float], **changed: object
) -> drift.Drift:
    settings = {**SETTINGS, "thresholds": thresholds, "share": 0.3, "max_columns": 30, **changed}
    return drift.report(current, reference, COLUMNS, **settings)


def test_a_window_of_training_itself_does_not_drift(reference: pl.DataFrame, thresholds: dict[str, float]) -> None:
    middle = reference.filter(pl.col("session").is_between(date(2024, 2, 20), date(2024, 2, 24)))
    made = report(middle, reference.join(middle, on="session", how="anti"), thresholds)
    assert not made.drifted
    assert [column.name for column in made.columns] == COLUMNS


@pytest.mark.parametrize("changed", [{"scale": 3.0}, {"shift": 1.5}])
def test_a_change_of_scale_or_level_drifts(
    reference: pl.DataFrame, thresholds: dict[str, float], changed: dict[str, float]
) -> None:
    made = report(market(5, seed=2, **changed), reference, thresholds)
    assert made.drifted
    assert made.share == 1.0
    assert all(column.statistic >= column.threshold for column in made.columns)


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_are_the_report_s_own_statistic(reference: pl.DataFrame, method: str) -> None:
    """With two windows and quantile 1, the threshold is what the worse window scores in a report."""
    settings = {**WINDOWS, "windows": 2, "window_sessions": 60, "quantile": 1.0, "method": method}
    columns = COLUMNS[:2]
    calibrated = drift.calibrate(reference, columns, **settings, sample_rows=10**6)
    first = pl.col("session") <= date(2024, 2, 29)
    fixed = {"thresholds": dict.fromkeys(columns, 1.0), "share": 0.5, "sample_rows": 10**6, "max_columns": 2}
    scores = [
        drift.report(reference.filter(now), reference.filter(~now), columns, method=method, **fixed).columns
        for now in (first, ~first)
    ]
    for place, name in enumerate(columns):
        assert calibrated[name] == pytest.approx(max(score[place].statistic for score in scores), rel=1e-12)


def test_the_statistics_are_scipy_s(reference: pl.DataFrame) -> None:
    now, name = market(5, seed=3), COLUMNS[0]
    one, other = reference[name].to_numpy().astype(float), now[name].to_numpy().astype(float)
    bins = np.histogram_bin_edges(np.concatenate([one, other]), "sturges")
    shares = [np.histogram(values, bins)[0] / len(values) for values in (one, other)]
    expected = {
        "wasserstein": stats.wasserstein_distance(one, other) / one.std(),
        "jensenshannon": distance.jensenshannon(*shares),
    }
    for method, value in expected.items():
        made = report(now, reference, dict.fromkeys(COLUMNS, 1.0), method=method, sample_rows=10**6, max_columns=1)
        assert made.columns[0].statistic == pytest.approx(value, rel=1e-9)


def test_a_constant_column_does_not_drift_until_it_changes(reference: pl.DataFrame) -> None:
    constant = reference.with_columns(factor_0=pl.lit(1.0))
    thresholds = drift.calibrate(constant, ["factor_0"], **WINDOWS, **SETTINGS)
    calm = report(constant.head(300), constant, thresholds, max_columns=1)
    assert not calm.columns[0].drifted
    moved = constant.head(300).with_columns(factor_0=pl.lit(2.0))
    assert report(moved, constant, thresholds, max_columns=1).columns[0].drifted


def test_columns_that_cannot_be_compared_are_named_with_the_reason(
    reference: pl.DataFrame, thresholds: dict[str, float]
) -> None:
    now = market(5, seed=4).with_columns(factor_1=pl.lit(None, pl.Float32), factor_2=pl.lit(float("nan")))
    known = {name: value for name, value in thresholds.items() if name != "factor_3"}
    made = report(now, reference, known, max_columns=3)
    assert [column.name for column in made.columns] == ["factor_0", "factor_4", "factor_5"]
    assert made.skipped["factor_1"] == made.skipped["factor_2"] == "it has no values now, or had none in the reference"
    assert "no threshold" in made.skipped["factor_3"]
    assert made.skipped["factor_6"] == "only the first 3 columns are compared"
    with pytest.raises(ValueError, match="none of 8 columns can be compared"):
        report(now, reference, {})


def test_missing_values_are_left_out_not_counted_as_a_value(
    reference: pl.DataFrame, thresholds: dict[str, float]
) -> None:
    now = market(5, seed=5)
    holes = pl.concat([now, now.with_columns(pl.lit(None, pl.Float32).alias(name) for name in COLUMNS)])
    settings = {"sample_rows": 10**6}
    whole, holed = (
        report(now, reference, thresholds, **settings),
        report(holes, reference, thresholds, **settings),
    )
    assert [one.statistic for one in holed.columns] == pytest.approx([one.statistic for one in whole.columns])


def test_the_same_rows_give_the_same_numbers_and_say_how_many_they_are(
    reference: pl.DataFrame, thresholds: dict[str, float]
) -> None:
    now = market(5, seed=6)
    first, second = (report(now, reference, thresholds, sample_rows=200) for _ in range(2))
    assert first.columns == second.columns
    assert first.current_rows == (200, 300)
    assert first.reference_rows == (200, 7200)


def test_the_page_needs_nothing_from_the_network(reference: pl.DataFrame, thresholds: dict[str, float]) -> None:
    html = report(market(5, seed=7), reference, thresholds).html
    assert "factor_0" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=\s*[\"']?https?:", html)


def test_too_short_a_reference_says_so(reference: pl.DataFrame) -> None:
    short = reference.filter(pl.col("session") < date(2024, 1, 10))
    with pytest.raises(ValueError, match=r"has 9 sessions, too few for two windows of 5: lower drift.window_sessions"):
        drift.calibrate(short, COLUMNS, **WINDOWS, **SETTINGS)
