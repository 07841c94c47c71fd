"""How a horizon is refreshed: four ways in YAML, each with keys of its own, and messages that name the right one."""

import pytest

from conf.compose import ConfigError, compose
from conf.refreshing import AfterInterval, AfterSession, AtCron, Off

WAYS = {
    "session": ([], AfterSession),
    "interval": (["automation=interval", "automation.every=15m"], AfterInterval),
    "cron": (["automation=cron", "automation.cron='30 21 * * mon-fri'"], AtCron),
    "off": (["automation=off"], Off),
}


@pytest.mark.parametrize(("words", "kind"), WAYS.values(), ids=WAYS)
def test_each_way_of_refreshing_is_a_file(words: list[str], kind: type) -> None:
    assert isinstance(compose(["horizon=5m", *words])["5m"].automation, kind)


def test_without_a_choice_bars_are_fetched_after_each_session() -> None:
    assert {type(horizon.automation) for horizon in compose(["horizon=5m,1h,1d"]).values()} == {AfterSession}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["automation=cron"], r"conf/automation/cron\.yaml:\d+: automation\.cron is required"),
        (["automation=cron", "automation.cron='30 21 * *'"], r"it must be five fields, such as"),
        (
            ["automation=cron", "automation.cron='99 99 * * *'"],
            r"command line: automation\.cron is 99 99 \* \* \*; it must be .*hour 0-23",
        ),
        *(
            (
                ["automation=cron", f"automation.cron='{line}'"],
                r"command line: automation\.cron is .*; it must be .*names its moments",
            )
            for line in ("R R * * *", "0 r * * *", "R/5 * * * *", "0 9 R * mon-fri", "H 9 * * *")
        ),
        (
            ["automation=cron", "automation.cron='0 9 * * mno'"],
            r"automation\.cron is 0 9 \* \* mno; it must be .*sun-sat",
        ),
        (
            ["automation=cron", "automation.cron='0 0 31 4 *'"],
            r"automation\.cron is .*it must be a cron line that comes round",
        ),
        (
            ["automation=cron", "automation.cron='0 9 * * *'", "automation.timezone=Europe/Berln"],
            r"automation\.timezone is Europe/Berln.*Europe/Berlin",
        ),
        (["automation.every=5m"], r"belongs to automation=interval"),
        (["automation=interval", "automation.every=2d"], r"must be shorter than a day, or 1d"),
        (["automation=sesion"], r"session"),
        (["automation.delay_second=3"], r"automation\.delay_seconds"),
        (["automation.expected_minutes=0"], r"must be"),
    ],
)
def test_a_mistake_is_told_with_its_key(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["horizon=5m", *words])
