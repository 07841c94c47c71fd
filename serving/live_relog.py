"""Signals that a killed service published and had not logged: the next one to start logs them.

They are durable (`live_published`), their rows in the prediction log are not before its next flush.
"""

import asyncio
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from conf.options import Log
from quant.bundle import Bundle, BundleError
from quant.panel import moment
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Registry, RegistryError
from serving.live import LiveService
from serving.live_published import everything, horizons, prune
from serving.live_section import SectionSignals
from serving.live_state import LiveState
from serving.live_world import World, key_of
from serving.log_rows import LAYOUT, SCHEMA, Line, frame, table
from serving.logs import log
from serving.metrics import Metrics

MARGIN = 60.0  # seconds beyond a flush: a helper outlives its service, and another instance may write slowly
LOOK = 1.0  # seconds between looks at the clock


class Relog:
    """Logs what was published before this service started, once. Any number of instances may do so at a time."""

    def __init__(
        self, root: Path, registry: Registry, live: LiveService, clock: Clock, options: Log, keep: int, metrics: Metrics
    ) -> None:
        self._root, self._registry, self._live, self._clock = root, registry, live, clock
        self._options, self._keep, self._metrics = options, keep, metrics
        self._lake = Lake(f"{root}/lake")
        self._started = clock.now()

    async def run(self) -> None:
        """Wait until nobody else can be about to write them, then log what is missing, with inputs where they can be
        made again."""
        await self._live.warm.wait()
        until = self._started + timedelta(seconds=self._options.flush_seconds + MARGIN)
        for horizon in await asyncio.to_thread(horizons, self._root):
            try:
                there = await asyncio.to_thread(self._missing, horizon)
                while there and self._clock.now() < min(until, _settled(there, until - self._started)):
                    await asyncio.sleep(LOOK)
                if there:
                    await asyncio.to_thread(self._log, horizon, self._live.current.world)
                await asyncio.to_thread(prune, self._root, horizon, self._keep)
            except Exception:  # whatever is wrong with the files or the table, the service serves; the next start tries
                log.exception("published signals could not be logged", extra={"fields": {"horizon": horizon}})

    def _missing(self, horizon: str) -> list[SectionSignals]:
        """What was published before the start and is not in the log."""
        found = [one for one in everything(self._root, horizon) if one.closed_at < self._started and one.symbols]
        if not found or not self._options.predictions or not self._lake.exists(table(horizon)):
            return found if self._options.predictions else []
        # A section is scored after its time of closing was taken: maybe on the next day.
        days = {(one.closed_at + timedelta(days=more)).date().isoformat() for one in found for more in (0, 1)}
        asked = [one.scored.request_id for one in found]
        rows = self._lake.scan(table(horizon)).filter(pl.col("partition").is_in(days), pl.col("request").is_in(asked))
        have = set(rows.select(pl.col("request").unique()).collect()["request"])
        return [one for one in found if one.scored.request_id not in have]

    def _log(self, horizon: str, world: World) -> None:
        with _alone(self._root, horizon):
            sections = self._missing(horizon)
            if not sections:
                return
            entries = {entry.number: entry.id for entry in self._registry.ledger(horizon)}
            inputs = self._inputs(horizon, world, sections)
            frames = [
                _rows(one, "champion" if entries.get(one.number) == one.bundle else "canary", X, self._options.inputs)
                for one in sections
                for X in [inputs.get(one.scored.request_id)]
            ]
            rows = pl.concat(frames)
            self._lake.append(table(horizon), rows, LAYOUT)
        for role, count in rows.group_by("role").len().iter_rows():
            self._metrics.log_rows.labels(role).inc(count)
        told = {"horizon": horizon, "rows": rows.height, "sections": len(sections), "with_inputs": len(inputs)}
        log.warning(
            "signals that were published and not logged before a service ended are logged now", extra={"fields": told}
        )

    def _inputs(self, horizon: str, world: World, sections: Sequence[SectionSignals]) -> dict[str, np.ndarray]:
        """By request: the factors float32 [N, F] of the sections whose bars still give what was answered."""
        found: dict[str, np.ndarray] = {}
        for id in {one.bundle for one in sections}:
            try:
                bundle = self._registry.load(horizon, id)
            except (RegistryError, BundleError):
                log.warning("signals are logged without inputs: their bundle cannot be read", exc_info=True)
                continue
            if horizon in world.horizons and key_of(bundle.recipe) in world.horizons[horizon].states:
                found |= _replayed(bundle, world, [one for one in sections if one.bundle == id], self._keep)
        return found


def _settled(sections: Sequence[SectionSignals], after: timedelta) -> datetime:
    """When whoever published them, and lives, has written them too."""
    return max(one.closed_at for one in sections) + after


def _replayed(bundle: Bundle, world: World, sections: Sequence[SectionSignals], keep: int) -> dict[str, np.ndarray]:
    """By request: the factors of sections of one bundle, where no bar changed since and they give the same answers."""
    horizon, recipe = world.horizons[bundle.horizon], bundle.recipe
    others = {other: world.horizons[other].bars for other in recipe.reads}
    newest = max(one.slot for one in sections)
    warm = horizon.bars.time[horizon.bars.time <= newest][-keep - recipe.lookback - 1 :][recipe.lookback :]
    pieces = LiveState(recipe, horizon.bars, others, keep).advance(newest)
    read = [bars.frame(bars.time).select("timestamp", "known_at") for bars in (horizon.bars, *others.values())]
    found = {}
    for one in sections:
        rows = next((rows for rows in pieces if one.slot in rows.slots), None)
        if rows is None or one.slot not in warm or any(map(partial(_changed, one), read)):
            continue
        of, X = rows.matrix(int(np.searchsorted(rows.slots, one.slot)))
        same = [recipe.symbols[column] for column in of.tolist()] == list(one.symbols)
        if same and np.array_equal(bundle.predict_rows(X), one.scored.values, equal_nan=True):
            found[one.scored.request_id] = X
    return found


def _changed(section: SectionSignals, bars: pl.DataFrame) -> bool:
    """Whether a bar that it read is newer than it: the same answer does not prove the same inputs, a leaf is wide."""
    until = pl.col("timestamp") <= moment(section.slot)
    return bool(bars.select((until & (pl.col("known_at") > section.closed_at)).any()).item())


def _rows(section: SectionSignals, role: str, X: np.ndarray | None, keep: bool) -> pl.DataFrame:
    """Its rows of the log, as of when it was published; without X their inputs are null, and so is their hash."""
    values, stamp = np.ascontiguousarray(section.scored.values), moment(section.slot)
    line = Line(
        section.scored.request_id, section.closed_at, "live", section.horizon, section.bundle, section.number, role,
        None, (np.zeros((len(values), 1), np.float32) if X is None else X).tobytes(), values.tobytes(),
        [(symbol, stamp) for symbol in section.symbols], 0.0,
    )  # fmt: skip
    made = frame([line], keep=keep).with_columns(
        coverage=pl.Series(section.shares), seconds=pl.lit(None, SCHEMA["seconds"])
    )
    if X is not None:
        return made
    return made.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in ("inputs", "inputs_hash"))


@contextmanager
def _alone(root: Path, horizon: str) -> Iterator[None]:
    """Nobody else on this store looks and logs meanwhile."""
    with (root / "published" / horizon / "relog.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file's closing, or with the process
        yield
