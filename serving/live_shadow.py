"""What a challenger that reads other inputs than the champion says of the same bars: for the log alone."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from quant.live_recipe import LiveRows
from quant.panel import moment
from resources.clock import Clock
from serving import bars
from serving.challengers import Challengers
from serving.live_section import SectionSignals
from serving.logs import fresh_id, log
from serving.messages import PredictBars
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.problems import Problem
from serving.record import Key, Record
from serving.scoring import Scorer

WAITING = 4  # requests with bars that may wait to be scored once more; others are not, and are counted


def of_section(
    challenger: Predictor, pieces: Sequence[LiveRows], section: SectionSignals, clock: Clock
) -> Record | None:
    """Its answers for a closed section, under the champion's signals where both know the same symbols. Blocking."""
    rows = next((rows for rows in pieces if section.slot in rows.slots), None)
    if rows is None:
        return None  # before what a state that began again computes
    of, X = rows.matrix(int(np.searchsorted(rows.slots, section.slot)))
    symbols = [challenger.bundle.recipe.symbols[column] for column in of.tolist()]
    if not symbols:
        return None
    stamp = moment(section.slot)
    request = section.scored.request_id if symbols == list(section.symbols) else fresh_id()
    return _record(challenger, "live", request, [(symbol, stamp) for symbol in symbols], X, clock)


def _record(
    challenger: Predictor, route: str, request: str, keys: Sequence[Key], X: np.ndarray, clock: Clock
) -> Record:
    values = challenger.bundle.predict_rows(X)
    return Record(request, clock.now(), route, challenger.bundle.horizon, challenger, X, values, keys, 0.0)


class BarsShadow:
    """Scores requests with bars once more, on a thread of its own, after they were answered."""

    def __init__(self, challengers: Challengers, scorer: Scorer, clock: Clock, metrics: Metrics) -> None:
        self._challengers, self._scorer, self._clock, self._metrics = challengers, scorer, clock, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, body: PredictBars, route: str, request: str, answered: Sequence[Key]) -> None:
        """Score a request that the champion has answered. On the event loop; never waits."""
        challenger = self._challengers.apart(body.horizon)
        if challenger is None:
            return
        if len(self._tasks) >= WAITING:
            self._metrics.shadow_failures.inc(len(answered))
            return
        task = asyncio.create_task(self._score(challenger, body, route, request, list(answered)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.gather(*self._tasks)
        self._thread.shutdown()

    async def _score(
        self, challenger: Predictor, body: PredictBars, route: str, request: str, answered: list[Key]
    ) -> None:
        def made() -> Record:
            keys, X = bars.rows_of(challenger.bundle, body)
            return _record(challenger, route, request if keys == answered else fresh_id(), keys, X, self._clock)

        try:
            record = await asyncio.get_running_loop().run_in_executor(self._thread, made)
        except Problem:  # bars that are enough for the champion need not be for it: nobody sent them to it
            self._metrics.shadow_failures.inc(len(answered))
        except Exception:  # a challenger's trouble is nobody else's
            self._metrics.shadow_failures.inc(len(answered))
            log.exception("the challenger could not score a request", extra={"fields": {"horizon": body.horizon}})
        else:
            self._scorer.shadow(record)
