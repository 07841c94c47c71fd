"""How forests are walked here: timings of this kind of machine, kept beside the registry.

    evaluators/<device>.json    seconds by forest shape, evaluator and rows

Measuring takes seconds of a core, so it is done before readiness only. A forest of a new shape that arrives
under load takes the choice of the nearest shape that is known, and is measured at the next start.
"""

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np

from conf.options import Evaluator
from quant.forest import Forest, Name
from quant.forest_choice import Choice, Shape, Timings, available, device, fastest, fixed, measure, nearest, shape
from serving.logs import event


class EvaluatorError(ValueError):
    """An evaluator that this machine cannot run; the message names those it can."""


class Evaluators:
    """Chooses for one process. wanted: `serving.evaluator` of the config, "measured" is whichever is fastest."""

    def __init__(self, store: Path, wanted: Evaluator = "measured") -> None:
        self._fixed = None if wanted == "measured" else wanted
        if self._fixed and self._fixed not in available():
            raise EvaluatorError(
                f"serving.evaluator={wanted} cannot run here, there is no such device: "
                f"choose measured, {' or '.join(available())}"
            )
        self._file = Path(store) / "evaluators" / f"{_slug(device())}.json"
        self._known = _read(self._file)

    def choose(self, forest: Forest, rows: np.ndarray, *, quiet: bool) -> Choice:
        """The choice for a forest, its evaluators warm. Call from one thread at a time.

        rows: float32 [N, F], typical ones, to measure with; quiet: no traffic is served that measuring could disturb.
        """
        choice = fixed(self._fixed) if self._fixed else self._fastest(forest, rows, quiet)
        for name in {name for _, name in choice.steps}:
            forest.warm(name)
        return choice

    def _fastest(self, forest: Forest, rows: np.ndarray, quiet: bool) -> Choice:
        wanted = shape(forest)
        if wanted not in self._known:
            if not quiet:
                near = nearest(wanted, self._known)
                return fastest(self._known[near]) if near else fixed("native")
            self._known[wanted] = measure(forest, rows)
            event(logging.INFO, "evaluators measured", shape=wanted, choice=str(fastest(self._known[wanted])))
            try:
                self._write()
            except OSError as error:  # no reason to refuse a bundle
                event(logging.WARNING, "timings of evaluators cannot be kept: the next start measures", why=str(error))
        return fastest(self._known[wanted])

    def _write(self) -> None:
        """Replace the file as a whole: a reader sees the old one or the new one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        shapes = [{"shape": key, "seconds": timings} for key, timings in sorted(self._known.items())]
        part.write_text(json.dumps({"device": device(), "shapes": shapes}, indent=1))
        part.replace(self._file)


def _read(file: Path) -> dict[Shape, Timings]:
    """What an earlier process measured. Timings decide about time alone: a damaged file is measured again."""
    try:
        told = json.loads(file.read_text())
        return {tuple(one["shape"]): _timings(one["seconds"]) for one in told["shapes"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        event(logging.WARNING, "timings of evaluators cannot be read: they are measured again", why=str(error))
        return {}


def _timings(told: Any) -> Timings:
    """Of the evaluators that this machine still has."""
    names = [name for name in get_args(Name) if name in told and name in available()]
    if not any(told[name] for name in names):
        raise ValueError("no evaluator in it can run here")
    return {name: {int(rows): float(seconds) for rows, seconds in told[name].items()} for name in names}


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
