"""Processes that share a study: each runs trials until the budget is spent.

They are started anew, never forked: OpenMP, which LightGBM computes with, does not survive a fork.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from quant.folds import Fold
from quant.space import Space
from quant.trial import Fixed, Learnable, Trainer
from quant.tune import Budget, Rule, tune
from resources.studies import Studies

LOOK_SECONDS = 0.5  # between two looks at the workers


class WorkerError(RuntimeError):
    """A worker failed; the message has its error."""


@dataclass(frozen=True)
class Job:
    """What to search, and where its study is kept. root: the store's folder."""

    root: Path
    study: str
    space: Space
    budget: Budget
    rule: Rule
    data: Learnable
    folds: Sequence[Fold]
    fixed: Fixed


def search(job: Job, report: Callable[[], None]) -> None:
    """Run the job with `job.rule.workers` processes, calling `report` now and then; WorkerError when one fails."""
    context = multiprocessing.get_context("spawn")
    with _laid_out(job) as (path, light):
        ours, theirs = zip(*(context.Pipe(duplex=False) for _ in range(job.rule.workers)), strict=True)
        processes = [context.Process(target=_work, args=(light, path, end), daemon=True) for end in theirs]
        try:
            for process in processes:
                process.start()
            while any(process.is_alive() for process in processes):
                processes[0].join(LOOK_SECONDS)
                report()
                for number, (process, end) in enumerate(zip(processes, ours, strict=True), start=1):
                    if not process.is_alive() and process.exitcode:
                        said = end.recv() if end.poll() else f"it ended with status {process.exitcode}"
                        raise WorkerError(f"tuning: worker {number} of {len(processes)} failed: {said}")
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()
            for process in processes:
                if process.pid is not None:
                    process.join()


@contextmanager
def _laid_out(job: Job) -> Iterator[tuple[Path, Job]]:
    """The factors in a file that all workers map into their memory, and the job without them."""
    folder = job.root / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.npy"):  # by runs that were killed
        if not psutil.pid_exists(int(left.stem)):
            left.unlink(missing_ok=True)
    path = folder / f"{os.getpid()}.npy"
    np.save(path, job.data.X)
    try:
        yield path, replace(job, data=replace(job.data, X=job.data.X[:0]))
    finally:
        path.unlink(missing_ok=True)


def _work(job: Job, path: Path, said: Connection) -> None:
    """One worker's life: it stops after the trial in which the budget is spent or its parent dies."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    studies = Studies(job.root)
    try:
        data = replace(job.data, X=np.asarray(np.load(path, mmap_mode="r")))
        trainer = Trainer(data, job.folds, job.fixed)
        with studies.opened(job.study, job.space, maximize=job.rule.maximize) as study:
            tune(study, trainer, job.space, job.budget, job.rule, goes_on=parent.is_alive)
    except Exception as error:
        said.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        raise SystemExit(1) from error
    finally:
        studies.release()
