"""The registry: bundles appear whole or not at all, and no promotion is ever lost."""

import json
import multiprocessing
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant.bundle import FILES, MANIFEST, Bundle, BundleError
from quant.bundle_build import build
from quant.folds import holdout
from quant.grid import CalendarSpec, Grid
from quant.recipe import Recipe
from quant.train import fit
from resources.clock import FixedClock
from resources.registry import LedgerMoved, Registry, RegistryError, Undecided

EMPTY: dict[str, Any] = {}
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def make_bundle(
    content: str = "rows", horizon: str = "1h", spans: dict[str, Any] = EMPTY, scores: dict[str, Any] = EMPTY
) -> Bundle:
    grid = Grid(CalendarSpec("24/7"), "1h")
    slots = grid.slots(date(2024, 1, 1), date(2024, 1, 12))
    close = 100 + np.random.default_rng(0).normal(size=len(slots)).cumsum()
    prices = dict.fromkeys(["open", "high", "low", "close"], close)
    stamps = pl.Series(slots).dt.replace_time_zone("UTC")
    bars = pl.DataFrame({"symbol": "AAA", "timestamp": stamps, **prices, "volume": 1.0}).with_columns(
        price_factor=1.0, volume_factor=1.0
    )
    entries = {"back": "close / lag(close, 1) - 1"}
    recipe = Recipe(grid.calendar, "1h", ("AAA",), ("close",), entries, {"back": "back"})
    _, X = recipe.rows(bars)
    time = np.arange(len(X))
    split = holdout(time, time, valid=0.2, test=0.2, embargo=0)
    y = X[:, 0].astype(float)
    trained = fit(
        X, y, split.train, split.valid, {}, names=["back"], seeds=[0], rounds=3, early_stopping_rounds=3
    )  # fmt: skip
    return build(
        horizon=horizon, recipe=recipe, trained=trained, config={}, label={"name": "none"},
        digests={"content": content, "config": "", "source": "", "lock": ""},
        golden_bars=bars.tail(5), counts=split.counts, spans=spans, scores=scores, statistics={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundles() -> list[Bundle]:
    return [make_bundle(content) for content in ("first", "second", "third")]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, FixedClock(NOW))


def test_a_bundle_that_was_written_loads_and_proves_itself(registry, bundles):
    id = registry.write(bundles[0], {"run": "r1"})
    loaded = registry.load("1h", id)
    loaded.verify()
    assert loaded.to_files() == bundles[0].to_files()
    assert registry.provenance("1h", id) == {"run": "r1"}
    assert registry.horizons() == ["1h"]


def test_writing_the_same_bundle_again_changes_nothing(registry, bundles):
    id = registry.write(bundles[0], {"run": "r1"})
    assert registry.write(bundles[0], {"run": "r2"}) == id
    assert registry.provenance("1h", id) == {"run": "r1"}
    assert registry.bundles("1h") == [id]


def test_the_same_id_with_other_content_is_refused(registry, bundles):
    id = registry.write(bundles[0], {})
    (registry.path("1h", id) / "model.txt").write_text("another model")
    with pytest.raises(RegistryError, match=r"model\.txt"):
        registry.write(bundles[0], {})


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_corrupt_or_half_copied_bundle_is_refused_by_name(registry, bundles, name):
    id = registry.write(bundles[0], {})
    file = registry.path("1h", id) / name
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=f"{id}.*{name}"):
        registry.load("1h", id)
    file.unlink()
    with pytest.raises(BundleError, match=f"{id}.*{name}"):
        registry.load("1h", id)


def test_a_bundle_in_the_wrong_place_is_refused(registry, bundles):
    id = registry.write(bundles[0], {})
    shutil.copytree(registry.path("1h", id), registry.path("5m", id))
    with pytest.raises(BundleError, match="wrong place"):
        registry.load("5m", id)


def test_an_unknown_bundle_is_refused_with_those_there_are(registry, bundles):
    id = registry.write(bundles[0], {})
    for ask in (registry.load, lambda horizon, name: registry.promote(horizon, name, "why")):
        with pytest.raises(RegistryError, match=f"'nowhere'.*there are: {id}"):
            ask("1h", "nowhere")


