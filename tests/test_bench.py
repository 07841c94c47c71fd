"""The benches run where a peer is not installed."""

import subprocess
import sys
from pathlib import Path

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
