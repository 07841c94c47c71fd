"""Mistakes in YAML files: each ends in one message that names the file and the line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.compose import ConfigError, compose

Mistake = Callable[..., str]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "told"),
    [
        ("model/lightgbm", "num_leaves: 31", "num_leavs: 31", 6, "model.num_leavs (31) & model.num_leaves?"),
        ("model/lightgbm", "num_leaves: 31", "num_leaves: '31'", 6, "model.num_leaves is 31 & whole number"),
        ("model/lightgbm", "num_leaves: 31", "num_leaves: -31", 6, "model.num_leaves is -31 & at least 2"),
        ("horizon/5m", "interval: 5m", "interval: 5 minutes", 11, "interval is 5 minutes & 5m, 1h or 1d"),
        ("horizon/5m", "interval: 5m", "intervall: 5m", 11, "intervall (5m) & interval?"),
        ("horizon/5m", "{from: source}", "{from: 1}", 12, "bars.from is 1 & in quotes"),
        ("horizon/5m", "{from: source}", "{from: sourc}", 12, "bars.from is sourc & source?"),
        ("horizon/5m", "/source: synthetic", "/source: synthtic", 4, "source is synthtic & synthetic?"),
        ("horizon/5m", "/source: synthetic", "/sorce: synthetic", 4, "sorce is not a group & source?"),
        (
            "horizon/5m",
            "partition: day",
            "partition: day\ncosts: {spread: 1}",
            14,
            "costs.spread & costs.spread_bps",
        ),
        ("horizon/5m", "partition: day", "partition: day\nname: five", 14, "name (five) & file's name"),
        ("config", "- costs: default", "- costs: defualt", 26, "costs is defualt & default?"),
        ("label/forward_return", "expr: lead", "exprr: lead", 5, "label.exprr & label.expr?"),
        ("label/forward_return", "bars: 6", "bars: -6", 7, "label.bars is -6 & at least 1"),
        ("calendar/XNYS", "XNYS\n", "XNYSS\n", 2, "calendar.name is XNYSS & XNYS?"),
        ("source/synthetic", "2021-01-04", "2021-02-30", 5, "source.start is 2021-02-30 & a date"),
        ("source/synthetic", "kind: synthetic", "kind: synthtic", 3, "source.kind is synthtic & synthetic?"),
        ("source/synthetic", "kind: synthetic", "knd: synthetic", 3, "source.knd & source.kind?"),
        (
            "features/technical",
            "rsi(close, 14)",
            "[14]",
            2,
            "rsi_14 is [14] & an expression",
        ),
        ("costs/default", "spread_bps: 2.0", "spread_bps: ${costs.nope}", 3, "costs.spread_bps & nope"),
        ("store/local", "root:", "database_url: postgres://me:s3cret@db\nroot:", 3, "TENOR_DATABASE_URL"),
    ],
)
def test_the_message_names_file_line_key_and_value(
    folder: Path, mistake: Mistake, file: str, old: str, new: str, where: int, told: str
) -> None:
    change(folder / f"{file}.yaml", old, new)
    message = mistake()
    assert message.startswith(f"conf/{file}.yaml:{where}: ")
    assert "s3cret" not in message
    for part in told.split(" & "):
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("America/New_York", "America/NewYork", 4, "calendar.timezone & America/New_York?"),
        ('"18:00"', "18:00", 5, 'calendar.open is 1080 & "18:00"'),
        ('"18:00"', '"6pm"', 5, 'calendar.open is 6pm & "09:30"'),
        ("mon, tue", "mon, tues", 7, "calendar.weekdays.1 is tues & tue?"),
        ("breaks: []", 'breaks: [["12:00"]]', 8, "calendar.breaks.0 & at least 2"),
        ("holidays: null", "holidays: XNYSS", 9, "calendar.holidays is XNYSS & XNYS?"),
        ("timezone: America/New_York\n", "", None, "calendar.timezone is null & named template"),
    ],
)
def test_a_session_template_is_checked(
    folder: Path, mistake: Mistake, old: str, new: str, line: int | None, told: str
) -> None:
    change(folder / "calendar" / "us_index_cfd.yaml", old, new)
    message = mistake("calendar=us_index_cfd")
    assert message.startswith("conf/calendar/us_index_cfd.yaml" + (f":{line}: " if line else ": "))
    for part in told.split(" & "):
        assert part in message


@pytest.mark.parametrize("text", ["a: [1, 2\nb: 3\n", "a: 1\n b: 2\n", "a: 1\na: 2\n", "- 1\na: 2\n", "a: '\n"])
def test_a_file_that_is_not_yaml_is_named(folder: Path, mistake: Mistake, text: str) -> None:
    (folder / "costs" / "default.yaml").write_text(text)
    message = mistake()
    assert message.startswith("conf/costs/default.yaml:")
    assert "not valid YAML" in message


@pytest.mark.parametrize("header", ["", "# @package features\n", "# @package features.technicals\n", "# technical\n"])
def test_a_set_without_its_package_line_is_told_the_line(folder: Path, mistake: Mistake, header: str) -> None:
    (folder / "features" / "technical.yaml").write_text(f"{header}rsi_14: rsi(close, 14)\n")
    message = mistake()
    assert message.startswith("conf/features/technical.yaml:1: ")
    assert "`# @package features.technical`" in message


def test_a_horizon_without_its_package_line_is_told_the_line(folder: Path, mistake: Mistake) -> None:
    change(folder / "horizon" / "5m.yaml", "# @package _global_\n", "")
    message = mistake()
    assert message.startswith("conf/horizon/5m.yaml:1: ")
    assert "`# @package _global_`" in message


def test_a_group_file_needs_no_package_line(folder: Path, mistake: Mistake) -> None:
    change(folder / "costs" / "default.yaml", "# Liquid", "# @package _global_\n# Liquid")
    assert "Remove that line" in mistake()


def test_a_name_in_two_sets_names_both_files(folder: Path, mistake: Mistake) -> None:
    (folder / "features" / "volume.yaml").write_text("# @package features.volume\n\nrsi_14: rsi(volume, 14)\n")
    message = mistake("features=[technical,volume]")
    assert message.startswith("conf/features/volume.yaml:3: rsi_14 ")
    assert "conf/features/technical.yaml:2" in message


def test_a_missing_key_names_the_file_that_should_have_it(folder: Path, mistake: Mistake) -> None:
    change(folder / "costs" / "default.yaml", "slippage_bps: 0.5         # a side\n", "")
    assert mistake().startswith("conf/costs/default.yaml: costs.slippage_bps is missing")


def test_an_empty_file_is_missing_its_keys(folder: Path, mistake: Mistake) -> None:
    (folder / "costs" / "default.yaml").write_text("# nothing\n")
    assert "costs" in mistake()


def test_horizons_that_resample_each_other_are_a_circle(folder: Path, mistake: Mistake) -> None:
    change(folder / "horizon" / "5m.yaml", "{from: source}", "{from: 1h}")
    change(folder / "horizon" / "1h.yaml", "{from: source}", "{from: 5m}")
    message = mistake("horizon=5m")
    assert message.startswith("conf/horizon/5m.yaml:12: bars.from goes round in a circle: 5m <- 1h <- 5m")


def test_a_horizon_that_resamples_itself_is_a_circle(folder: Path, mistake: Mistake) -> None:
    change(folder / "horizon" / "5m.yaml", "{from: source}", "{from: 5m}")
    assert "circle: 5m <- 5m" in mistake()


def test_resampled_bars_keep_the_calendar(folder: Path, mistake: Mistake) -> None:
    change(folder / "horizon" / "1h.yaml", "{from: source}", "{from: 5m}")
    change(folder / "horizon" / "5m.yaml", "/calendar: XNYS", "/calendar: 24x7")
    message = mistake("horizon=1h")
    assert message.startswith("conf/horizon/1h.yaml:12: bars.from is 5m")
    assert "24/7" in message


def test_a_yml_file_is_not_overlooked(folder: Path, mistake: Mistake) -> None:
    (folder / "horizon" / "1h.yaml").rename(folder / "horizon" / "2h.yml")
    assert "Rename conf/horizon/2h.yml to 2h.yaml" in mistake("horizon=2h")


def test_a_folder_without_config_is_told(folder: Path, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("TENOR_CONF", str(folder / "horizon"))
    with pytest.raises(ConfigError, match=r"TENOR_CONF: .*horizon has no config\.yaml"):
        compose([])
