"""Alpha158 against the number of symbols, of bars and of factors: CPU time per value, and memory beyond the tables.

    python bench/scaling.py            up to a million symbol-bars
    python bench/scaling.py --quick    up to 100,000

Each line is a process of its own. Memory is the peak of the process less what it held before, less the values that it
returns: what computing needs. It must not grow with bars, and time per value must stay flat: both are printed, not
promised. There is no peer here: bench/alpha158.py and bench/features.py have them.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import resource
import subprocess
import sys
import time

from alpha158 import bars, program

from quant.program import Program


def measure(symbols: int, slots: int, factors: int) -> None:
    whole = program()
    texts = dict(list(whole.texts.items())[:factors])
    compiled = Program.compile(texts, whole.declared)
    panel = bars(symbols, slots)
    compiled.run(panel.between(0, 200))  # compile the machine, touch the libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    values = compiled.run(panel)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    returned = sum(array.nbytes for array in values.values()) / 1024
    each = seconds / (symbols * slots * factors) * 1e9
    print(
        f"{symbols:>8,} {slots:>8,} {factors:>8} {seconds * 1e3:>10,.0f} {each:>10.2f} "
        f"{max(0.0, peak - returned) / 1024:>10,.0f} {returned / 1024:>10,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 100,000 symbol-bars")
    parser.add_argument("--one", nargs=3, type=int, metavar=("SYMBOLS", "BARS", "FACTORS"), help="one line")
    given = parser.parse_args()
    if given.one:
        return measure(*given.one)
    many = 1 if given.quick else 10
    shapes = [
        *((symbols * many, 500, 158) for symbols in (10, 50, 100, 200)),
        *((50, slots * many, 158) for slots in (250, 1_000, 2_000)),
        *((50, 1_000 * many, factors) for factors in (20, 40, 80, 158)),
    ]
    print(
        f"{'symbols':>8} {'bars':>8} {'factors':>8} {'ms':>10} {'ns/value':>10} {'work MB':>10} {'values MB':>10}",
        flush=True,
    )
    for shape in shapes:
        subprocess.run([sys.executable, __file__, "--one", *map(str, shape)], check=True)
    return None


if __name__ == "__main__":
    main()
