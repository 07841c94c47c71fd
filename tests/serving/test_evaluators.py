"""The service's choice of an evaluator: measured before readiness, kept beside the registry, never under load."""

import json
import logging

import httpx
import numpy as np
import pytest

from quant import forest
from quant.forest_choice import available, fastest, fixed
from resources.inference import Inference
from serving import evaluators
from serving.evaluators import EvaluatorError, Evaluators
from tests.quant.forests import table, train

TIMINGS = {"native": {1: 1e-6, 64: 5e-5}, "mlx": {1: 1e-4, 64: 1e-5}}


@pytest.fixture(scope="module")
def small():
    return forest.compile(train({"objective": "regression", "num_leaves": 7}, 5))


@pytest.fixture(scope="module")
def large():
    return forest.compile(train({"objective": "regression", "num_leaves": 31}, 40))


@pytest.fixture
def measured(monkeypatch):
    """How often something was measured, and made-up timings."""
    calls = []
    monkeypatch.setattr(evaluators, "measure", lambda made, rows: calls.append(made) or TIMINGS)
    return calls


ROWS = table(20, seed=0)


def test_a_shape_is_measured_once_and_the_next_process_remembers(tmp_path, small, measured):
    first = Evaluators(tmp_path).choose(small, ROWS, quiet=True)
    assert str(first) == "native, mlx from 8 rows"
    assert Evaluators(tmp_path).choose(small, ROWS, quiet=True) == first
    assert len(measured) == 1
    (file,) = (tmp_path / "evaluators").iterdir()
    assert json.loads(file.read_text())["shapes"][0]["seconds"]["mlx"] == {"1": 1e-4, "64": 1e-5}


def test_under_load_nothing_is_measured_and_the_nearest_known_shape_decides(tmp_path, small, large, measured):
    chosen = Evaluators(tmp_path)
    assert chosen.choose(large, ROWS, quiet=False) == fixed("native")  # nothing is known yet
    known = chosen.choose(small, ROWS, quiet=True)
    assert chosen.choose(large, ROWS, quiet=False) == known
    assert measured == [small]


def test_a_fixed_evaluator_is_used_for_every_batch_and_never_measured(tmp_path, small, measured):
    choice = Evaluators(tmp_path, "mlx").choose(small, ROWS, quiet=True)
    assert {choice.of(rows) for rows in (1, 10**6)} == {"mlx"}
    assert measured == []


@pytest.mark.skipif("gpu" in available(), reason="there is a GPU here")
def test_an_evaluator_that_cannot_run_here_is_refused_at_the_start_with_those_that_can(tmp_path):
    with pytest.raises(EvaluatorError, match=r"gpu cannot run here.*measured, native or mlx"):
        Evaluators(tmp_path, "gpu")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"shapes": [{"shape": [1, 1, 1], "seconds": {}}]}'])
def test_a_damaged_file_is_said_and_measured_again(tmp_path, small, measured, caplog, damage):
    Evaluators(tmp_path).choose(small, ROWS, quiet=True)
    (file,) = (tmp_path / "evaluators").iterdir()
    file.write_text(damage)
    with caplog.at_level(logging.WARNING):
        chosen = Evaluators(tmp_path)
    assert "measured again" in caplog.text
    assert str(chosen.choose(small, ROWS, quiet=True)) == "native, mlx from 8 rows"
    assert len(measured) == 2
    assert Evaluators(tmp_path).choose(small, ROWS, quiet=True).of(64) == "mlx"


def test_timings_that_cannot_be_kept_are_said_and_used_all_the_same(tmp_path, small, measured, caplog):
    (tmp_path / "evaluators").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        choice = Evaluators(tmp_path).choose(small, ROWS, quiet=True)
    assert "the next start measures" in caplog.text
    assert choice.of(64) == "mlx"


def test_whatever_is_chosen_is_warm_and_gives_the_same_bits(tmp_path, small):
    choice = Evaluators(tmp_path).choose(small, ROWS, quiet=True)
    whole = small.predict(ROWS)
    for rows in (1, 5, 20):
        assert small.predict(ROWS[:rows], choice.of(rows)).tobytes() == whole[:rows].tobytes()
    assert set(small._evaluators) >= set(available())
    assert np.isfinite(whole).all()


@pytest.mark.parametrize("name", [name for name in ("mlx", "gpu") if name in available()])
def test_the_config_fixes_the_evaluator_the_models_show_it_and_answers_keep_their_bits(registry, tmp_path, serve, name):
    answers = {}
    for wanted in ("measured", name):
        with serve(tmp_path, evaluator=wanted) as url, httpx.Client(base_url=url, timeout=30) as client:
            with Inference(url) as inference:
                inference.wait_ready(30)
            shown = client.get("/models/5m").json()["evaluator"]
            assert shown == (name if wanted == name else _measured(tmp_path))
            body = client.get("/models/5m/example", params={"section": True}).json()
            answers[wanted] = [one["prediction"] for one in client.post("/predict", json=body).json()["predictions"]]
    assert answers["measured"] == answers[name]
    assert len(answers[name]) > 1


def _measured(root):
    """What the file beside the registry says of its only forest."""
    (file,) = (root / "evaluators").iterdir()
    (one,) = json.loads(file.read_text())["shapes"]
    return str(fastest({name: {int(n): s for n, s in taken.items()} for name, taken in one["seconds"].items()}))
