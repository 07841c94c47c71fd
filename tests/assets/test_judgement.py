"""A new bundle is held against the champion on rows that neither learned from, and what was decided is on record."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets import judgement, realized_drift, replay
from assets.costs import framed, terms
from assets.dataset import load, split
from assets.learning import HELD_OUT, OUT_OF_FOLD
from quant.portfolio import book
from quant.score import section_ic
from tests.assets.conftest import FEW, SMALL, Pipeline

REFRESH = ("bars", "features", "factors")
STRONG = [*SMALL, "tuning=none", "source.signal_ic=0.3"]  # the first model finds the signal
BLIND = ["model.min_data_in_leaf=1000000"]  # no split: it predicts the same for all
LENIENT = ["judging.level=0.5", "judging.correct_for_tries=false"]


def promotions(made: Pipeline, horizon: str = "5m") -> list[str]:
    return [entry.id for entry in made.registry.ledger(horizon)]


def train(made: Pipeline, *values: str) -> dict[str, Any]:
    return made.run("model", values=values).metadata["model"]


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged")
    Pipeline(root, *STRONG).run(*REFRESH)
    return root


@pytest.fixture
def made(refreshed: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The tables of `refreshed` and an empty registry."""
    import shutil

    shutil.rmtree(refreshed / "registry", ignore_errors=True)
    return Pipeline(refreshed, *STRONG)


def test_the_first_model_serves_and_its_reason_says_how_it_scored_and_where_that_is_kept(made: Pipeline) -> None:
    told = train(made)
    [entry] = made.registry.ledger("5m")
    [kept] = made.registry.judgements("5m", told["bundle"])
    assert entry.id == told["bundle"]
    assert "the first model of 5m" in entry.why
    assert "is significant" in entry.why
    assert "judgement.json no. 1" in entry.why
    assert entry.by.startswith("model step, run ")
    assert entry.why in told["promotion"]
    assert (kept["champion"], kept["wins"], kept["promotes"]) == (None, True, True)
    assert kept["p"] < 0.05
    assert told["judged sections"] == kept["sections"]
    assert json.loads(Path(told["judgement"]).read_text()) == [kept]


def test_a_first_model_without_significance_serves_by_default_and_is_a_challenger_where_the_config_says_so(
    made: Pipeline,
) -> None:
    told = train(made, *BLIND, "judging.level=0.001", "judging.first=significant")
    assert promotions(made) == []
    assert "it is kept as challenger; `tenor promote horizon=5m bundle=" in told["promotion"]
    told = train(made, *BLIND, "judging.level=0.001")
    assert promotions(made) == [told["bundle"]]
    assert "it serves because judging.first is always" in told["promotion"]


def test_the_judged_rows_are_those_from_which_neither_learned(made: Pipeline) -> None:
    train(made, *BLIND)
    told = train(made)
    [kept] = made.registry.judgements("5m", told["bundle"])
    data = load(made.plan(), made.lake)
    parts = split(made.plan(), data)
    ends = [datetime.fromisoformat(stamp) for stamp in kept["window"]]
    assert ends == [data.timestamp[parts.test][end].item().replace(tzinfo=UTC) for end in (0, -1)]
    learned = np.concatenate([parts.train, parts.valid])
    assert data.label_known[learned].max() < np.datetime64(ends[0].replace(tzinfo=None))
    for id in made.registry.bundles("5m"):
        until = judgement.learned_until(made.registry.load("5m", id), data.label_known.max())
        assert until == data.label_known[learned].max()
    assert kept["rows"] == len(parts.test)


def test_a_better_challenger_becomes_champion_and_a_worse_one_is_kept_with_the_reason(made: Pipeline) -> None:
    blind = train(made, *BLIND)["bundle"]
    told = train(made)
    assert promotions(made) == [blind, told["bundle"]]
    assert f"{told['bundle']} is better than {blind}" in told["promotion"]
    worse = train(made, *BLIND, "model.num_leaves=5")
    assert promotions(made) == [blind, told["bundle"]]
    assert f"is not shown to be better than {told['bundle']}" in worse["promotion"]
    assert "it is kept as challenger" in worse["promotion"]
    [kept] = made.registry.judgements("5m", worse["bundle"])
    assert (kept["wins"], kept["champion"]) == (False, told["bundle"])
    assert kept["factors of the champion"] == "the factor table"


