"""The evaluation step: its numbers are those of the out-of-fold frame, and its page is whole and self-contained."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.costs import framed, terms
from assets.evaluation import beside
from assets.findings import Trials, _trials
from assets.learning import HELD_OUT
from assets.plan import Plan
from conf.compose import compose
from quant.explain import contributions, sample
from quant.portfolio import Terms, book
from quant.score import score
from tests.assets.conftest import SMALL, Made, Pipeline
from tests.quant.test_score import world

STEPS = ("bars", "features", "factors", "model", "evaluation")
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """What a browser would fetch, the links, the anchors, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [given["href"] or ""] if tag == "a" else []
        named = [value or "" for name, value in attrs if name in ("src", "href", "data") and tag != "a"]
        self.fetched += [value for value in named if not value.startswith("data:")]
        self.anchors |= {given["id"] or ""} if "id" in given else set()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def read(made: Made) -> str:
    return Path(made.metadata["evaluation"]["report file"]).read_text()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Made]:
    pipeline = Pipeline(tmp_path_factory.mktemp("evaluation"), *SMALL)
    return pipeline, pipeline.run(*STEPS)


def test_the_page_is_whole_and_fetches_nothing(evaluated: tuple[Pipeline, Made]) -> None:
    page = read(evaluated[1])
    found = Page(page)
    assert found.open == []
    assert found.fetched == []
    assert {link.removeprefix("#") for link in found.links} == found.anchors
    assert "url(" not in page
    assert "<script" not in page
    assert "It adds up." in page
    for word in ("nan", "inf", "None"):
        assert not re.search(rf"[>\s\"]-?{word}[<\s\"%]", page), word


def test_the_figures_in_the_metadata_are_those_of_the_frame(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, made = evaluated
    told, plan = made.metadata["evaluation"], pipeline.plan()
    frame, returns, _ = beside(pipeline.registry, "5m", told["bundle"])
    past = framed(plan, frame.filter(pl.col("fold") != HELD_OUT).rename({"prediction": "model"}))
    scores = score(past, ["model"], terms(plan))["model"]
    assert told["rank IC, out of fold"] == pytest.approx(scores["rank_ic"])
    assert told["net Sharpe, out of fold"] == pytest.approx(scores["net"]["sharpe"])
    assert told["rows out of fold"] == past.height
    assert returns is None
    assert told["trials"] == 1
    assert told["deflated Sharpe"] == "undefined"


def test_restated_rows_are_in_no_score(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, made = evaluated
    frame, _, _ = beside(pipeline.registry, "5m", made.metadata["evaluation"]["bundle"])
    plan = pipeline.plan()
    late = pl.col("known_at") > pl.col("end") + pl.duration(seconds=plan.horizon.model.restated_after)
    factors = pipeline.table("factors")
    stamps = factors["timestamp"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    ends = pl.Series(plan.grid.ends(stamps)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    restated = factors.with_columns(end=ends).filter(late)
    keys = frame.select(timestamp="time", symbol="symbol")
    assert keys.join(restated, on=["timestamp", "symbol"]).height == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["source.symbols=1", "source.sessions=40"],
        ["model.objective=binary", "folds=combinatorial", "costs.overnight=false", "costs.weighting=deciles"],
        ["model.objective=lambdarank", "costs.weighting=proportional"],
    ],
    ids=["one symbol", "classes", "ranking"],
)
def test_every_kind_of_model_has_a_page(words: list[str], tmp_path: Path) -> None:
    small = [word for word in SMALL if not any(word.split("=")[0] == given.split("=")[0] for given in words)]
    made = Pipeline(tmp_path, *small, *words).run(*STEPS)
    found = Page(read(made))
    assert found.open == []
    assert not isinstance(made.metadata["evaluation"]["rank IC, out of fold"], str)


def tried(returns: np.ndarray | None) -> Trials:
    frame = world(400, 8, ic=0.02)
    made = book(frame, "prediction", Terms(1, 0.0))
    if returns is None:
        return _trials(made, None)
    columns = {str(at): returns[:, at] for at in range(returns.shape[1])}
    return _trials(made, pl.DataFrame({"time": np.arange(len(returns)), **columns}))


def test_a_single_trial_is_said_to_be_one_and_nothing_is_made_up() -> None:
    for found in (tried(None), tried(np.random.default_rng(0).normal(size=(400, 1)))):
        assert found.count == 1
        assert found.deflated is None
        assert found.overfitting is None
        assert "single trial" in found.why


def test_pruned_trials_count_as_tries_and_have_no_returns() -> None:
    returns = np.random.default_rng(1).normal(size=(400, 6))
    returns[300:, 4:] = np.nan
    found = tried(returns)
    assert (found.count, found.whole) == (6, 4)
    assert found.overfitting is not None
    assert found.overfitting.trials == 4
    assert found.deflated is not None
    assert found.probabilistic is not None
    assert found.deflated < found.probabilistic


def test_labels_cross_a_session_where_the_entry_and_the_last_bar_are_of_two(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, _ = evaluated
    plan = pipeline.plan()
    bars = pipeline.table("bars").select(time="timestamp").unique().sort("time")
    flagged = framed(plan, bars)
    per_session = flagged.group_by(pl.col("time").dt.date()).agg(
        pl.len(), pl.col("crosses").sum(), pl.col("closes").sum()
    )
    whole = per_session.filter(pl.col("len") == 78)
    # Entered one bar later and held to the sixth: from the last bar but five to the last but one it crosses.
    assert whole["crosses"].unique().to_list() == [plan.label.lookahead - 1]
    assert whole["closes"].unique().to_list() == [1]


def test_a_label_entered_at_the_close_crosses_from_the_bars_own_session(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, _ = evaluated
    plan = Plan(compose([*pipeline.words, "label=close_return"])["5m"])
    bars = pipeline.table("bars").select(time="timestamp").unique().sort("time")
    per_session = framed(plan, bars).group_by(pl.col("time").dt.date()).agg(pl.len(), pl.col("crosses").sum())
    whole = per_session.filter(pl.col("len") == 78)
    # The last bar's entry is at its close: what it holds is held over night.
    assert whole["crosses"].unique().to_list() == [plan.label.lookahead]
    assert (terms(plan).sets_off, terms(pipeline.plan()).sets_off) == ("always", "in session")


def test_shap_values_add_up_to_the_prediction(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, made = evaluated
    bundle = pipeline.registry.load("5m", made.metadata["evaluation"]["bundle"])
    X = bundle.golden.select(bundle.factors).to_numpy().astype(np.float32)
    np.testing.assert_allclose(contributions(bundle.text, X).sum(axis=1), bundle.predict_rows(X), atol=1e-9)
    assert sample(10, 20).tolist() == list(range(10))
    assert len(set(sample(100, 20).tolist())) == 20


def test_the_page_tells_coverage_against_error_of_the_rows_out_of_fold(evaluated: tuple[Pipeline, Made]) -> None:
    pipeline, made = evaluated
    frame, _, _ = beside(pipeline.registry, "5m", made.metadata["evaluation"]["bundle"])
    past = frame.filter(pl.col("fold") != HELD_OUT)
    assert past["novelty"].is_between(0, 1).all()
    page = read(made)
    assert "This model never abstains" in page
    for above in (1.0, 0.95, 0.5):
        kept = past.filter(pl.col("novelty") <= np.float32(above))
        error = 1e4 * float(((kept["prediction"] - kept["outcome"]) ** 2).mean() ** 0.5)
        assert f"<td>{above:g}</td><td>{kept.height / past.height:.1%}</td><td>{error:.4g}</td>" in page
