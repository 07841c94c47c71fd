"""The command line: what is wrong is said in one line, what is asked for is done, the exit status tells."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from conf.compose import compose
from conf.schema import Horizon
from defs.cli import COMMANDS, main
from quant.grid import CalendarSpec, Grid
from resources.database import Database
from resources.settings import OVERRIDES_VARIABLE
from resources.sources.synthetic import SyntheticSource
from tests.defs.conftest import Tenor

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run a command in this process: its exit status, what it printed, what it complained of."""
    monkeypatch.setenv(OVERRIDES_VARIABLE, "")  # `tenor run` sets it: taken back at the end

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        told = capfd.readouterr()
        return status, told.out, told.err

    return run


@pytest.mark.parametrize("command", ["run", "up", "config", "verify", "validate", "models", "status", "serve"])
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("modle.num_leaves=3", ["command line", "modle", "did you mean model?"]),
        ("source.sesions=3", ["command line", "source.sesions (3)", "did you mean source.sessions?"]),
        ("horizon=5", ["command line", "horizon is 5", "did you mean 5m?", "1m, 5m, 15m, 30m, 1h, 1d"]),
        ("source.seed=1,2", ["command line", "source.seed=1,2 is a sweep", "Only horizon takes several values"]),
    ],
)
def test_a_wrong_word_ends_any_command_with_status_2_and_one_line(
    say: Say, command: str, word: str, told: list[str]
) -> None:
    status, out, err = say(command, word)
    assert (status, out) == (2, "")
    assert err.startswith("tenor: ")
    assert err.count("\n") == 1
    for part in told:
        assert part in err


def test_a_wrong_word_ends_the_process_with_status_2_and_no_traceback(tenor: Tenor) -> None:
    done = tenor("run", "horizon=5m", "model.num_leavs=63")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "model.num_leavs (63) is not a key; did you mean model.num_leaves?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mistake_in_a_file_names_the_file_and_its_line(say: Say, configs: Path) -> None:
    file = configs / "horizon" / "2h.yaml"
    file.write_text((configs / "horizon" / "1h.yaml").read_text().replace("partition: month", "partition: moth"))
    try:
        status, _, err = say("validate", "horizon=2h")
    finally:
        file.unlink()
    assert status == 2
    assert re.search(r"horizon/2h\.yaml:\d+: partition is moth.*did you mean month\?", err)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("lead(close, 1) / close", "lead"),
        ("meen(close, 3)", "mean"),
        ("clos / open", "close"),
        ("rank(close)", "rank"),
    ],
)
def test_a_feature_that_cannot_be_is_refused_before_anything_runs(
    say: Say, configs: Path, expression: str, told: str
) -> None:
    file = configs / "features" / "wrong.yaml"
    file.write_text(f"# @package features.wrong\nmine: {expression}\n")
    try:
        for command in ("validate", "run"):
            status, _, err = say(command, "horizon=5m", "features=[technical,wrong]", "source.sessions=3")
            assert status == 2
            assert "features/wrong.yaml" in err
            assert "mine" in err
            assert told in err
            assert "Traceback" not in err
    finally:
        file.unlink()


def test_features_lists_the_horizon_asked_for_and_not_the_one_that_it_reads(say: Say, configs: Path) -> None:
    file = configs / "features" / "slow.yaml"
    file.write_text('# @package features.slow\nslow: at("1h", close / open)\n')
    try:
        status, out, _ = say("features", "horizon=5m", "features=[slow]", "factors=[pass_through]")
    finally:
        file.unlink()
    assert status == 0
    assert "5m features: 1" in out
    assert "1h features" not in out


def test_a_mistake_stands_before_any_table(say: Say) -> None:
    status, out, err = say("features", "horizon=5m", "+features.technical.mine=clos")
    assert (status, out) == (2, "")
    assert "unknown name clos; did you mean close?" in err


