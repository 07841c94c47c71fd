"""The drift step: quiet before the first bundle, a table and a page after, and a failed check where factors moved."""

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import drift_history, names
from assets.drift_rows import watched
from assets.layout import layout_of
from tests.assets.conftest import SMALL, Pipeline

FACTORS = ["momentum", "range", "volume_ratio", "momentum_rank", "smooth_rank", "change"]
MOVED = FACTORS[:3]
WATCH = ["drift.window_sessions=2", "drift.calibration_windows=6", "drift.sample_rows=500", "source.sessions=16"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("drift"), *SMALL, *WATCH)
    made.run("bars", "features", "factors")
    return made


def newest(made: Pipeline) -> list[str]:
    return made.partition_keys()[-1:]


def table_of(made: Pipeline) -> pl.DataFrame:
    return made.lake.scan("drift/5m").sort("session", "column").collect()


def rows_of(made: Pipeline, session: str) -> pl.DataFrame:
    return table_of(made).filter(pl.col("session") == date.fromisoformat(session))


def test_without_a_bundle_it_is_skipped_and_says_so(made: Pipeline) -> None:
    assert made.registry.champion("5m") is None
    run = made.run("drift", keys=newest(made))
    assert "no bundle exists yet" in run.metadata["drift"]["skipped"]
    check = run.checks[names.NO_DRIFT]
    assert check.passed
    assert "no bundle exists yet" in str(check.metadata["skipped"].value)