def test_training_the_same_again_neither_judges_nor_promotes_twice(made: Pipeline) -> None:
    train(made)
    worse = train(made, *BLIND)["bundle"]
    again = train(made, *BLIND)
    assert again["trained anew"] is False
    assert len(made.registry.judgements("5m", worse)) == 1
    assert len(promotions(made)) == 1
    assert "is not shown to be better" in again["promotion"]


def test_the_level_is_spread_over_the_judgements_on_the_same_sections(made: Pipeline) -> None:
    train(made)
    tries = []
    for leaves in (4, 5, 6):
        id = train(made, *BLIND, f"model.num_leaves={leaves}")["bundle"]
        [kept] = made.registry.judgements("5m", id)
        tries.append((kept["tries"], kept["level"]))
    assert tries == [(k, pytest.approx(0.05 * 6 / (np.pi * k) ** 2)) for k in (1, 2, 3)]
    kept = made.registry.judgements("5m", train(made, *BLIND, "model.num_leaves=7", *LENIENT)["bundle"])[0]
    assert (kept["tries"], kept["level"]) == (None, 0.5)


def test_a_rollback_by_hand_stays_and_the_next_challenger_meets_the_champion_it_brought_back(made: Pipeline) -> None:
    blind = train(made, *BLIND)["bundle"]
    good = train(made)["bundle"]
    made.registry.rollback("5m", "trades too much", by="ada")
    told = train(made)
    assert told["promotion"] == f"{good} was champion before; {blind} stays champion"
    assert promotions(made) == [blind, good, blind]
    other = train(made, "model.num_leaves=15")
    [kept] = made.registry.judgements("5m", other["bundle"])
    assert kept["champion"] == blind