@pytest.mark.parametrize("horizon", ["1m", "5m", "15m", "30m", "1h", "1d"])
def test_the_printed_config_is_the_config(say: Say, horizon: str) -> None:
    words = [f"horizon={horizon}", "model.num_leaves=63", "universe.symbols=[A,B]"]
    status, out, err = say("config", *words)
    assert (status, err) == (0, "")
    documents = {text.partition("\n")[0]: text for text in re.split(r"(?m)^# horizon ", out)[1:]}
    read = yaml.safe_load("# " + documents[horizon])
    assert read["model"]["num_leaves"] == 63
    assert Horizon.model_validate(read) == compose(words)[horizon]


def test_config_prints_the_horizons_that_are_resampled_too(say: Say) -> None:
    _, out, _ = say("config", "horizon=30m")
    assert re.findall(r"(?m)^# horizon (\S+)", out) == ["5m", "30m"]


def test_validate_says_what_is_valid(say: Say) -> None:
    status, out, err = say("validate")
    assert (status, err) == (0, "")
    assert "6 horizons are valid (1m, 5m, 15m, 30m, 1h, 1d)" in out


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_of_every_command_has_examples(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    assert "horizon=5m" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["model.num_leaves=3", "label.bars=3"])
def test_up_refuses_what_lives_for_one_run(say: Say, word: str) -> None:
    status, _, err = say("up", word)
    assert status == 2
    assert f"{word} lives for one run" in err


def test_cleaning_where_there_is_no_store_says_so(say: Say, tmp_path: Path) -> None:
    status, out, _ = say("clean", f"store.root='{tmp_path / 'none'}'")
    assert (status, out) == (0, f"nothing to delete: there is no {tmp_path / 'none'}\n")


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_glob_that_matches_nothing_is_told_with_its_path_and_no_traceback(
    say: Say, command: str, tmp_path: Path
) -> None:
    status, _, err = say(
        command, "horizon=5m", "source=parquet", f"source.path='{tmp_path}/no*.parquet'", f"store.root='{tmp_path}'"
    )
    assert status in (1, 2)
    assert f"{tmp_path}/no*.parquet" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["refresh", "backfill", "validate"])
def test_a_file_that_was_cut_off_is_told_with_its_name_and_no_traceback(say: Say, command: str, tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 the rest is on its way")
    try:
        words = ["source=parquet", f"source.path='{tmp_path}/*.parquet'", f"store.root='{tmp_path}/store'"]
        declared = [] if command == "validate" else ["source.start=2024-01-02"]  # with it the graph builds
        status, _, err = say(command, "horizon=5m", *words, *declared, "universe=all")
    finally:
        Database(tmp_path / "store").release()
    assert status == 2
    assert f"{tmp_path}/cut.parquet cannot be read" in err
    assert "Traceback" not in err


def test_a_run_that_fails_at_a_step_ends_with_status_1_and_the_reason(say: Say, tmp_path: Path) -> None:
    source = SyntheticSource(
        Grid(CalendarSpec("XNYS"), "5m"),
        seed=3, start=date(2021, 11, 22), sessions=2, symbols=2, signal_ic=0.0, gap_rate=0.0, splits=0,
    )  # fmt: skip
    span = datetime(2021, 11, 1, tzinfo=UTC), datetime(2021, 12, 1, tzinfo=UTC)
    bars = pl.concat(list(source.bars(*span, None))).drop("source").with_columns(close=pl.lit(-1.0))
    bars.write_parquet(tmp_path / "bad.parquet")
    words = ["horizon=5m", "source=parquet", f"source.path='{tmp_path}/bad.parquet'", "universe=all"]
    try:
        status, out, err = say("run", *words, f"store.root='{tmp_path}/store'")
    finally:
        Database(tmp_path / "store").release()
    assert status == 1
    assert "5m failed" in out
    assert "non_positive" in out
    assert "Traceback" not in out + err


def test_clean_deletes_nothing_that_is_not_a_store(say: Say, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    status, _, complaint = say("clean", f"store.root='{tmp_path}'")
    assert status == 2
    assert "thesis.txt" in complaint
    assert (tmp_path / "thesis.txt").exists()


def test_clean_without_a_terminal_asks_nobody_and_deletes_nothing(say: Say, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    status, _, complaint = say("clean", f"store.root='{tmp_path}'")
    assert status == 2
    assert "no terminal" in complaint
    assert (tmp_path / "lake").exists()
