"""Names that several steps, the sensor and the command line must agree on."""

from collections.abc import Sequence

import dagster as dg

STEPS = ("bars", "features", "factors", "vectors", "drift", "model", "evaluation", "deployment")
REFRESH = STEPS[:5]
TRAIN = ("model", "evaluation")
REALIZED = "realized"  # scores of what was served, against what was promised: after outcomes
OUTCOMES = "outcomes"  # of what was served: no part of a run, there is nothing to score before models have served

FEATURES_VALID = "features_match_their_schema"
FACTORS_VALID = "factors_match_their_schema"
BARS_ACCOUNTED = "every_bar_is_accounted_for"
AS_PROMISED = "realized_scores_keep_what_judging_promised"
CONVERGED = "every_service_serves_the_ledger"
NO_DRIFT = "current_window_looks_like_training"


TRAINING = "training"  # the pool of everything that learns: one run at a time, so that two thirds stay for refreshes


def tables_pool(horizon: str) -> str:
    """The pool of a horizon's tables: one run at a time, for a table has one writer."""
    return f"tables_{horizon}"


def key(horizon: str, step: str) -> dg.AssetKey:
    return dg.AssetKey([horizon, step])


def table(step: str, horizon: str) -> str:
    """Name of a step's table in the lake, e.g. `bars/5m`."""
    return f"{step}/{horizon}"


def job(horizon: str, what: str) -> str:
    """Name of a horizon's job: `refresh_5m`, `train_5m`, `deploy_5m`."""
    return f"{what}_{horizon}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def group(horizon: str) -> str:
    """The group of a horizon in the UI; group names may not start with a digit."""
    return f"horizon_{horizon}"


def number(value: float | None) -> dg.MetadataValue:
    """A number as metadata; text where it is undefined."""
    return dg.MetadataValue.text("undefined") if value is None else dg.MetadataValue.float(rounded(value))


def rounded(value: float) -> float:
    """A number as a person reads it: seven significant digits. Those who compute take it from where it was computed."""
    return float(f"{value:.7g}")


def check(horizon: str, step: str, name: str, about: str) -> dg.AssetCheckSpec:
    """A check of a step; about: what it says when it passes, for the reader of the UI."""
    return dg.AssetCheckSpec(name, asset=key(horizon, step), description=about)
