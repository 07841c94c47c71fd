"""Studies in Postgres: finished trials as Optuna keeps them, and a lock per trial number that dies with its holder.

A trial is written once, when it is finished, in one transaction: a process that is killed leaves nothing behind, and
the next one finds the number free.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2  # type: ignore[import-untyped]

from quant.space import Space, distributions, inside
from quant.tune import Trial, frozen
from resources.database import Database

ATTRIBUTE = "tenor"  # the trial as we know it, beside what Optuna's own tools show


class Study:
    """One study, by name; a `quant.tune.Store`. Close it when done."""

    def __init__(self, database: Database, name: str, space: Space, *, maximize: bool) -> None:
        """Open the study, or make it."""
        from optuna import create_study, logging
        from optuna.storages import RDBStorage
        from optuna.study import StudyDirection

        logging.set_verbosity(logging.WARNING)
        self.name = name
        self._space = space
        self._locks = psycopg2.connect(database.url("optuna"))
        self._locks.autocommit = True
        try:
            # Two that make Optuna's tables, or the same study, at once get in each other's way.
            with self._locked(_key("tables")):
                self._storage = RDBStorage(database.sqlalchemy_url("optuna"))
                direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
                self._study = create_study(
                    storage=self._storage, study_name=name, direction=direction, load_if_exists=True
                )
        except BaseException:
            self._locks.close()
            raise

    def finished(self) -> dict[int, Trial]:
        """The trials by number."""
        found = (_read(trial) for trial in self._study.get_trials(deepcopy=False) if ATTRIBUTE in trial.user_attrs)
        return {trial.number: trial for trial in found}

    @contextmanager
    def claim(self, number: int) -> Iterator[bool]:
        """Whether the number is ours, until the context ends or this process does."""
        key = _key(f"{self.name}:{number}")
        ours = bool(self._ask("SELECT pg_try_advisory_lock(%s)", key))
        try:
            yield ours
        finally:
            if ours:
                self._ask("SELECT pg_advisory_unlock(%s)", key)

    def add(self, trial: Trial) -> None:
        """Write a finished trial."""
        drawn = distributions(self._space) if inside(self._space, trial.params) else {}
        record = frozen(trial, drawn)
        record.user_attrs = {ATTRIBUTE: _write(trial)}
        self._study.add_trial(record)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._locks.close()

    @contextmanager
    def _locked(self, key: int) -> Iterator[None]:
        self._ask("SELECT pg_advisory_lock(%s)", key)
        try:
            yield
        finally:
            self._ask("SELECT pg_advisory_unlock(%s)", key)

    def _ask(self, text: str, key: int) -> Any:
        with self._locks.cursor() as cursor:
            cursor.execute(text, (key,))
            return cursor.fetchone()[0]


class Studies:
    """The studies of a store, in its database; `root`: the store's folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @contextmanager
    def opened(self, name: str, space: Space, *, maximize: bool) -> Iterator[Study]:
        """The study for the length of the context; the database starts if need be."""
        with closing(Study(Database(self.root), name, space, maximize=maximize)) as study:
            yield study

    def release(self) -> None:
        """Stop using the database before this process ends."""
        Database(self.root).release()


def _key(text: str) -> int:
    """A number for PostgreSQL's advisory locks: 64 bits, signed, of a name of ours."""
    return int.from_bytes(hashlib.sha256(f"tenor study {text}".encode()).digest()[:8], "big", signed=True)


def _write(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "scores": [repr(score) for score in trial.scores],  # as text: JSON has no NaN
        "returns": [base64.b64encode(part.astype("<f4").tobytes()).decode() for part in trial.returns],
        "seconds": trial.seconds,
    }


def _read(trial: Any) -> Trial:
    held = trial.user_attrs[ATTRIBUTE]
    scores = tuple(float(score) for score in held["scores"])
    value = float(np.mean(scores)) if held["state"] == "complete" else float("nan")
    returns = tuple(np.frombuffer(base64.b64decode(part), "<f4") for part in held["returns"])
    return Trial(held["number"], held["state"], held["params"], value, scores, returns, held["seconds"])