def test_a_write_that_breaks_leaves_no_bundle_behind(registry, bundles, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError("no space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("resources.registry.write_through", full)
    with pytest.raises(OSError, match="no space"):
        registry.write(bundles[0], {})
    assert registry.bundles("1h") == []
    assert list(registry.path("1h", bundles[0].id).parent.iterdir()) == []


def test_the_ledger_records_who_serves_since_when_and_why(registry, bundles):
    first, second = (registry.write(bundle, {}) for bundle in bundles[:2])
    assert registry.champion("1h") is None
    registry.promote("1h", first, "the first")
    entry = registry.promote("1h", second, "better", by="ada at babbage")
    assert registry.champion("1h") == entry
    assert (entry.number, entry.id, entry.action, entry.why, entry.at, entry.by) == (
        2,
        second,
        "promote",
        "better",
        NOW,
        "ada at babbage",
    )
    assert [line.id for line in registry.ledger("1h")] == [first, second]
    written = json.loads((registry.path("1h", first).parent.parent / "ledger/000002.json").read_text())
    assert written["bundle"] == second
    assert set(written) == {"number", "horizon", "bundle", "action", "why", "by", "at"}


def test_rollback_appends_the_previous_champion_and_a_second_one_goes_further_back(registry, bundles):
    first, second, third = (registry.write(bundle, {}) for bundle in bundles)
    for id in (first, second, second, third):
        registry.promote("1h", id, "newest")
    assert registry.rollback("1h", "third is wrong").id == second
    assert registry.rollback("1h", "second too").id == first
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback("1h", "and the first")
    assert [entry.number for entry in registry.ledger("1h")] == [1, 2, 3, 4, 5, 6]
    registry.promote("1h", third, "mended")
    assert registry.rollback("1h", "no").id == first


def test_a_damaged_ledger_entry_is_named(registry, bundles):
    registry.promote("1h", registry.write(bundles[0], {}), "why")
    file = registry.path("1h", "x").parent.parent / "ledger/000001.json"
    file.write_text("{")
    with pytest.raises(RegistryError, match=r"000001\.json"):
        registry.champion("1h")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, "it is no JSON object"),
        ({"bundle": None}, "no 'bundle' that is a text"),
        ({"number": "1"}, "no 'number' that is a number"),
        ({"number": 7}, "it says number 7"),
        ({"action": "demote"}, "its action 'demote' is none of promote, rollback"),
        ({"at": "yesterday"}, "its 'at' is no time"),
        ({"bundel": "x"}, "it has 'bundel', which no entry has"),
    ],
)
def test_what_is_wrong_with_a_ledger_entry_is_told_in_its_readers_words(registry, bundles, change, told):
    registry.promote("1h", registry.write(bundles[0], {}), "why")
    file = registry.path("1h", "x").parent.parent / "ledger/000001.json"
    file.write_text("[]" if change is None else json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(RegistryError, match=f"is damaged: .*{told}; restore it from a copy, or rename"):
        registry.champion("1h")


def test_a_damaged_entry_that_is_set_aside_keeps_its_number_and_the_ledger_names_nobody_until_somebody_decides(
    registry, bundles
):
    """A rollback that cannot be read must not let the bundle that was rolled back serve again."""
    first, second = (registry.write(bundle, {}) for bundle in bundles[:2])
    registry.promote("1h", first, "first")
    registry.promote("1h", second, "second")
    registry.rollback("1h", "it loses money")
    file = registry.path("1h", "x").parent.parent / "ledger/000003.json"
    file.write_text("{broken")
    with pytest.raises(RegistryError, match=r"rename it to 000003.json.damaged .*horizon=1h.*remove it undoes") as told:
        registry.champion("1h")
    assert told.value.__cause__ is None
    file.rename(file.with_name("000003.json.damaged"))
    for ask in (registry.champion, registry.ledger, registry.previous, lambda name: registry.rollback(name, "again")):
        with pytest.raises(Undecided, match=r"entry 3 of 1h is set aside .*tenor promote horizon=1h"):
            ask("1h")
    with pytest.raises(LedgerMoved):
        registry.promote("1h", second, "judged before it was set aside", over=3)
    assert registry.promote("1h", first, "what number 3 said").number == 4
    assert (registry.champion("1h").id, [entry.number for entry in registry.ledger("1h")]) == (first, [1, 2, 4])
    assert registry.rollback("1h", "goes on").number == 5


def test_the_only_entry_set_aside_is_no_empty_ledger(registry, bundles):
    id = registry.write(bundles[0], {})
    registry.promote("1h", id, "why")
    file = registry.path("1h", "x").parent.parent / "ledger/000001.json"
    file.rename(file.with_name("000001.json.damaged"))
    with pytest.raises(Undecided, match="entry 1 of 1h"):
        registry.champion("1h")
    assert registry.promote("1h", id, "again").number == 2


def test_a_rollback_whose_promotions_are_gone_is_named(registry, bundles):
    for bundle in bundles[:2]:
        registry.promote("1h", registry.write(bundle, {}), "why")
    registry.rollback("1h", "back")
    folder = registry.path("1h", "x").parent.parent / "ledger"
    (folder / "000001.json").unlink()
    (folder / "000002.json").unlink()
    with pytest.raises(RegistryError, match="entry 3 of 1h rolls back what the entries before it have not"):
        registry.previous("1h")


def test_a_ledger_entry_of_before_it_was_recorded_who_promoted_is_read(registry, bundles):
    registry.promote("1h", registry.write(bundles[0], {}), "why", by="ada")
    file = registry.path("1h", "x").parent.parent / "ledger/000001.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in written.items() if key != "by"}))
    assert registry.champion("1h").by == ""


def test_a_promotion_decided_over_a_champion_that_was_replaced_meanwhile_is_refused(registry, bundles):
    first, second, third = (registry.write(bundle, {}) for bundle in bundles)
    assert registry.promote("1h", first, "the first", over=0).number == 1
    registry.promote("1h", second, "by hand")
    with pytest.raises(LedgerMoved, match="from number 1 to 2"):
        registry.promote("1h", third, "better than the first", over=1)
    assert registry.champion("1h").id == second
    assert registry.promote("1h", third, "better than the second", over=2).number == 3


def test_every_judgement_is_kept_beside_the_bundle_in_order_and_the_bundle_still_loads(registry, bundles):
    id = registry.write(bundles[0], {})
    assert registry.judgements("1h", id) == []
    assert registry.judged("1h", id, {"wins": False, "p": 0.4}) == 1
    assert registry.judged("1h", id, {"wins": True, "p": 0.01}) == 2
    assert [(found["p"], found["at"]) for found in registry.judgements("1h", id)] == [
        (0.4, NOW.isoformat()),
        (0.01, NOW.isoformat()),
    ]
    registry.load("1h", id).verify()
    assert registry.bundles("1h") == [id]
    (registry.path("1h", id) / "judgement.json").write_text("[{")
    with pytest.raises(RegistryError, match=r"judgement\.json is damaged"):
        registry.judgements("1h", id)
    with pytest.raises(RegistryError, match="no bundle 'nowhere'"):
        registry.judged("1h", "nowhere", {})


def promote_often(root: Path, id: str, name: str, times: int) -> None:
    registry = Registry(root, FixedClock(NOW))
    for number in range(times):
        registry.promote("1h", id, f"{name} {number}")


def test_two_processes_that_promote_at_once_lose_no_entry(tmp_path, bundles):
    id = Registry(tmp_path).write(bundles[0], {})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=promote_often, args=(tmp_path, id, name, 25)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    ledger = Registry(tmp_path).ledger("1h")
    assert [entry.number for entry in ledger] == list(range(1, 51))
    for name in ("a", "b"):
        assert [entry.why for entry in ledger if entry.why.startswith(name)] == [f"{name} {k}" for k in range(25)]


def test_bundles_are_listed_oldest_first(registry, bundles):
    ids = [registry.write(bundle, {}) for bundle in bundles]
    assert registry.bundles("1h") == ids
    assert registry.bundles("never trained") == []
