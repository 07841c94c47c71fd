"""What a search came to: the parameters to train with, and every trial, so that its luck can be counted against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from quant.space import Value
from quant.tune import Trial


@dataclass(frozen=True)
class Tuned:
    """The trials of a study that the budget counts, by number, and the best of them."""

    study: str
    metric: str
    best: Trial
    trials: tuple[Trial, ...]

    @property
    def params(self) -> dict[str, Value]:
        """LightGBM's parameters by name, those that were searched."""
        return self.best.params

    def summary(self) -> dict[str, Any]:
        """JSON, the same for the same trials: no times of the clock."""
        return {
            "study": self.study,
            "metric": self.metric,
            "best": self.best.number,
            "score": self.best.value,
            "params": self.params,
            "trials": [
                {
                    "number": trial.number,
                    "state": trial.state,
                    "value": trial.value if trial.state == "complete" else None,
                    "params": trial.params,
                    "scores": [score if np.isfinite(score) else None for score in trial.scores],
                }
                for trial in self.trials
            ],
        }

    def returns(self, times: Sequence[np.ndarray]) -> pl.DataFrame:
        """(time, "0", "1", …): what each trial would have earned net of costs at each section, null after its pruning.

        times: by fold, datetime64, as `quant.trial.Trainer.times` gives them. A section that several folds test (they
        are combinatorial) has the mean of theirs, null until all of them have.
        """
        at = np.concatenate(times)
        columns = {}
        for trial in self.trials:
            known = np.concatenate([*trial.returns, np.empty(0, np.float32)])
            padded = np.full(len(at), np.nan, np.float32)
            padded[: len(known)] = known
            columns[str(trial.number)] = pl.Series(padded).fill_nan(None)
        frame = pl.DataFrame({"time": pl.Series(at).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), **columns})
        whole = pl.when(pl.all().null_count() == 0).then(pl.all().mean())
        return frame.group_by("time").agg(whole).sort("time")
