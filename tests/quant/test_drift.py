"""Drift on market-like data: volatility that clusters, changes of a known size, and the rate of false alarms."""

import math
import re
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from quant import drift, drift_evidently
from quant.false_alarms import rate_of

COLUMNS = [f"factor_{number}" for number in range(8)]
SETTINGS: dict[str, Any] = {"method": "wasserstein", "sample_rows": 2000}
WINDOWS: dict[str, Any] = {"window_sessions": 5, "windows": 12}


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
def calibration(reference: pl.DataFrame) -> drift.Calibration:
    return drift.calibrate(reference, COLUMNS, **WINDOWS, **SETTINGS)


def report(
    current: pl.DataFrame, reference: pl.DataFrame, calibration: drift.Calibration, **changed: Any
) -> drift.Drift:
    settings = {**SETTINGS, **changed}
    compared = drift.compare(current, reference, calibration.columns, **settings)
    return drift.judge(compared, calibration, rate=0.05, share=0.3)


def test_a_window_of_training_itself_does_not_drift(reference: pl.DataFrame, calibration: drift.Calibration) -> None:
    middle = reference.filter(pl.col("session").is_between(date(2024, 2, 20), date(2024, 2, 24)))
    made = report(middle, reference.join(middle, on="session", how="anti"), calibration)
    assert not made.drifted
    assert made.reached <= made.level
    assert [column.name for column in made.columns] == COLUMNS


@pytest.mark.parametrize("changed", [{"scale": 3.0}, {"shift": 1.5}])
def test_a_change_of_scale_or_level_drifts(
    reference: pl.DataFrame, calibration: drift.Calibration, changed: dict[str, float]
) -> None:
    made = report(market(5, seed=2, **changed), reference, calibration)
    assert made.drifted
    assert made.share == 1.0
    assert made.reached > made.level
    assert all(column.statistic > column.threshold for column in made.columns)


@pytest.mark.parametrize("method", ["wasserstein", "jensenshannon", "psi", "kl_div", "hellinger", "ed"])
def test_windows_are_measured_as_the_present_one_is(reference: pl.DataFrame, method: str) -> None:
    """Two windows that are the two halves of the reference: each is the other's report."""
    columns = COLUMNS[:2]
    settings = {"method": method, "sample_rows": 10**6}
    made = drift.calibrate(reference, columns, window_sessions=60, windows=2, **settings)
    first = pl.col("session") <= date(2024, 2, 29)
    for row, now in enumerate((first, ~first)):
        half, rest = reference.filter(now), reference.filter(~now)
        assert made.statistics[row] == pytest.approx(drift.compare(half, rest, columns, **settings).statistics)
    assert (made.windows, made.independent, made.sessions) == (2, 2, 120)


def made_of(statistics: np.ndarray, independent: int | None = None) -> drift.Calibration:
    columns = tuple(f"c{number}" for number in range(statistics.shape[1]))
    return drift.Calibration(columns, statistics, independent or len(statistics), 5 * len(statistics))


def judged(found: np.ndarray, calibration: drift.Calibration, rate: float, share: float = 0.3) -> drift.Drift:
    return drift.judge(drift.Compared(found, (1, 1), (1, 1)), calibration, rate=rate, share=share)


@pytest.mark.parametrize(("columns", "share"), [(1, 0.0), (6, 0.3), (30, 0.3)])
@pytest.mark.parametrize(("windows", "rate"), [(30, 0.01), (39, 0.05), (50, 0.2)])
def test_the_whole_check_alarms_falsely_at_the_rate_that_it_states(
    columns: int, share: float, windows: int, rate: float
) -> None:
    """Exchangeable windows whose columns move together, as a market's do: no alarm is more than luck."""
    random = np.random.default_rng(columns * windows)
    draws, alarms = 1000, 0
    for _ in range(draws):
        common = random.normal(size=(windows + 1, 1))
        statistics = np.exp(0.7 * common + 0.7 * random.normal(size=(windows + 1, columns)))
        made = judged(statistics[-1], made_of(statistics[:-1]), rate, share)
        alarms += made.drifted
    low, high = stats.binom.interval(0.999, draws, made.rate)
    assert low <= alarms <= high
    assert made.rate == rate_of(windows, rate)[0]


def test_a_column_that_windows_of_training_lack_makes_no_alarms() -> None:
    """A factor whose look-back reaches past the first half of them; it is there now."""
    random = np.random.default_rng(8)
    draws, alarms = 1000, 0
    for _ in range(draws):
        statistics = np.exp(random.normal(size=(41, 10)))
        windows = statistics[:-1].copy()
        windows[:20, :3] = np.nan
        made = judged(statistics[-1], made_of(windows), rate=0.1, share=0.3)
        alarms += made.drifted
    assert alarms <= stats.binom.ppf(0.999, draws, made.rate)


