"""The outcomes step: only answers that could have been traded are scored, each once, beside what became of the rest."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from assets import dataset
from tests.assets.conftest import SMALL, Pipeline
from tests.resources.test_registry import make_bundle

LAYOUT = {"format": "predictions-2"}


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("outcomes"), *SMALL)
    made.run("bars")
    return made


@pytest.fixture
def pipeline(bars: Pipeline, tmp_path: Path) -> Pipeline:
    """A pipeline with bars, over a log of its own."""
    import shutil

    shutil.copytree(bars.lake.root, tmp_path / "lake")
    return Pipeline(tmp_path, *SMALL)


@pytest.fixture
def bundle(pipeline: Pipeline) -> str:
    made = make_bundle("a", "5m")
    label = {"name": "forward_return", "text": pipeline.plan().label.text, "lookahead": pipeline.plan().label.lookahead}
    return pipeline.registry.write(replace(made, manifest={**made.manifest, "label": label}), {})


def labelled(pipeline: Pipeline) -> pl.DataFrame:
    """Every bar with its outcome (NaN while it waits), and `ends`."""
    labels, slots = dataset.outcomes(pipeline.plan(), pipeline.lake)
    ends = pl.DataFrame({"timestamp": slots, "ends": pipeline.plan().grid.ends(slots)}).with_columns(
        pl.all().cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    return labels.join(ends, on="timestamp").sort("timestamp", "symbol")


def answers(pipeline: Pipeline, bundle: str, seed: int = 0, **changed: Any) -> pl.DataFrame:
    """Noisy forecasts of every bar, answered a second after it ended."""
    rows = labelled(pipeline)
    noise = np.random.default_rng(seed).normal(0, 1e-3, rows.height)
    made = rows.select(
        signal=pl.format("s.{}", pl.int_range(pl.len())),
        at=pl.col("ends") + timedelta(seconds=1),
        bundle=pl.lit(bundle),
        role=pl.lit("champion"),
        symbol="symbol",
        timestamp="timestamp",
        prediction=pl.col("label").fill_nan(0.0) + pl.Series(noise),
    ).with_columns(**changed)
    return made.with_columns(partition=pl.col("at").dt.strftime("%Y-%m-%d"))


def log(pipeline: Pipeline, rows: pl.DataFrame) -> None:
    pipeline.lake.append("predictions/5m", rows, LAYOUT)


def test_before_anything_was_predicted_it_is_skipped_and_says_so(pipeline: Pipeline) -> None:
    assert "nothing was predicted yet" in pipeline.run("outcomes").metadata["outcomes"]["skipped"]


def test_realized_rank_ic_is_scipys_over_each_section(pipeline: Pipeline, bundle: str) -> None:
    rows = answers(pipeline, bundle)
    log(pipeline, rows)
    log(pipeline, answers(pipeline, bundle, seed=1, role=pl.lit("shadow")))
    told = pipeline.run("outcomes").metadata["outcomes"]
    outcome = labelled(pipeline)["label"].to_numpy()
    both = rows.with_columns(outcome=pl.Series(outcome)).filter(pl.col("outcome").is_finite())
    sections = [part for _, part in both.group_by("timestamp", maintain_order=True) if part.height >= 3]
    oracle = np.mean([spearmanr(part["prediction"], part["outcome"]).statistic for part in sections])
    scores = told["scores"]
    assert set(scores) == {f"{bundle} champion", f"{bundle} shadow"}
    assert scores[f"{bundle} champion"]["rank_ic"] == pytest.approx(oracle, abs=1e-12)
    assert scores[f"{bundle} champion"]["rows"] == both.height
    assert f"| {bundle} champion | {both.height} |" in told["realized"]
    table = pipeline.table("outcomes")
    assert table.height == 2 * both.height
    assert table.filter(role="champion").sort("timestamp", "symbol")["outcome"].to_list() == both["outcome"].to_list()
    assert told["waiting for their outcome"] > 0
    accounted = [told[name] for name in told if name in (
        "dagster/row_count", "without symbol or bar", "repeated", "of a bundle with another label", "off the grid",
        "before their bar had ended", "asked after they could be traded", "waiting for their outcome",
        "without an outcome: a bar is missing",
    )]  # fmt: skip
    assert sum(accounted) == told["answers in the log"] == 2 * rows.height


def test_what_was_no_forecast_is_counted_and_left_out(pipeline: Pipeline, bundle: str) -> None:
    rows = answers(pipeline, bundle)
    finite = labelled(pipeline)["label"].is_finite()
    row = rows.filter(finite)[40:41]
    ended = row["at"][0] - timedelta(seconds=1)

    def one(**changed: Any) -> pl.DataFrame:
        return row.with_columns(**changed)

    log(pipeline, pl.concat([
        one(),
        one(at=pl.lit(ended + timedelta(seconds=2)), prediction=pl.lit(9.9)),  # the same bar again, later
        one(symbol=pl.lit(None, pl.String)),
        one(role=pl.lit("canary"), at=pl.lit(ended - timedelta(seconds=1))),
        one(role=pl.lit("shadow"), at=pl.lit(ended + timedelta(hours=1))),
        one(bundle=pl.lit("another")),
        one(timestamp=pl.col("timestamp") + timedelta(seconds=7)),
    ]))  # fmt: skip
    told = pipeline.run("outcomes").metadata["outcomes"]
    counts = ("repeated", "without symbol or bar", "before their bar had ended", "asked after they could be traded",
              "of a bundle with another label", "off the grid")  # fmt: skip
    assert {name: told[name] for name in counts} == dict.fromkeys(counts, 1)
    assert pipeline.table("outcomes")["prediction"].to_list() == row["prediction"].to_list()


def test_answers_that_the_model_abstained_from_are_no_forecasts(pipeline: Pipeline, bundle: str) -> None:
    rows = answers(pipeline, bundle).with_columns(abstained=pl.int_range(pl.len()) % 3 == 0)
    log(pipeline, rows)
    told = pipeline.run("outcomes").metadata["outcomes"]
    signals = rows.filter(~pl.col("abstained"))["signal"]
    assert told["abstained from: told to be no signal"] == rows["abstained"].sum()
    assert set(pipeline.table("outcomes")["signal"]) <= set(signals)
    assert told["dagster/row_count"] > rows.height / 2
    assert "abstained" not in pipeline.table("outcomes").columns


def test_it_is_idempotent_and_takes_up_what_has_matured_since(pipeline: Pipeline, bundle: str) -> None:
    rows = answers(pipeline, bundle)
    half = rows["timestamp"].unique().sort()[200]
    log(pipeline, rows.filter(pl.col("timestamp") < half))
    first = pipeline.run("outcomes").metadata["outcomes"]
    assert pipeline.run("outcomes").metadata["outcomes"]["table version"] == first["table version"]
    log(pipeline, rows.filter(pl.col("timestamp") >= half))
    second = pipeline.run("outcomes").metadata["outcomes"]
    assert second["dagster/row_count"] > first["dagster/row_count"]
    assert pipeline.table("outcomes").height == second["dagster/row_count"]
    assert second["files of the log put together"] > 0
