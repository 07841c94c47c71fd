"""The model step: the same rows, config and code are the same bundle; the ledger hears of a new one once."""

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import model as step
from assets import names
from assets.dataset import load, split
from quant.bundle import Bundle
from resources.registry import Registry
from resources.settings import OVERRIDES_VARIABLE
from tests.assets.conftest import SMALL, File, Make, Pipeline

REFRESH = ("bars", "features", "factors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("model"), *SMALL)
    made.run(*REFRESH, "model")
    return made


@pytest.fixture
def bundle(trained: Pipeline) -> Bundle:
    return trained.registry.load("5m", trained.registry.bundles("5m")[0])


def never_again(*_: object, **__: object) -> None:
    raise AssertionError("trained again")


def test_the_same_rows_config_and_code_are_the_same_bundle_and_nothing_is_trained_again(
    trained: Pipeline, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "learn", never_again)
    told = trained.run("model").metadata["model"]
    assert told["bundle"] == bundle.id
    assert told["trained anew"] is False
    assert len(trained.registry.ledger("5m")) == 1


def test_a_pipeline_elsewhere_makes_the_same_bundle_of_the_same_market(
    trained: Pipeline, bundle: Bundle, tmp_path: Path
) -> None:
    other = Pipeline(tmp_path, *SMALL, "serving.port=9999")
    other.clock.set(other.clock.now() + timedelta(days=400))
    other.run(*REFRESH, "model")
    [id] = other.registry.bundles("5m")
    twin = other.registry.load("5m", id)
    assert id == bundle.id
    assert twin.to_files() == bundle.to_files()


def test_one_changed_bar_or_another_config_is_another_bundle(trained: Pipeline, bundle: Bundle) -> None:
    plan = trained.plan()
    data = load(plan, trained.lake)
    told = step.digests_of(plan, data)
    assert told == bundle.manifest["digests"]
    data.X[1234] = np.nextafter(data.X[1234], np.float32(np.inf))
    changed = step.digests_of(plan, data)
    assert {name for name in told if told[name] != changed[name]} == {"content"}
    other = Pipeline(Path("elsewhere"), *SMALL, "model.num_leaves=7")
    changed = step.digests_of(other.plan(), load(plan, trained.lake))
    assert {name for name in told if told[name] != changed[name]} == {"config"}


def test_one_bar_changed_at_the_source_is_another_bundle(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market), "model.n_estimators=5", "model.min_data_in_leaf=20")
    first = made.run(*REFRESH, "model").metadata["model"]["bundle"]
    stamp = market["timestamp"].unique().sort()[100]
    bar = (pl.col("timestamp") == stamp) & (pl.col("symbol") == "S001")
    file(market.with_columns(pl.col("volume") + bar))
    told = made.run(*REFRESH, "model").metadata
    assert told["bars"]["rows revised"] == 1
    assert told["model"]["trained anew"] is True
    assert told["model"]["bundle"] != first
    assert made.registry.bundles("5m") == [first, told["model"]["bundle"]]


def test_a_bundle_that_was_rolled_back_is_not_promoted_again_by_materializing_it_again(tmp_path: Path) -> None:
    made = Pipeline(tmp_path, *SMALL)
    made.run(*REFRESH)
    old = made.run("model").metadata["model"]["bundle"]
    new = made.run("model", values=["model.num_leaves=7"]).metadata["model"]["bundle"]
    made.registry.promote("5m", new, "by hand")
    made.registry.rollback("5m", "worse")
    told = made.run("model", values=["model.num_leaves=7"]).metadata["model"]
    assert told["bundle"] == new
    assert f"{old} stays champion" in told["promotion"]
    assert [(entry.number, entry.id) for entry in made.registry.ledger("5m")] == [(1, old), (2, new), (3, old)]


def test_the_bundle_proves_itself_from_bars_to_lightgbms_predictions(trained: Pipeline, bundle: Bundle) -> None:
    import lightgbm as lgb

    bundle.verify()
    factors = trained.table("factors")
    rows = factors.join(bundle.golden.select("symbol", "timestamp"), on=["symbol", "timestamp"], how="semi")
    X = rows.select(bundle.factors).to_numpy()
    np.testing.assert_array_equal(X, bundle.golden.select(bundle.factors).fill_nan(None).to_numpy())
    np.testing.assert_allclose(
        bundle.predict_rows(np.ascontiguousarray(X)), lgb.Booster(model_str=bundle.text).predict(X), rtol=1e-12
    )


