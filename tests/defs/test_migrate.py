"""What the first Tenor left (tests/formats/first) stays readable; what is older migrates, what is newer is refused."""

import json
import shutil
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from assets.layout import layout_of
from assets.plan import Plan
from conf.compose import compose
from defs import cli
from quant.bundle import FORMAT, MANIFEST, Bundle, BundleError
from resources import formats
from resources.lake import Lake, LakeError
from resources.registry import Registry
from serving.log_rows import LAYOUT, SCHEMA

FIRST = Path(__file__).parents[1] / "formats" / "first"  # made by Tenor at e106c5e, and never to be made again
TABLE = "bars/1h"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(FIRST, tmp_path / "store")
    return tmp_path / "store"


def migrate(root: Path, *flags: str) -> int:
    return cli.main(["migrate", "horizon=1h", f"store.root='{root}'", *flags])


@cache
def today() -> dict[str, object]:
    """The layout that the bars step of the same horizon writes today."""
    words = ["horizon=1h", "calendar=24x7", "source.sessions=750"]
    return layout_of(Plan(compose(words)["1h"]))


def test_bundles_of_the_first_format_load_and_prove_themselves_and_their_ledger_is_read(root: Path) -> None:
    registry = Registry(root)
    champion = registry.champion("1h")
    assert champion is not None
    assert (champion.number, champion.by) == (1, "model step, run r0")
    assert len(registry.bundles("1h")) == 2
    for id in registry.bundles("1h"):
        registry.load("1h", id).verify()
        assert registry.judgements("1h", id)[0]["sections"] == 70
        version = registry.provenance("1h", id)["tables"]["bars"]
        assert Lake(root / "lake").scan(TABLE, version=version).collect().height == 5


def test_tables_of_the_first_format_are_read_as_they_are(root: Path) -> None:
    lake = Lake(root / "lake")
    assert lake.scan(TABLE).collect()["volume"].to_list() == [1.0] * 5
    [answer] = lake.scan("predictions/1h").collect().to_dicts()
    assert (answer["role"], answer["signal"]) == ("champion", "a" * 32 + ".0")


def test_a_table_of_the_first_format_is_written_once_it_was_migrated_and_keeps_its_rows_and_versions(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake(root / "lake")
    before = lake.scan(TABLE).collect()
    new = [before.with_columns(volume=pl.lit(2.0))]
    with pytest.raises(LakeError, match=r"table bars/1h .* is of an older Tenor: `tenor migrate horizon=1h`"):
        lake.write(TABLE, new, ["2024-01-01"], today())
    assert migrate(root, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "bars/1h: the first format to table-2: its log is kept" in told
    assert "predictions/1h: predictions-1 to predictions-2: answers say how novel" in told
    assert "2 changes would be made" in told
    assert lake.version(TABLE) == 1
    assert migrate(root) == 0
    assert "bars/1h: the first format to table-2" in capsys.readouterr().out
    assert DeltaTable(root / "lake" / TABLE).metadata().configuration == formats.KEPT_LOG
    assert lake.scan(TABLE).collect().equals(before)
    [answer] = lake.scan("predictions/1h").collect().to_dicts()
    assert (answer["signal"], answer["novelty"], answer["abstained"]) == ("a" * 32 + ".0", None, None)
    assert lake.scan(TABLE, version=0).collect()["volume"].to_list() == [0.0] * 5
    assert lake.write(TABLE, new, ["2024-01-01"], today()).changed
    assert migrate(root) == 0
    assert capsys.readouterr().out == "nothing to migrate: all is of today's formats\n"
    assert not (root / "postgres").exists()


def test_the_log_of_the_first_format_takes_answers_with_novelty_once_it_was_migrated(root: Path) -> None:
    lake, log = Lake(root / "lake"), "predictions/1h"
    before = lake.scan(log).collect()
    novel = before.with_columns(signal=pl.lit("b.0"), novelty=pl.lit(0.25, pl.Float32), abstained=pl.lit(False)).select(
        list(SCHEMA)
    )
    with pytest.raises(LakeError, match=r"`tenor migrate horizon=1h`"):
        lake.append(log, novel, LAYOUT)
    assert migrate(root) == 0
    after = lake.scan(log).collect()
    assert after.drop("novelty", "abstained").equals(before.select(after.drop("novelty", "abstained").columns))
    assert after.select("novelty", "abstained").null_count().row(0) == (after.height, after.height)
    lake.append(log, novel, LAYOUT)
    assert set(lake.scan(log).collect()["novelty"]) == {None, 0.25}


def test_a_migration_that_was_interrupted_is_done_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = DeltaTable(root / "lake" / TABLE)
    [step] = formats.pending(formats.layout_of(table))
    step.do(table)  # and then the process was killed
    assert formats.pending(formats.layout_of(DeltaTable(root / "lake" / TABLE))) == [step]
    assert formats.migrate(DeltaTable(root / "lake" / TABLE)) == [step]
    assert formats.pending(formats.layout_of(DeltaTable(root / "lake" / TABLE))) == []


def test_tables_of_a_newer_tenor_are_refused_to_readers_and_writers(root: Path) -> None:
    table = DeltaTable(root / "lake" / TABLE)
    table.alter.set_table_description(json.dumps({**today(), "format": "table-3"}))
    lake = Lake(root / "lake")
    told = r"table bars/1h .* has the format table-3 of a newer Tenor, and this one reads table-2: update Tenor"
    with pytest.raises(LakeError, match=told):
        lake.scan(TABLE)
    with pytest.raises(LakeError, match=told):
        lake.write(TABLE, [], [], today())


def test_a_bundle_of_a_newer_tenor_is_refused_before_anything_else_is_looked_at(root: Path) -> None:
    registry = Registry(root)
    [id, *_] = registry.bundles("1h")
    folder = registry.path("1h", id)
    (folder / MANIFEST).write_text(json.dumps({"format": "tenor-bundle-9", "other": "keys"}))
    (folder / "model.txt").unlink()
    told = f"the bundle has the format tenor-bundle-9 of a newer Tenor, and this one reads {FORMAT}: update Tenor"
    with pytest.raises(BundleError, match=told):
        registry.load("1h", id)


@pytest.mark.parametrize("format", ["tenor-forest-1", "mlflow", 3, None])
def test_what_is_no_bundle_of_ours_is_refused_with_its_format(format: object) -> None:
    with pytest.raises(BundleError, match=r"has the format .* and this Tenor reads tenor-bundle-.: train again"):
        Bundle.from_files({MANIFEST: json.dumps({"format": format}).encode()})


def test_the_tables_that_the_steps_write_have_todays_format() -> None:
    assert today()["format"] == formats.TABLE
    assert formats.pending(today()) == []
