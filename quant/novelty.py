"""How unlike its training a row is: its distance to the nearest of a sample of training rows, as a share of theirs.

Novelty 0.97 says that 97 % of training rows lie nearer to the others than this row does. It needs nothing but the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from quant import tensors

Floats = npt.NDArray[np.float32]

LIMIT = np.float32(10)  # standard deviations: beyond them one wild number would decide alone
NO_TIMES = np.zeros(0, np.int64)
ARRAYS = ("centre", "scale", "sample", "distances")


class NoveltyError(ValueError):
    """Rows from which novelty cannot be measured."""


@dataclass(frozen=True)
class Novelty:
    """A sample of training rows, and how far training rows are from it.

    columns: the factors that count; centre, scale: mean and standard deviation of each in training, [D]; sample: rows
    in those units, [D, M], NaN = missing; distances: mean distance to the `neighbours` nearest of the sample of other
    training rows, sorted, [C]. All float32.
    """

    columns: tuple[str, ...]
    neighbours: int
    centre: Floats
    scale: Floats
    sample: Floats
    distances: Floats

    def of(self, X: Floats, names: Sequence[str]) -> Floats:
        """Novelty of rows X float32 [N, F] whose columns are `names`: [N], each from 0 to 1.

        A number that the row or a training row lacks sets them apart as two independent draws would.
        """
        from quant.nearest import mean_distances  # compiled when first needed

        found = np.empty(len(X), np.float32)
        Z = self._units(X[:, self._places(tuple(names))])
        mean_distances(Z, self.sample, NO_TIMES, NO_TIMES, 0, 0, self.neighbours, found)
        return (np.searchsorted(self.distances, found) / len(self.distances)).astype(np.float32)

    @property
    def summary(self) -> dict[str, Any]:
        """What it is, without the numbers."""
        return {"columns": list(self.columns), "neighbours": self.neighbours, "rows": self.sample.shape[1]}

    def dumps(self, **beside: Floats) -> bytes:
        """As the file that bundles keep, with further arrays beside its own."""
        meta = {"columns": list(self.columns), "neighbours": self.neighbours}
        return tensors.dumps({name: getattr(self, name) for name in ARRAYS} | beside, meta)

    @classmethod
    def loads(cls, data: bytes) -> "Novelty":
        """Read what `dumps` wrote; NoveltyError for anything else."""
        try:
            arrays, meta = tensors.loads(data)
            # A file's arrays are read-only views of its bytes, at any address.
            parts: Mapping[str, Any] = {name: np.array(arrays[name], np.float32) for name in ARRAYS}
            return cls(tuple(meta["columns"]), int(meta["neighbours"]), **parts)
        except (tensors.TensorsError, KeyError, TypeError) as error:
            raise NoveltyError(f"not a whole novelty file: {error}") from error

    def _units(self, X: Floats) -> Floats:
        return np.ascontiguousarray(np.clip((X - self.centre) / self.scale, -LIMIT, LIMIT))

    @cached_property
    def _known(self) -> dict[tuple[str, ...], npt.NDArray[np.intp]]:
        return {}

    def _places(self, names: tuple[str, ...]) -> npt.NDArray[np.intp]:
        """Where the columns are among `names`, looked up once."""
        if names not in self._known:
            self._known[names] = np.array([names.index(name) for name in self.columns])
        return self._known[names]


def fit(
    X: Floats,
    names: Sequence[str],
    rows: npt.NDArray[np.intp],
    sections: npt.NDArray[np.int64],
    *,
    columns: Sequence[str],
    sample: int,
    neighbours: int,
    apart: int,
    seed: int,
) -> Novelty:
    """The novelty of rows against the training rows `rows` of X float32 [N, F], whose columns are `names`.

    sections: the number of each row's section in time [N]. Training rows are compared with those at least `apart`
    sections away only (a quarter of training where that is less): the nearest of all share its bars, and no later row
    has such neighbours in training. sample: how many rows are kept, and as many more are measured; a third each where
    there are fewer. Each of these is compared with as many rows as are kept, of the others where it is too near to some
    of the kept: the nearest of fewer lie farther away, and every later row would look familiar. NoveltyError where
    training is too short for that.
    """
    from quant.nearest import mean_distances

    kept = min(sample, len(rows) // 3)
    if kept < 2 * neighbours:
        raise NoveltyError(
            f"{len(rows)} training rows are too few for the distance to {neighbours} neighbours: lower "
            "novelty.neighbours, or bring more bars"
        )
    drawn = np.random.default_rng(seed).permutation(rows)[: 3 * kept]
    first, second = np.sort(drawn[:kept]), np.sort(drawn[kept : 2 * kept])
    others = np.concatenate([first, drawn[kept:]])
    place = np.array([list(names).index(name) for name in columns])
    centre, scale = _moments(X, rows, place)
    made = Novelty(
        tuple(columns), neighbours, centre, scale, np.empty((len(place), 0), np.float32), np.empty(0, np.float32)
    )
    units = np.ascontiguousarray(made._units(X[others][:, place]).T)
    distances = np.empty(kept, np.float32)
    least = min(apart, int(np.ptp(sections[rows])) // 4)
    if least == 0:  # nobody is too near
        others, units = first, np.ascontiguousarray(units[:, :kept])
    mean_distances(
        made._units(X[second][:, place]), units, sections[second], sections[others], least, kept, neighbours, distances
    )
    measured = np.sort(distances[np.isfinite(distances)])  # one without enough rows far away says nothing
    if not len(measured):
        raise NoveltyError("training rows lie in so few sections that none can be compared: bring more bars")
    return Novelty(tuple(columns), neighbours, centre, scale, np.ascontiguousarray(units[:, :kept]), measured)


def _moments(X: Floats, rows: npt.NDArray[np.intp], place: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column over the rows, summed in float64; 0 and 1 where there is none."""
    centre, scale = np.zeros(len(place), np.float32), np.ones(len(place), np.float32)
    for number, column in enumerate(place):
        values = X[rows, column].astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            centre[number] = values.mean()
            scale[number] = np.float32(values.std()) or np.float32(1)
    return centre, scale
