"""Mean distance of rows to the nearest of a sample, on the CPU with numba. Importing this compiles it, for seconds.

Distances add up over the sample's rows side by side, so that the compiler uses wide registers without being allowed to
reorder a sum: the same bits everywhere.
"""

import numpy as np
from numba import njit, types

GAP = np.float32(2.0)  # squared distance in a number that one of two rows lacks: that of two independent draws

_ROWS = types.Array(types.float32, 2, "C", readonly=True)
_TIMES = types.Array(types.int64, 1, "C", readonly=True)
_MEANS = types.void(_ROWS, _ROWS, _TIMES, _TIMES, types.int64, types.int64, types.int64, types.float32[::1])


@njit(_MEANS, cache=True, nogil=True)
def mean_distances(rows, sample, when, then, least, among, nearest, out):  # type: ignore[no-untyped-def]
    """The mean Euclidean distance of each row to its `nearest` nearest columns of the sample: float32 [N] into out.

    rows: float32 [N, D]; sample: float32 [D, M]; NaN is missing. least: where above 0, row n is compared with the first
    `among` columns m alone for which |when[n] - then[m]| >= least (int64 [N], [M]), and NaN where there are fewer. NaN
    too where fewer than `nearest` are compared.
    """
    dimensions, size = sample.shape
    total = np.empty(size, np.float32)
    best = np.empty(nearest, np.float32)
    for n in range(len(rows)):
        total[:] = 0
        for d in range(dimensions):
            z = rows[n, d]
            column = sample[d]
            if z == z:
                for m in range(size):
                    apart = z - column[m]
                    squared = apart * apart
                    total[m] += squared if squared == squared else GAP
            else:
                for m in range(size):
                    total[m] += GAP if column[m] == column[m] else np.float32(0)
        lacking = among if least > 0 else 0
        if least > 0:
            for m in range(size):
                if lacking == 0 or abs(when[n] - then[m]) < least:
                    total[m] = np.inf
                else:
                    lacking -= 1
        best[:] = np.inf
        for m in range(size):
            if total[m] < best[nearest - 1]:
                place = nearest - 1
                while place > 0 and best[place - 1] > total[m]:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = total[m]
        mean = np.float32(0)
        for place in range(nearest):
            mean += np.sqrt(best[place])
        enough = lacking == 0 and best[nearest - 1] < np.inf
        out[n] = mean / np.float32(nearest) if enough else np.float32(np.nan)
