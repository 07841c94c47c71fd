"""A small machine for the CPU that runs steps block by block, in the cache: a few slots of a few symbols at a time.

Compiled once by numba and kept beside this file, or in NUMBA_CACHE_DIR, for every program: a program is data. Each
operation is one loop over neighbouring floats without contraction or reordering, so its bits are those of MLX.
"""

import math

import numpy as np
from numba import njit

OPERATIONS = (
    *("load", "store", "hand", "add", "subtract", "multiply", "divide", "negate"),
    *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "present", "both"),
    *("select", "fill", "minimum", "maximum", "absolute", "sign", "sqrt", "log", "multiply_add", "scale_add"),
)
LOAD, STORE, HAND, ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE = range(8)
LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, PRESENT, BOTH = range(8, 16)
SELECT, FILL, MINIMUM, MAXIMUM, ABSOLUTE, SIGN, SQRT, LOG, MULTIPLY_ADD, SCALE_ADD = range(16, 26)
CODE = {name: number for number, name in enumerate(OPERATIONS)}


@njit(cache=True, nogil=True, error_model="numpy")
def advance(  # type: ignore[no-untyped-def]
    code, numbers, since, base, kept, room, row, arena, width, block, left, inputs, handed, outputs, first, begin, end
):
    """Run a program over the rows of `inputs` [columns, rows, symbols], for `width` symbols from `left` on.

    code: int32 [steps, 8]: operation, register written, then register and lag of up to three arguments. numbers:
    what `fill` fills in and `scale_add` multiplies by. since: the first row at which a step is read; earlier ones
    are skipped. base, kept, room, row: per register its offset in the arena, the rows of history it keeps, the rows
    it has room for and its next row; `row` and `arena` are the state that a later call goes on from. handed
    [values, rows, symbols] takes values for later stages; outputs [values, slots, symbols] takes results at
    begin … end, row `first` of the run at begin.
    """
    rows = inputs.shape[1]
    one, zero, missing = np.float32(1), np.float32(0), np.float32(np.nan)
    for t in range(0, rows, block):
        high = min(block, rows - t)
        n = high * width
        for k in range(len(code)):
            if since[k] >= t + high:
                continue
            operation = code[k, 0]
            written = code[k, 1]
            at = base[written] + row[written] * width
            out = arena[at : at + n]
            if operation == LOAD:
                for r in range(high):
                    out[r * width : (r + 1) * width] = inputs[code[k, 2], t + r, left : left + width]
                continue
            at = base[code[k, 2]] + (row[code[k, 2]] - code[k, 3]) * width
            x = arena[at : at + n]
            if operation == HAND:
                for r in range(high):
                    handed[code[k, 4], t + r, left : left + width] = x[r * width : (r + 1) * width]
                continue
            if operation == STORE:
                for r in range(high):
                    to = begin + t + r - first + code[k, 5]
                    if begin <= to < end:
                        line = x[r * width : (r + 1) * width]
                        into = outputs[code[k, 4], to, left : left + width]
                        for s in range(width):
                            into[s] = line[s] + (line[s] - line[s])
                continue
            at = base[code[k, 4]] + (row[code[k, 4]] - code[k, 5]) * width
            y = arena[at : at + n]
            if operation == SCALE_ADD:
                number = numbers[k]
                for i in range(n):
                    out[i] = number * x[i] + y[i]
            elif operation == ADD:
                for i in range(n):
                    out[i] = x[i] + y[i]
            elif operation == MULTIPLY:
                for i in range(n):
                    out[i] = x[i] * y[i]
            elif operation == MULTIPLY_ADD:
                at = base[code[k, 6]] + (row[code[k, 6]] - code[k, 7]) * width
                z = arena[at : at + n]
                for i in range(n):
                    out[i] = x[i] * y[i] + z[i]
            elif operation == SUBTRACT:
                for i in range(n):
                    out[i] = x[i] - y[i]
            elif operation == DIVIDE:
                for i in range(n):
                    out[i] = x[i] / y[i]
            elif operation == MINIMUM:
                for i in range(n):
                    out[i] = x[i] if x[i] < y[i] or x[i] != x[i] else y[i]
            elif operation == MAXIMUM:
                for i in range(n):
                    out[i] = x[i] if x[i] > y[i] or x[i] != x[i] else y[i]
            elif operation == NEGATE:
                for i in range(n):
                    out[i] = -x[i]
            elif operation == LESS:
                for i in range(n):
                    out[i] = one if x[i] < y[i] else zero
            elif operation == LESS_EQUAL:
                for i in range(n):
                    out[i] = one if x[i] <= y[i] else zero
            elif operation == GREATER:
                for i in range(n):
                    out[i] = one if x[i] > y[i] else zero
            elif operation == GREATER_EQUAL:
                for i in range(n):
                    out[i] = one if x[i] >= y[i] else zero
            elif operation == EQUAL:
                for i in range(n):
                    out[i] = one if x[i] == y[i] else zero
            elif operation == NOT_EQUAL:
                for i in range(n):
                    out[i] = one if x[i] != y[i] else zero
            elif operation == PRESENT:
                for i in range(n):
                    out[i] = one if x[i] == x[i] else zero
            elif operation == BOTH:
                for i in range(n):
                    out[i] = x[i] * y[i]
            elif operation == SELECT:
                at = base[code[k, 6]] + (row[code[k, 6]] - code[k, 7]) * width
                z = arena[at : at + n]
                for i in range(n):
                    chosen, other = y[i], z[i]  # read both: a branch around a load keeps it from the vector units
                    out[i] = chosen if x[i] != zero else other
            elif operation == FILL:
                number = numbers[k]
                for i in range(n):
                    out[i] = x[i] if x[i] == x[i] else number
            elif operation == ABSOLUTE:
                for i in range(n):
                    out[i] = abs(x[i])
            elif operation == SIGN:
                for i in range(n):
                    out[i] = -one if x[i] < zero else (one if x[i] > zero else zero)
            elif operation == SQRT:
                for i in range(n):
                    out[i] = np.sqrt(x[i])
            elif operation == LOG:
                for i in range(n):
                    out[i] = math.log(x[i]) if x[i] > zero else (-np.inf if x[i] == zero else missing)
        for r in range(len(base)):
            if kept[r] > 0:
                row[r] += high
                if row[r] + block > room[r]:
                    old, size = base[r] + (row[r] - kept[r]) * width, kept[r] * width
                    arena[base[r] : base[r] + size] = arena[old : old + size]
                    row[r] = kept[r]


@njit(cache=True, nogil=True)
def forget(initial, base, kept, row, arena, width):  # type: ignore[no-untyped-def]
    """Set the history of every register to its initial value."""
    for r in range(len(base)):
        arena[base[r] : base[r] + kept[r] * width] = initial[r]
        row[r] = kept[r]