def test_the_account_of_rows_in_the_manifest_is_the_factor_table(trained: Pipeline, bundle: Bundle) -> None:
    counts = bundle.manifest["counts"]
    parts = sum(counts[name] for name in ("train", "valid", "test", "purged", "embargoed"))
    dropped = sum(counts[name] for name in ("restated", "no label", "coverage below the minimum"))
    assert parts + dropped == trained.table("factors").height
    assert counts["rows"] == parts


def test_the_manifest_says_which_bars_trained_and_which_judged(trained: Pipeline, bundle: Bundle) -> None:
    data = load(trained.plan(), trained.lake)
    parts = split(trained.plan(), data)
    for name, rows in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        told = [datetime.fromisoformat(stamp) for stamp in bundle.manifest["spans"][name]]
        edges = data.timestamp[rows].min(), data.timestamp[rows].max()
        assert told == [edge.item().replace(tzinfo=UTC) for edge in edges]
    assert bundle.manifest["label"]["lookahead"] == 6


def test_what_is_no_identity_stands_beside_the_bundle(trained: Pipeline, bundle: Bundle) -> None:
    told = trained.registry.provenance("5m", bundle.id)
    assert told["tables"] == {step: trained.lake.version(f"{step}/5m") for step in REFRESH}
    assert told["trained_at"] == trained.clock.now().isoformat()
    text = json.dumps(bundle.manifest)
    assert str(trained.lake.root) not in text
    assert told["run"] not in text


def test_value_overrides_of_a_run_reach_the_bundle_and_structural_ones_are_refused(
    trained: Pipeline, bundle: Bundle
) -> None:
    told = trained.run("model", values=["model.seeds=[11]"]).metadata["model"]
    assert trained.registry.load("5m", told["bundle"]).manifest["config"]["model"]["seeds"] == [11]
    assert bundle.manifest["config"]["model"]["seeds"] == [7]
    with pytest.raises(Exception, match=r"source\.seed=1 shapes the graph"):
        trained.run("model", values=["source.seed=1"])


def test_the_evaluation_page_shows_the_bundle_beside_its_baselines(trained: Pipeline, bundle: Bundle) -> None:
    told = trained.run("evaluation").metadata["evaluation"]
    assert told["bundle"] == bundle.id
    for baseline in ("linear", "last return", "zero"):
        assert baseline in told["scores"]
    page = Path(told["report file"]).read_text()
    assert bundle.id in page
    assert "linear" in page


def test_evaluating_a_config_that_was_never_trained_says_what_to_do(trained: Pipeline) -> None:
    with pytest.raises(Exception, match="no bundle was trained from the present rows, config and code; materialize 5m"):
        trained.run("evaluation", values=["model.num_leaves=9"])


def test_a_refresh_between_training_and_evaluation_disturbs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training takes its time while the refresh goes on: the page is of the rows that the model learned from."""
    made = Pipeline(tmp_path, *SMALL)
    made.run(*REFRESH)
    changed = made.lake.scan("factors/5m").collect().with_columns(pl.col("momentum") + 1)
    layout, write = made.lake.layout("factors/5m") or {}, Registry.write

    def beside_a_refresh(registry: Registry, *given: Any) -> str:
        found = made.lake.write("factors/5m", [changed], changed["partition"].unique().sort().to_list(), layout)
        assert (found.version, found.changed) == (1, True)
        return write(registry, *given)

    monkeypatch.setattr(Registry, "write", beside_a_refresh)
    monkeypatch.setenv(OVERRIDES_VARIABLE, shlex.join(made.words))
    steps = [made.assets[names.key("5m", name)] for name in names.TRAIN]
    result = dg.materialize(steps, instance=dg.DagsterInstance.ephemeral(), resources=made._resources)
    assert result.success
    [id] = made.registry.bundles("5m")
    assert made.registry.provenance("5m", id)["tables"]["factors"] == 0
    assert made.lake.version("factors/5m") == 1