def test_the_level_and_thresholds_are_those_of_a_hand_calculation() -> None:
    """Three columns, of which one may drift: the level is the second highest z of the worst window but one."""
    statistics = np.exp(np.random.default_rng(4).normal(size=(19, 3)))
    made = judged(statistics[0] * 100, made_of(statistics), rate=0.1, share=0.34)
    z = stats.zscore(np.log(statistics), axis=0, ddof=1)
    second = np.sort([sorted(row)[-2] for row in z])
    assert made.rate == 2 / 20
    assert made.level == pytest.approx(second[-2])
    logs = np.log(statistics)
    edges = np.exp(logs.mean(axis=0) + made.level * logs.std(axis=0, ddof=1))
    assert [column.threshold for column in made.columns] == pytest.approx(edges)
    assert made.drifted
    one = statistics[0].copy()
    one[0] = 1e9  # a single column that drifts is within the allowed share
    quiet = judged(np.where(np.arange(3) == 0, one, 1e-9), made_of(statistics), rate=0.1, share=0.34)
    assert [column.drifted for column in quiet.columns] == [True, False, False]
    assert not quiet.drifted


def test_windows_that_overlap_count_as_few_as_do_not(reference: pl.DataFrame, calibration: drift.Calibration) -> None:
    assert (calibration.windows, calibration.independent) == (12, 12)  # twelve, spread over 24 that would fit
    many = drift.calibrate(reference, COLUMNS[:1], window_sessions=5, windows=1000, **SETTINGS)
    assert (many.windows, many.independent) == (116, 24)
    made = report(reference.head(300), reference, many)
    assert made.rate == pytest.approx(1 / 25)


def test_a_constant_column_does_not_drift_until_it_changes(reference: pl.DataFrame) -> None:
    constant = reference.with_columns(factor_0=pl.lit(1.0))
    made = drift.calibrate(constant, ["factor_0"], **WINDOWS, **SETTINGS)
    calm = report(constant.head(300), constant, made)
    assert not calm.columns[0].drifted
    assert not calm.drifted
    moved = constant.head(300).with_columns(factor_0=pl.lit(2.0))
    assert report(moved, constant, made).drifted


def test_a_column_that_ends_drifts_and_one_that_never_was_is_named_with_the_reason(reference: pl.DataFrame) -> None:
    never = reference.with_columns(factor_2=pl.lit(float("nan")), factor_3=pl.lit(None, pl.Float32))
    first = pl.when(pl.col("session") < date(2024, 1, 3)).then(1.0)
    made = drift.calibrate(never.with_columns(factor_4=first), COLUMNS, **WINDOWS, **SETTINGS)
    now = market(5, seed=4).with_columns(factor_1=pl.lit(None, pl.Float32))
    found = report(now, never.with_columns(factor_4=first), made)
    assert {column.name: column.drifted for column in found.columns}["factor_1"]
    assert math.isinf(found.columns[1].statistic)
    assert found.skipped["factor_2"] == found.skipped["factor_3"] == "it had no values in the reference"
    assert "no threshold" in found.skipped["factor_4"]
    assert [column.name for column in found.columns] == [name for name in COLUMNS if name not in found.skipped]
    nothing = drift.calibrate(never, ["factor_2"], **WINDOWS, **SETTINGS)
    with pytest.raises(ValueError, match="none of 1 columns can be compared"):
        report(now, never, nothing)


def test_missing_values_are_left_out_not_counted_as_a_value(
    reference: pl.DataFrame, calibration: drift.Calibration
) -> None:
    now = market(5, seed=5)
    holes = pl.concat([now, now.with_columns(pl.lit(None, pl.Float32).alias(name) for name in COLUMNS)])
    whole, holed = (report(frame, reference, calibration, sample_rows=10**6) for frame in (now, holes))
    assert [one.statistic for one in holed.columns] == pytest.approx([one.statistic for one in whole.columns])


def test_the_same_rows_give_the_same_numbers_and_say_how_many_they_are(reference: pl.DataFrame) -> None:
    now = market(5, seed=6)
    first, second = (drift.compare(now, reference, COLUMNS, method="ed", sample_rows=200) for _ in range(2))
    assert (first.statistics == second.statistics).all()
    assert first.current_rows == (200, 300)
    assert first.reference_rows == (200, 7200)


def test_evidently_s_page_says_the_same_and_needs_nothing_from_the_network(
    reference: pl.DataFrame, calibration: drift.Calibration
) -> None:
    now = market(5, seed=7, scale=3.0)
    found = report(now, reference, calibration, sample_rows=10**6)
    thresholds = {column.name: column.threshold for column in found.columns}
    html = drift_evidently.page(now, reference, thresholds, method="wasserstein", share=0.3, sample_rows=10**6)
    assert "factor_0" in html
    assert f"{found.columns[0].statistic:.6f}"[:6] in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=\s*[\"']?https?:", html)


def test_too_short_a_reference_says_so(reference: pl.DataFrame) -> None:
    short = reference.filter(pl.col("session") < date(2024, 1, 10))
    with pytest.raises(ValueError, match=r"has 9 sessions, too few for two windows of 5: lower drift.window_sessions"):
        drift.calibrate(short, COLUMNS, **WINDOWS, **SETTINGS)
