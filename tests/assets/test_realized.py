"""The realized step: what was served against what judging promised, by sections whose outcome is known."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets import names
from assets.learning import HELD_OUT, OUT_OF_FOLD
from tests.assets.conftest import SMALL, Pipeline
from tests.resources.test_registry import make_bundle

SYMBOLS = [f"S{number:03d}" for number in range(8)]
WATCH = ["drift.realized.sessions=3", "drift.realized.min_sections=50", "source.sessions=24"]


def sections(made: Pipeline, keys: list[str], skill: float, seed: int) -> pl.DataFrame:
    """Predictions with a known correlation with their outcome, in every bar of some sessions."""
    random = np.random.default_rng(seed)
    slots = np.concatenate([made.plan().grid.slots(*[np.datetime64(key, "D").item()] * 2) for key in keys])
    outcome, noise = random.normal(size=(2, len(slots), len(SYMBOLS)))
    return pl.DataFrame(
        {
            "time": pl.Series(np.repeat(slots, len(SYMBOLS))).dt.replace_time_zone("UTC"),
            "symbol": SYMBOLS * len(slots),
            "outcome": outcome.ravel(),
            "prediction": (skill * outcome + np.sqrt(1 - skill**2) * noise).ravel(),
        }
    )


@pytest.fixture
def made(tmp_path: Path) -> Pipeline:
    """A champion that promised a rank IC of about 0.3 in the sessions up to the sixth last."""
    made = Pipeline(tmp_path, *SMALL, *WATCH)
    past = sections(made, made.partition_keys()[:-6], 0.3, seed=1)
    before = pl.col("time") < pl.col("time").max().dt.offset_by("-5d")
    past = past.with_columns(fold=pl.when(before).then(0).otherwise(HELD_OUT).cast(pl.Int32), path=pl.lit(0, pl.Int32))
    buffer = io.BytesIO()
    past.write_parquet(buffer)
    id = made.registry.write(make_bundle("a", "5m"), {}, {OUT_OF_FOLD: buffer.getvalue()})
    made.registry.promote("5m", id, "the first")
    return made


def serve(made: Pipeline, keys: list[str], skill: float, **changed: Any) -> None:
    """Write answers and their outcomes as the outcomes step does."""
    champion = made.registry.champion("5m")
    assert champion is not None
    rows = sections(made, keys, skill, seed=2).rename({"time": "timestamp"})
    rows = rows.with_columns(bundle=pl.lit(champion.id), role=pl.lit("champion")).with_columns(**changed)
    days = rows.with_columns(partition=pl.col("timestamp").dt.strftime("%Y-%m-%d"))
    made.lake.write("outcomes/5m", [days], keys, {"format": "outcomes-1"})


def test_before_there_are_outcomes_it_is_skipped_and_says_so(made: Pipeline) -> None:
    run = made.run("realized")
    assert "has an outcome yet" in run.metadata["realized"]["skipped"]
    assert run.checks[names.AS_PROMISED].passed


def test_a_champion_that_keeps_its_promise_passes_with_figures_and_a_page(made: Pipeline) -> None:
    keys = made.partition_keys()[-4:]
    serve(made, keys, 0.3)
    run = made.run("realized")
    told, check = run.metadata["realized"], run.checks[names.AS_PROMISED]
    assert check.passed
    assert (told["session"], told["sessions"]) == (keys[-1], 3)
    assert told["rank IC, realized"] == pytest.approx(told["rank IC, promised"], abs=0.1)
    assert told["distance of the distributions"] < told["its threshold"]
    page = Path(told["report file"])
    assert page.name == "realized.html"
    assert "not shown to be below" in page.read_text()
    row = made.lake.scan("realized/5m").collect()
    assert row["session"].cast(pl.String).to_list() == [keys[-1]]
    assert not row["failed"][0]


def test_a_champion_whose_skill_is_gone_fails_and_the_table_keeps_every_session(made: Pipeline) -> None:
    keys = made.partition_keys()[-6:]
    serve(made, keys[:3], 0.3)
    assert made.run("realized").checks[names.AS_PROMISED].passed
    serve(made, keys[3:], -0.2)
    run = made.run("realized")
    check = run.checks[names.AS_PROMISED]
    assert not check.passed
    assert "below 0.5 of the promised" in (check.description or "")
    assert "not shown" not in (check.description or "")
    rows = made.lake.scan("realized/5m").sort("session").collect()
    assert rows["session"].cast(pl.String).to_list() == [keys[2], keys[-1]]
    assert rows["failed"].to_list() == [False, True]
    version = made.lake.version("realized/5m")
    made.run("realized")
    assert made.lake.version("realized/5m") == version


def test_only_answers_of_the_champion_as_champion_count(made: Pipeline) -> None:
    serve(made, made.partition_keys()[-3:], -0.9, role=pl.lit("shadow"))
    assert "has an outcome yet" in made.run("realized").metadata["realized"]["skipped"]


def test_too_few_sections_are_no_decay(made: Pipeline) -> None:
    serve(made, made.partition_keys()[-1:], -0.5)
    wide = Pipeline(Path(made.lake.root).parent, *SMALL, *WATCH, "drift.realized.min_sections=100")
    run = wide.run("realized")
    assert run.checks[names.AS_PROMISED].passed
    assert "100 of each are asked for" in run.metadata["realized"]["verdict"]