def test_a_rollback_while_a_challenger_is_judged_makes_it_meet_the_other_champion(
    made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = train(made)["bundle"]
    blind = train(made, *BLIND)["bundle"]
    made.registry.promote("5m", blind, "by hand")
    real, seen = judgement._judge, []

    def judge(plan, data, lake, registry, bundle, champion):
        found = real(plan, data, lake, registry, bundle, champion)
        if not seen:
            registry.rollback("5m", "by hand, just now")
        seen.append(champion.id)
        return found

    monkeypatch.setattr(judgement, "_judge", judge)
    made.run("model", values=[*LENIENT, "model.num_leaves=16"])
    assert seen == [blind, good]
    assert promotions(made)[:3] == [good, blind, good]


def test_a_champion_with_other_expressions_is_judged_on_its_own_factors_from_the_bars(
    made: Pipeline, refreshed: Path, configs: Path
) -> None:
    """The same prediction, whether the factors of the champion come from the table or from the bars."""
    old = train(made)["bundle"]
    data = load(made.plan(), made.lake)
    rows = split(made.plan(), data).test
    champion = made.registry.load("5m", old)
    times = pl.Series(data.timestamp[rows]).dt.replace_time_zone("UTC")
    from_bars = judgement._from_bars(made.plan(), made.lake, champion, times)
    table = pl.DataFrame({"time": times, "symbol": data.symbol[rows], "table": champion.predict_rows(data.X[rows])})
    both = table.join(from_bars, on=["time", "symbol"], how="left")
    assert both["champion"].null_count() == 0
    np.testing.assert_array_equal(both["table"], both["champion"])

    # What `tenor run` asks a champion that was not beaten.
    newest = replay.newest(made.plan(), made.lake, champion)
    stored = made.table("factors").filter(pl.col("timestamp") == pl.col("timestamp").max()).sort("symbol")
    assert newest.with_columns(pl.col(champion.factors).fill_nan(None)).equals(
        stored.select(newest.columns).with_columns(pl.col(champion.factors).fill_nan(None))
    )

    (configs / "factors" / "fewer.yaml").write_text("# @package factors.fewer\nback: log_returns(close)\n")
    fewer = Pipeline(refreshed, *[word for word in STRONG if word not in FEW], "features=[few]", "factors=[fewer]")
    fewer.run("factors")
    try:
        told = train(fewer)
    finally:
        made.run("factors")
    [kept] = made.registry.judgements("5m", told["bundle"])
    assert kept["champion"] == old
    assert kept["factors of the champion"] == "its own expressions over the bars"
    assert kept["sections"] > 60


@pytest.mark.parametrize(
    ("value", "told"),
    [("label.bars=3", "another label"), ("judging.min_sections=100000", "judging.min_sections asks for 100000")],
)
def test_what_cannot_be_judged_keeps_the_champion_and_says_why(made: Pipeline, value: str, told: str) -> None:
    old = train(made)["bundle"]
    other = train(made, value, "model.num_leaves=9", *LENIENT)
    assert promotions(made) == [old]
    assert told in other["promotion"]
    assert "stays champion" in other["promotion"]
    assert len(made.registry.judgements("5m", other["bundle"])) == 1


def test_a_champion_that_is_damaged_is_not_replaced_silently(made: Pipeline) -> None:
    old = train(made)["bundle"]
    (made.registry.path("5m", old) / "model.txt").write_text("no model")
    told = train(made, "model.num_leaves=9", *LENIENT)
    assert promotions(made) == [old]
    assert "model.txt is damaged" in told["promotion"]


def test_a_champion_that_learned_from_the_newest_bars_cannot_be_judged_on_them(made: Pipeline) -> None:
    old = train(made)["bundle"]
    until = judgement.learned_until(made.registry.load("5m", old), load(made.plan(), made.lake).label_known.max())
    file = made.registry.path("5m", old) / "manifest.json"
    manifest = json.loads(file.read_text())
    newest = manifest["spans"]["test"][1]
    manifest["spans"]["valid"][1] = newest
    del manifest["files"]["manifest.json"]  # its own hash
    file.write_text(json.dumps(manifest))
    told = train(made, "model.num_leaves=9", *LENIENT)
    assert promotions(made) == [old]
    assert "learned from all bars whose outcome is known by now" in told["promotion"]
    assert np.datetime64(newest.removesuffix("Z")) > until


def test_net_returns_after_the_declared_costs_can_be_the_measure(made: Pipeline) -> None:
    blind = train(made, *BLIND)["bundle"]
    told = train(made, "judging.metric=net_return", *LENIENT)
    [kept] = made.registry.judgements("5m", told["bundle"])
    assert (kept["champion"], kept["rule"]["metric"], kept["champion_score"]) == (blind, "net_return", 0.0)
    assert "net return a year" in kept["why"]
    assert kept["sections"] > 60
    dear = train(made, "judging.metric=net_return", *LENIENT, "costs.bps_per_side=100.0", "model.num_leaves=9")
    [costly] = made.registry.judgements("5m", dear["bundle"])
    assert costly["score"] < kept["score"]


def test_how_models_are_judged_does_not_make_another_model(made: Pipeline) -> None:
    first = train(made)
    assert train(made, "judging.margin=0.01", "judging.level=0.2")["bundle"] == first["bundle"]


def test_a_model_that_abstains_has_one_score_wherever_it_is_told(made: Pipeline) -> None:
    values = ["novelty.abstain_above=0.8"]
    run = made.run("model", "evaluation", values=values)
    id = run.metadata["model"]["bundle"]
    [kept] = made.registry.judgements("5m", id)
    rows = pl.read_parquet(made.registry.path("5m", id) / OUT_OF_FOLD).filter(pl.col("fold") == HELD_OUT)
    traded = rows.filter(pl.col("novelty") <= np.float32(0.8))
    assert 0.02 < kept["abstained"]["challenger"] == pytest.approx(1 - traded.height / rows.height)
    expected = section_ic(traded, "spearman")["ic"].mean()
    assert kept["score"] == pytest.approx(expected)
    assert kept["score"] != pytest.approx(section_ic(rows, "spearman")["ic"].mean(), abs=1e-9)
    assert made.registry.load("5m", id).scores["model"]["rank_ic"] == pytest.approx(expected)
    promise = realized_drift.promised(made.plan(), made.registry, id).filter(pl.col("fold") == HELD_OUT)
    assert promise["rank_ic"].mean() == pytest.approx(expected)
    told = run.metadata["evaluation"]
    assert told["rank IC, judging window"] == pytest.approx(expected, abs=1e-4)
    plan = made.plan()
    held = framed(plan, rows).with_columns(
        prediction=pl.when(pl.col("novelty") <= np.float32(0.8)).then("prediction").otherwise(np.nan)
    )
    sharpe = book(held, "prediction", terms(plan)).summary()["sharpe"]
    assert told["net Sharpe, judging window"] == pytest.approx(sharpe, abs=1e-3)
    page = Path(told["report file"]).read_text()
    assert "<span>abstains from " in page
    assert "Every other figure of this page is of its signals alone" in page
    assert "on the same rows (but the model not on those that it abstains from)" in page
