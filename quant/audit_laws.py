"""The laws of expressions on a user's own program and panel, bit for bit, and who breaks them.

A law computes values another way and yields what must have the same bits; `examine` compares and names the entry, the
symbol, the slot and both values. A new way to compute is one more law in `LAWS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from quant.audit import Finding, listed
from quant.panel import Floats, Panel
from quant.program import Program

MOST_TOLD = 5  # breaches in the details of a check
STOPS = 4  # bars that are computed as the last one
LIVE_BARS = 20  # that the live state takes one at a time; the others in two pieces
CUTS = 2  # bars after which everything is changed


@dataclass(frozen=True)
class Subject:
    """A program and the panel its laws are tried on.

    panel: [T, S] with T at least lookback + 2, so that the slots after the first `lookback` have all they read.
    files: entry -> file.
    """

    title: str
    program: Program
    panel: Panel
    files: Mapping[str, str]

    @cached_property
    def whole(self) -> dict[str, Floats]:
        return self.program.run(self.panel)

    @cached_property
    def lookback(self) -> dict[str, int]:
        return dict(self.program.describe().select("name", "lookback").iter_rows())

    @cached_property
    def crossing(self) -> frozenset[str]:
        """Entries that read their section."""
        return frozenset(name for name, crosses in self.program.describe().select("name", "crosses").rows() if crosses)


class Compared(NamedTuple):
    """Two ways to one block of values: float32 [t, s] each, at the panel's rows from `row` on, of these symbols."""

    name: str
    found: Floats
    expected: Floats
    row: int
    symbols: Sequence[str]


Law = Callable[[Subject], Iterator[Compared]]


def truncated(subject: Subject) -> Iterator[Compared]:
    """History that starts later, as far as an entry's own look-back allows."""
    start = (len(subject.panel.time) - subject.program.lookback) // 2
    made = subject.program.run(subject.panel.between(start, len(subject.panel.time)))
    for name, back in subject.lookback.items():
        yield Compared(
            name, made[name][back:], subject.whole[name][start + back :], start + back, subject.panel.symbols
        )


