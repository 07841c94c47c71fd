"""A writer that is killed leaves the version before readable, and the next write works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl

from resources.lake import Lake

WRITER = """
import sys, time
import polars as pl
from resources import staging
from resources.lake import Lake

staging.BUFFER_ROWS = 1

def batches():
    for number in range(1_000_000):
        yield pl.DataFrame({"partition": [f"p{number % 50:02}"], "x": [number]})
        if number == 20:
            print("writing", flush=True)
        time.sleep(0.005)

Lake(sys.argv[1]).write("bars/5m", batches(), [f"p{n:02}" for n in range(50)], {})
"""


def test_a_kill_in_the_middle_of_a_write_loses_nothing_that_was_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    before = pl.DataFrame({"partition": ["p00", "p01"], "x": [1, 2]})
    lake.write("bars/5m", [before], ["p00", "p01"], {})
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"writing"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.rglob("*.parquet"))) > 20  # it was in the middle
    assert lake.version("bars/5m") == 0
    assert lake.scan("bars/5m").sort("x").collect().select("partition", "x").equals(before)
    after = before.with_columns(x=pl.col("x") * 10)
    assert lake.write("bars/5m", [after], ["p00", "p01"], {}).version == 1
    assert lake.scan("bars/5m").collect()["x"].sort().to_list() == [10, 20]