def test_every_session_after_training_is_compared_and_the_newest_is_reported(made: Pipeline) -> None:
    id = made.run("model").metadata["model"]["bundle"]
    run = made.run("drift")
    told, check = run.metadata["drift"], run.checks[names.NO_DRIFT]
    until = made.registry.manifest("5m", id)["spans"]["train"][1][:10]
    after = [key for key in made.partition_keys() if key > until]
    table = table_of(made)
    assert [str(day) for day in table["session"].unique().sort()] == after
    assert told["sessions compared anew"] == len(after)
    assert f"| {made.partition_keys()[0]} | – | the champion {id} was trained on it" in told["sessions"]
    assert (told["champion"], told["session"]) == (id, after[-1])
    assert told["columns compared"] == 1 + len(FACTORS)  # predictions too
    training = len(made.partition_keys()) - len(after)
    assert told["false alarms a session"] == pytest.approx(1 / (training // 2 + 1))
    assert check.passed
    assert check.metadata["drifted"].value == told["drifted"]
    page = Path(told["report file"])
    assert page.name == f"drift-{after[-1]}.html"
    for word in ("5m", "prediction", *FACTORS, id, "The check over time"):
        assert word in page.read_text()
    assert page.stat().st_size < 200_000
    assert (page.parent / "drift.html").is_file()


def test_predictions_are_held_against_what_the_same_bundle_says_of_its_training(made: Pipeline) -> None:
    bundle = made.registry.load("5m", made.registry.champion("5m").id)  # type: ignore[union-attr]
    first, last = (datetime.fromisoformat(stamp) for stamp in bundle.manifest["spans"]["train"])
    trained = made.table("factors").filter(pl.col("timestamp").is_between(first, last))
    said = bundle.predict_rows(trained.select(bundle.factors).to_numpy().astype(np.float32), "mlx")
    [then] = table_of(made).filter(pl.col("column") == "prediction")["then"].unique()
    assert then.to_list() == pytest.approx(np.quantile(said, drift_history.QUANTILES).tolist())


def test_an_unchanged_session_is_not_compared_again(made: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    version = made.lake.version("drift/5m")
    before = table_of(made)
    for name in [name for name in sys.modules if name.partition(".")[0] == "evidently"]:
        monkeypatch.setitem(sys.modules, name, None)  # whoever imports it fails
    again = made.run("drift").metadata["drift"]
    assert again["sessions compared anew"] == 0
    assert made.lake.version("drift/5m") == version
    assert table_of(made).equals(before)


def test_sessions_without_rows_do_not_hide_the_newest_that_has_some(made: Pipeline) -> None:
    """A partition by month spans sessions after the source's end."""
    keys, factors = made.partition_keys(), made.table("factors")
    try:
        made.lake.write("factors/5m", [factors.filter(pl.col("partition") != keys[-1])], keys, layout_of(made.plan()))
        told = made.run("drift", keys=keys[-2:]).metadata["drift"]
    finally:
        made.lake.write("factors/5m", [factors], keys, layout_of(made.plan()))
    assert told["session"] == keys[-2]
    assert f"| {keys[-1]} | – | no factor rows |" in told["sessions"]


def test_a_session_that_is_not_over_is_left_for_later(made: Pipeline) -> None:
    now, last = made.clock.now(), date.fromisoformat(newest(made)[0])
    try:
        made.clock.set(datetime(last.year, last.month, last.day, 16, tzinfo=UTC))
        told = made.run("drift", keys=newest(made)).metadata["drift"]
    finally:
        made.clock.set(now)
    assert "no session from" in told["skipped"]


def test_a_planted_shift_fails_the_check_names_the_worst_and_since_when(made: Pipeline) -> None:
    keys = made.partition_keys()
    table = made.table("factors")
    moved = pl.col("partition").is_in(keys[-2:])
    shifted = table.with_columns(pl.when(moved).then(pl.col(MOVED) * 3 + 1).otherwise(pl.col(MOVED)))
    made.lake.write("factors/5m", [shifted], keys, layout_of(made.plan()))
    quiet = rows_of(made, keys[-3])
    run = made.run("drift", keys=keys[-2:], values=["drift.severe_share=0.9"])
    loud, check = run.metadata["drift"], run.checks[names.NO_DRIFT]
    assert not check.passed
    assert (check.severity, check.blocking) == (dg.AssetCheckSeverity.WARN, False)
    assert 0.3 < loud["share drifted"] <= 0.9
    assert loud["sessions compared anew"] == 2
    assert set(str(check.metadata["worst"].value).split(", ")) <= {*FACTORS, "prediction"}
    assert str(check.metadata["report"].value).endswith(f"/reports/5m/drift-{keys[-1]}.html")
    assert "No longer looks like training" in (check.description or "")
    # Sessions before the shift are as they were.
    assert rows_of(made, keys[-3]).equals(quiet)
    assert not quiet["failed"].any()
    past = drift_history.history(made.plan(), made.lake, date.max, 50)
    assert drift_history.since(past)["momentum"] == date.fromisoformat(keys[-2])
    assert drift_history.newest(made.plan(), made.lake)["session"].unique().to_list() == [date.fromisoformat(keys[-1])]


def test_a_run_of_nothing_or_of_an_older_session_leaves_a_failed_check_failed(made: Pipeline) -> None:
    keys = made.partition_keys()
    older = made.run("drift", keys=keys[-3:-2])
    assert older.metadata["drift"]["session"] == keys[-3]
    now, last = made.clock.now(), date.fromisoformat(keys[-1])
    try:
        made.clock.set(datetime(last.year, last.month, last.day, 16, tzinfo=UTC))  # it is not over
        nothing = made.run("drift", keys=newest(made))
    finally:
        made.clock.set(now)
    assert "no session from" in nothing.metadata["drift"]["skipped"]
    for run in (older, nothing):
        check = run.checks[names.NO_DRIFT]
        assert not check.passed
        assert check.metadata["session"].value == keys[-1]
        assert str(check.metadata["report"].value).endswith(f"drift-{keys[-1]}.html")


def test_more_than_the_severe_share_is_an_error(made: Pipeline) -> None:
    run = made.run("drift", keys=newest(made), values=["drift.severe_share=0.31"])
    assert run.checks[names.NO_DRIFT].severity == dg.AssetCheckSeverity.ERROR
    assert run.metadata["drift"]["sessions compared anew"] == 0


def test_it_compares_with_who_was_champion_when_the_session_closed(made: Pipeline) -> None:
    first = made.registry.champion("5m")
    assert first is not None
    now, keys = made.clock.now(), made.partition_keys()
    second = made.run("model", values=["model.n_estimators=11"]).metadata["model"]["bundle"]
    assert second != first.id
    for key, id in zip(keys[-2:], (second, first.id), strict=True):
        [session] = made.plan().grid.sessions(date.fromisoformat(key), date.fromisoformat(key))
        made.clock.set(session.close + timedelta(hours=1))
        made.registry.promote("5m", id, "by hand")
    made.clock.set(now)
    made.run("drift", keys=keys[-2:])
    # Nobody had been promoted by the close of the one but last: it is held against who serves now.
    assert [rows_of(made, key)["champion"][0] for key in keys[-2:]] == [first.id, second]


def test_columns_are_the_prediction_and_then_the_most_important(made: Pipeline) -> None:
    champion = made.registry.champion("5m")
    assert champion is not None
    bundle = made.registry.load("5m", champion.id)
    columns = watched(bundle, 4)
    assert (columns[0].name, columns[0].kind) == ("prediction", "prediction")
    gain = bundle.manifest["importance"]
    assert [one.name for one in columns[1:]] == sorted(FACTORS, key=lambda name: (-gain[name], name))[:3]
    assert sum(one.importance or 0.0 for one in watched(bundle, 99)) == pytest.approx(1)


def test_a_training_window_too_short_to_compare_with_is_skipped_and_says_so(made: Pipeline) -> None:
    wide = Pipeline(Path(made.lake.root).parent, *SMALL, *WATCH, "drift.window_sessions=7")
    run = wide.run("drift", keys=newest(wide))
    assert "two windows of drift.window_sessions need 14" in run.metadata["drift"]["skipped"]
    assert run.checks[names.NO_DRIFT].passed


def test_a_factor_that_is_no_longer_made_is_named(made: Pipeline) -> None:
    table = made.table("factors").drop("range")
    made.lake.write("factors/5m", [table], made.partition_keys(), layout_of(made.plan()))
    run = made.run("drift", keys=newest(made))
    assert "reads range, which the factor table no longer has" in run.metadata["drift"]["skipped"]