def chunked(subject: Subject) -> Iterator[Compared]:
    """The same panel in pieces."""
    made = subject.program.run(subject.panel, chunk=max(7, (len(subject.panel.time) - subject.program.lookback) // 3))
    for name, values in made.items():
        yield Compared(name, values, subject.whole[name], 0, subject.panel.symbols)


def last_bar(subject: Subject) -> Iterator[Compared]:
    """One bar at a time from its look-back alone, as a service computes it."""
    back, slots = subject.program.lookback, len(subject.panel.time)
    for stop in np.unique(np.linspace(back + 1, slots, STOPS).astype(int)).tolist():
        made = subject.program.run(subject.panel.between(stop - back - 1, stop), tail=1)
        for name, values in made.items():
            yield Compared(name, values, subject.whole[name][stop - 1 : stop], stop - 1, subject.panel.symbols)


def live(subject: Subject) -> Iterator[Compared]:
    """A live state that goes on bar by bar, as a service keeps it; a GPU keeps none."""
    if not subject.program.on_cpu:
        return
    back, slots = subject.program.lookback, len(subject.panel.time)
    state = subject.program.live(subject.panel.symbols)
    edges = [0, *range(back + 1, min(back + 1 + LIVE_BARS, slots)), slots]
    for start, stop in pairwise(edges):
        for name, values in state.advance(subject.panel.between(start, stop)).items():
            yield Compared(name, values, subject.whole[name][start:stop], start, subject.panel.symbols)


def some_symbols(subject: Subject) -> Iterator[Compared]:
    """Fewer symbols: one alone, and every other one. Entries that read their section are left out."""
    symbols, named = subject.panel.symbols, subject.program.symbols
    for chosen in ({symbols[-1]}, set(symbols[::2])):
        kept = [index for index, symbol in enumerate(symbols) if symbol in chosen | set(named)]
        cut = {name: np.ascontiguousarray(values[:, kept]) for name, values in subject.panel.columns.items()}
        part = Panel(subject.panel.time, tuple(symbols[index] for index in kept), cut)
        made = subject.program.run(part)
        for name in made.keys() - subject.crossing:
            yield Compared(name, made[name], subject.whole[name][:, kept], 0, part.symbols)


def blind_to_the_future(subject: Subject) -> Iterator[Compared]:
    """Every bar after a slot replaced by nonsense: nothing at or before it may move."""
    back, slots = subject.program.lookback, len(subject.panel.time)
    for cut in np.unique(np.linspace(back, slots - 2, CUTS + 1).astype(int))[1:].tolist():
        made = subject.program.run(_nonsense_after(subject, cut))
        for name, values in made.items():
            yield Compared(name, values[: cut + 1], subject.whole[name][: cut + 1], 0, subject.panel.symbols)


LAWS: dict[str, Law] = {
    "same without older history": truncated,
    "same in chunks": chunked,
    "same bar by bar": last_bar,
    "same in a live state": live,
    "same for fewer symbols": some_symbols,
    "same when later bars change": blind_to_the_future,
}


def examine(subject: Subject) -> Iterator[Finding]:
    """Each law on the subject: how many values were compared, and the first of those that differ."""
    for title, law in LAWS.items():
        yield _held(f"{subject.title}: {title}", subject, law)


def same_bits(found: Floats, expected: Floats) -> np.ndarray:
    """Where bits are equal, bool; any NaN equals any other, all of them mean missing."""
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    return (found.view(np.int32) == expected.view(np.int32)) | (np.isnan(found) & np.isnan(expected))


def _held(check: str, subject: Subject, law: Law) -> Finding:
    values, broken = 0, dict[str, int]()
    told: dict[str, str] = {}
    for name, found, expected, row, symbols in law(subject):
        values += found.size
        differ = ~same_bits(found, expected)
        if not differ.any():
            continue
        broken[name] = broken.get(name, 0) + int(differ.sum())
        at, of = (int(place[0]) for place in np.nonzero(differ))
        stamp = f"{subject.panel.time[row + at].astype('datetime64[s]')}Z"
        told.setdefault(
            name,
            f"{subject.files[name]}: {name}, {symbols[of]} at {stamp}: {found[at, of]} instead of {expected[at, of]}"
            f" | {subject.program.texts[name]}",
        )
    if not values:
        return Finding(
            check, "skip", "does not apply here: every entry reads its section, or the device keeps no live state"
        )
    if not broken:
        return Finding(check, "pass", f"{values:,} values, none differs")
    # An entry that reads a broken one is broken too: the one declared first comes first.
    names = [name for name in subject.program.names if name in broken]
    details = [told[name] for name in names[:MOST_TOLD]]
    if len(names) > MOST_TOLD:
        details.append(f"and in {listed(names[MOST_TOLD:])}")
    return Finding(
        check,
        "fail",
        f"{sum(broken.values()):,} of {values:,} values differ, in {len(names)} of {len(subject.whole)} entries",
        tuple(details),
        tuple(names),
        "An operator breaks a law: do not train or serve these entries. Tell it with the lines above",
    )


def _nonsense_after(subject: Subject, cut: int) -> Panel:
    """The panel with rows after `cut` shuffled, rescaled and holed."""
    random = np.random.default_rng(cut)
    shape = (len(subject.panel.time) - cut - 1, len(subject.panel.symbols))
    order = random.permutation(shape[0])
    scale = np.where(random.random(shape) < 0.1, np.nan, random.uniform(0.5, 1.5, shape)).astype(np.float32)
    columns = {}
    for name, values in subject.panel.columns.items():
        columns[name] = np.concatenate([values[: cut + 1], values[cut + 1 :][order] * scale])
    return Panel(subject.panel.time, subject.panel.symbols, columns)
