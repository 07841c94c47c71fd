"""The benches run where a peer is not installed, and a peer that they call themselves is called rightly."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.quant.forests import table, train

BENCH = Path(__file__).parents[1] / "bench"


def test_without_kunquant_its_bench_says_so_in_a_line_and_goes_on() -> None:
    hidden = "import runpy, sys; sys.modules['KunQuant'] = None; sys.path.insert(0, sys.argv[1]); "
    run = "sys.argv = ['alpha158.py', '--quick']; runpy.run_path(sys.path[0] + '/alpha158.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hidden + run, str(BENCH)], cwd=BENCH.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "KunQuant is not installed: left out. Where it has a wheel, `uv pip install KunQuant` brings it"
    ]


def test_without_onnxruntime_the_forest_is_measured_against_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    from _onnx import onnx_predict

    assert onnx_predict(train({"objective": "regression"}, 2)) == {}
    assert "onnxruntime is not installed: left out" in capsys.readouterr().out


def test_lightgbms_single_row_path_answers_as_its_booster_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from _single_row import single_row

    booster, X = train({"objective": "binary"}, 20), table(50, seed=1)
    one = single_row(booster)
    assert np.concatenate([one(X[row : row + 1]) for row in range(50)]).tobytes() == booster.predict(X).tobytes()
