"""`tenor vacuum`: whatever the policy, what serves, served or may serve stays whole; all else that is old goes."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.schema import Horizon
from defs import cli, vacuum
from quant.bundle import Bundle
from resources import removal
from resources.lake import Lake
from resources.registry import Registry, RegistryError
from resources.table_history import orphans
from tests.resources.test_registry import make_bundle

TABLE = "bars/1h"
ANSWERS = "predictions/1h"


@pytest.fixture(scope="module")
def bundles() -> list[Bundle]:
    return [make_bundle(f"bundle {number}") for number in range(5)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "SETTLING", 0.0)


@cache
def shipped() -> Horizon:
    return compose(["horizon=1h"])["1h"]


def horizon(**policy: Any) -> dict[str, Horizon]:
    changed = shipped().retention.model_copy(update=policy)
    return {"1h": shipped().model_copy(update={"retention": changed})}


def rows(content: int) -> pl.DataFrame:
    stamp, close = datetime(2024, 3, 4, 15, tzinfo=UTC), float(content)
    return pl.DataFrame({"symbol": ["AAA"], "timestamp": [stamp], "close": [close], "partition": ["2024-03-04"]})


def answers(bundle: str, role: str, day: str = "2024-03-04") -> pl.DataFrame:
    return pl.DataFrame({"signal": ["1.0"], "bundle": [bundle], "role": [role], "partition": [day]})


def aged(root: Path, days: float) -> None:
    """Make everything in the store that much older, the commits of its tables too."""
    stamps = re.compile(r'("(?:timestamp|deletionTimestamp|modificationTime)":)(\d{13})')
    back = int(days * 86_400_000)
    for path in [*root.rglob("*")]:
        if path.suffix == ".json" and path.parent.name == "_delta_log":
            path.write_text(stamps.sub(lambda found: f"{found[1]}{int(found[2]) - back}", path.read_text()))
        os.utime(path, (path.stat().st_mtime - days * 86400,) * 2)


def swept(root: Path, found: dict[str, Horizon], *, dry: bool = False, most: int | None = None) -> list[str]:
    """What went, in words; `most`: the process is killed after so many things."""
    told = []
    for one in vacuum.going(root, found, datetime.now(UTC), dry=dry):
        if most is not None and len(told) == most:
            break
        told.append(f"{one.what}: {one.why}")
        if not dry:
            one.go()
    return told


class Store:
    """A store whose history is known: which version each bundle was made from, and what was in it."""

    def __init__(self, root: Path, bundles: list[Bundle]) -> None:
        self.root, self.bundles = root, bundles
        self.lake, self.registry = Lake(root / "lake"), Registry(root)
        self.content: list[int] = []
        self.made: dict[str, int] = {}  # bundle -> version
        self.told: set[str] = set()
        self.bars(0)

    def bars(self, content: int) -> None:
        version = self.lake.write(TABLE, [rows(content)], ["2024-03-04"], {"source": "s"}).version
        if version == len(self.content):
            self.content.append(content)

    def train(self, number: int) -> None:
        version = self.lake.version(TABLE)
        id = self.registry.write(self.bundles[number], {"tables": {"bars": version}})
        assert version is not None
        self.made.setdefault(id, version)
        self.registry.judged("1h", id, {"champion": None, "rule": {"level": number}, "window": ["a", "b"]})

    def promote(self, number: int) -> None:
        if self.bundles[number].id in self.made:
            self.registry.promote("1h", self.bundles[number].id, "it wins")

    def rollback(self, number: int) -> None:
        try:
            self.registry.rollback("1h", "it trades too much")
        except RegistryError:
            return  # there is no earlier champion

    def answer(self, number: int) -> None:
        if (id := self.bundles[number].id) in self.made:
            self.lake.append(ANSWERS, answers(id, "canary"), {"format": "predictions-2"})
            self.told.add(id)

    def whole(self) -> None:
        """What must stay is there, to the bit."""
        ledger = self.registry.ledger("1h")
        newest = self.registry.bundles("1h")[-1:]
        for id in {entry.id for entry in ledger} | self.told | set(newest):
            self.registry.load("1h", id).verify()
            version = self.registry.provenance("1h", id)["tables"]["bars"]
            assert version == self.made[id]
            then = self.lake.scan(TABLE, version=version).collect()
            assert then["close"].to_list() == [self.content[version]]
        now = self.lake.scan(TABLE).collect()
        assert now["close"].to_list() == [self.content[-1]]
        assert set(self.registry.all_judgements("1h")) == set(self.made)


ACTIONS = ("bars", "train", "promote", "rollback", "answer")


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 4)), min_size=5, max_size=25),
    st.integers(0, 3),
    st.integers(1, 50),
    st.sampled_from([None, 0, 1, 2]),
)
def test_whatever_the_policy_and_the_history_everything_that_served_stays_whole(
    tmp_path_factory: pytest.TempPathFactory,
    bundles: list[Bundle],
    actions: list[tuple[str, int]],
    keep: int,
    days: int,
    killed: int | None,
) -> None:
    root = tmp_path_factory.mktemp("store")
    store = Store(root, bundles)
    for at, (what, number) in enumerate(actions):
        getattr(store, what)(at + 1 if what == "bars" else number)
    aged(root, 30)
    policy = horizon(bundles=keep, versions_days=days, reports_days=1, logs_days=1)
    would = swept(root, policy, dry=True)
    store.whole()
    if killed is not None:
        swept(root, policy, most=killed)
        store.whole()
        swept(root, policy)
    else:
        assert swept(root, policy) == would
    store.whole()
    assert swept(root, policy) == []
    shutil.rmtree(root)


def test_a_tight_policy_leaves_what_is_needed_and_nothing_else(tmp_path: Path, bundles: list[Bundle]) -> None:
    store = Store(tmp_path, bundles)
    for number in range(5):
        store.bars(number + 1)
        store.train(number)
        time.sleep(0.01)  # bundles are ordered by the time of their files
    store.bars(6)
    store.promote(1)
    aged(tmp_path, 10)
    told = swept(tmp_path, horizon(bundles=0, versions_days=7))
    # Versions 0 to 6; the champion was made from 2, the newest bundle from 5, and 6 is the newest.
    assert store.registry.bundles("1h") == [bundles[1].id, bundles[4].id]
    for version in (2, 5, 6):
        assert store.lake.scan(TABLE, version=version).collect().height == 1
    for version in (0, 1, 3, 4):
        with pytest.raises(FileNotFoundError):
            store.lake.scan(TABLE, version=version).collect()
    assert f"1h: bundles {bundles[0].id}, {bundles[2].id}, {bundles[3].id}: they never served" in told[0]
    assert told[1].startswith("bars/1h: 4 files of versions that ended over 7 days ago: nothing refers to them")
    store.whole()


def test_what_is_younger_than_the_policy_says_stays(tmp_path: Path, bundles: list[Bundle]) -> None:
    store = Store(tmp_path, bundles)
    store.bars(1)
    (tmp_path / "lake" / TABLE / "partition=2024-03-04" / "crashed.parquet").write_bytes(b"half")
    aged(tmp_path, 6.9)
    assert swept(tmp_path, horizon(versions_days=7)) == []
    aged(tmp_path, 0.2)
    assert len(swept(tmp_path, horizon(versions_days=7))) == 1
    assert not (tmp_path / "lake" / TABLE / "partition=2024-03-04" / "crashed.parquet").exists()
    store.whole()


def test_a_step_that_writes_while_files_go_commits_as_if_nothing_had(tmp_path: Path, bundles: list[Bundle]) -> None:
    store = Store(tmp_path, bundles)
    store.bars(1)
    aged(tmp_path, 10)

    def batches() -> Iterator[pl.DataFrame]:
        assert len(swept(tmp_path, horizon(versions_days=7))) == 1
        yield rows(2)

    assert store.lake.write(TABLE, batches(), ["2024-03-04"], {"source": "s"}).changed
    assert store.lake.scan(TABLE).collect()["close"].to_list() == [2.0]


@pytest.mark.slow  # two hundred commits
def test_the_log_of_a_table_goes_as_far_back_as_a_bundle_needs_and_no_further(
    tmp_path: Path, bundles: list[Bundle]
) -> None:
    store = Store(tmp_path, bundles)
    log = tmp_path / "lake" / TABLE / "_delta_log"
    for content in range(1, 205):  # Delta makes a checkpoint every hundred commits
        store.bars(content)
        if content == 150:
            store.train(0)
    aged(tmp_path, 60)
    store.bars(205)
    assert orphans(tmp_path / "lake", TABLE, datetime.now(UTC)) == []  # a checkpoint names those of before
    swept(tmp_path, horizon(versions_days=7))
    store.whole()
    versions = sorted(int(file.name[:20]) for file in log.glob("*.json"))
    assert versions[0] == 99
    assert store.lake.scan(TABLE, version=150).collect()["close"].to_list() == [150.0]


def test_a_bundle_that_is_promoted_while_it_goes_comes_back(
    tmp_path: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, bundles)
    for number in range(3):
        store.train(number)
        time.sleep(0.01)
    required = Registry._require

    def promoted(_: float) -> None:
        # It was there when the promotion looked, and is hidden when its entry is written.
        monkeypatch.setattr(Registry, "_require", lambda *_: None)
        store.promote(0)
        monkeypatch.setattr(Registry, "_require", required)

    monkeypatch.setattr(removal.time, "sleep", promoted)
    swept(tmp_path, horizon(bundles=0))
    assert store.registry.bundles("1h") == [bundles[0].id, bundles[2].id]
    assert f"promoted meanwhile, so it stays: {bundles[0].id}" in capsys.readouterr().err
    store.whole()


def test_a_removal_that_is_killed_leaves_a_hidden_folder_that_goes_a_day_later(
    tmp_path: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, bundles)
    for number in range(2):
        store.train(number)
        time.sleep(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            swept(tmp_path, horizon(bundles=0))
    assert store.registry.bundles("1h") == [bundles[1].id]
    [hidden] = removal.leftovers(store.registry, "1h")
    assert swept(tmp_path, horizon(bundles=0)) == []
    os.utime(hidden, (0, 0))
    for file in hidden.iterdir():
        os.utime(file, (0, 0))
    assert [told.rpartition(": ")[2] for told in swept(tmp_path, horizon(bundles=0))] == [
        "a process that was killed left it"
    ]
    assert removal.leftovers(store.registry, "1h") == []


def test_a_version_that_is_gone_already_is_told_and_hinders_nothing(
    tmp_path: Path, bundles: list[Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, bundles)
    store.registry.write(bundles[0], {"tables": {"bars": 77}})
    store.bars(1)
    aged(tmp_path, 10)
    assert len(swept(tmp_path, horizon(versions_days=7))) == 1
    assert f"bundle {bundles[0].id} of 1h was made from version 77 of bars/1h, which is gone" in capsys.readouterr().err


def test_reports_and_logs_go_by_their_age_and_those_that_something_links_to_stay(
    tmp_path: Path, bundles: list[Bundle]
) -> None:
    store = Store(tmp_path, bundles)
    cause = {"report": "http://127.0.0.1:8321/reports/1h/drift-2024-01-02.html"}
    store.registry.write(bundles[0], {"cause": cause})
    champion = bundles[0].id
    drift = [f"drift-2024-01-0{day}.html" for day in (1, 2, 3)]  # the last is what the check links to
    pages = [f"evaluation-{champion}.html", "evaluation-gone.html", "drift.html", *drift]
    for name in (*(f"reports/1h/{page}" for page in pages), "dagster/logs/run1/out"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    aged(tmp_path, 40)
    (tmp_path / "reports" / "1h" / "new.html").write_text("x")
    ages = {"reports_days": 30, "logs_days": 30}
    assert swept(tmp_path, horizon(reports_days=None, logs_days=None)) == []
    assert swept(tmp_path, horizon(**ages)) == [
        "1h: 2 reports: older than 30 days",
        "logs of 1 runs: older than 30 days",
    ]
    left = sorted(file.name for file in (tmp_path / "reports" / "1h").iterdir())
    assert left == [*drift[1:], "drift.html", f"evaluation-{champion}.html", "new.html"]


def test_answers_go_by_whole_days_and_then_their_bundles_may_go(tmp_path: Path, bundles: list[Bundle]) -> None:
    store = Store(tmp_path, bundles)
    for number in range(3):
        store.train(number)
        time.sleep(0.01)
    store.answer(0)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    store.lake.append(ANSWERS, answers(bundles[1].id, "champion", today), {"format": "predictions-2"})
    told = swept(tmp_path, horizon(bundles=0, predictions_days=30))
    assert told[0] == f"{ANSWERS}: 1 days up to 2024-03-04: answers older than 30 days"
    assert store.lake.scan(ANSWERS).collect()["partition"].to_list() == [today]
    assert store.registry.bundles("1h") == [bundles[1].id, bundles[2].id]


def test_a_long_log_is_cut_at_a_line_while_its_writer_goes_on(tmp_path: Path, bundles: list[Bundle]) -> None:
    Store(tmp_path, bundles)
    log = tmp_path / "service.log"
    with log.open("ab") as writer:
        for number in range(30_000):
            writer.write(b"%08d %s\n" % (number, b"x" * 90))
        writer.flush()
        assert swept(tmp_path, horizon(log_mib=1)) == ["service.log: its beginning: the last 1 MiB stay"]
        writer.write(b"00030000 new\n")
    lines = log.read_bytes().splitlines()
    assert log.stat().st_size <= (1 << 20) + 100
    assert lines[-1] == b"00030000 new"
    assert [int(line[:8]) for line in lines] == [*range(30_001 - len(lines), 30_001)]


def test_the_command_names_what_would_go_and_deletes_only_without_dry_run(
    tmp_path: Path, bundles: list[Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, bundles)
    store.bars(1)
    aged(tmp_path, 10)
    words = ["vacuum", "horizon=1h", f"store.root='{tmp_path}'"]
    for flag, said in ((["--dry-run"], "would go; nothing was deleted"), ([], "deleted")):
        assert cli.main([*words, *flag]) == 0
        out = capsys.readouterr().out
        assert re.search(r"kB  bars/1h: 1 files of versions that ended over 7 days ago", out)
        assert out.endswith(f"in all; 1 things {said}\n")
    assert swept(tmp_path, horizon()) == []


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [vacuum.size(count) for count in (0, 1, 999, 1000, 1_234_567, 5e9, 5e13)] == [
        "0 B", "1 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB", "50000.0 GB",
    ]  # fmt: skip


def test_judgements_of_removed_bundles_still_count_as_tries(tmp_path: Path, bundles: list[Bundle]) -> None:
    store = Store(tmp_path, bundles)
    for number in range(2):
        store.train(number)
        time.sleep(0.01)
    before = store.registry.all_judgements("1h")
    swept(tmp_path, horizon(bundles=0))
    assert store.registry.bundles("1h") == [bundles[1].id]
    assert store.registry.all_judgements("1h") == before
    store.train(0)  # made and judged again, the same: it is one judgement more, which the same rule makes no try more
    assert len(store.registry.all_judgements("1h")[bundles[0].id]) == 2
    assert json.loads((tmp_path / "registry" / "1h" / "judged" / f"{bundles[0].id}.json").read_text())
