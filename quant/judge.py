"""Whether a challenger beats the champion: scores by section on rows that neither learned from, paired, tested.

The paired difference of two models on the same sections has far less noise than either score: what moves the
whole market moves both.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.portfolio import Terms, book
from quant.score import ic_series
from quant.stats import Mean, lags_for, mean_of

Metric = Literal["rank_ic", "net_return"]
SAID = {"rank_ic": "rank IC", "net_return": "net return a year"}
CHALLENGER, CHAMPION = "challenger", "champion"
ABSTAINS = "_abstains"  # after the name of a column of predictions: which of them are no signal


@dataclass(frozen=True)
class Rule:
    """What a challenger has to show, as declared before anyone looked."""

    metric: Metric
    margin: float  # in units of the metric, by which it must be better; below 0: by which it may be worse
    level: float  # of the one-sided test
    min_sections: int  # at least 2


@dataclass(frozen=True)
class Verdict:
    """What the test said. Numbers are NaN where there were too few sections to say."""

    wins: bool
    why: str
    sections: int
    score: float  # of the challenger, the mean over sections
    champion_score: float  # of the other one on the same sections; 0 where there is none
    difference: float
    error: float  # Newey-West's, of the difference
    p: float  # of the difference being no more than the margin
    level: float  # that p was held against: the declared one, or this try's part of it

    def to_dict(self) -> dict[str, Any]:
        """JSON values: NaN becomes None."""
        found = vars(self)
        return {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in found.items()}


def beats(
    frame: pl.DataFrame,
    rule: Rule,
    terms: Terms,
    *,
    tries: int | None = None,
    challenger: str = "the challenger",
    champion: str = "the champion",
) -> Verdict:
    """Judge two columns of predictions, `challenger` and `champion`, on the same rows.

    frame: time, symbol, outcome, what a book needs (see `quant.portfolio.book`), both predictions, above 0 where they
    say up, and whether each of them abstains (`challenger_abstains`, `champion_abstains`). A row that lacks one of the
    predictions counts for neither; one from which a model abstains is not traded and not scored, for this model alone.
    Who predicts the same for all of a section, or abstains from it, scores 0 there. tries: judgements against this
    champion on these sections, this one included, where they count: see `level_of`. challenger, champion: what the
    reason calls them.
    """
    both = frame.filter(pl.col(CHALLENGER).is_finite() & pl.col(CHAMPION).is_finite())
    theirs, other = (
        section_scores(_traded(both, column), column, rule.metric, terms) for column in (CHALLENGER, CHAMPION)
    )
    paired = theirs.join(other, on="time", how="full", coalesce=True, suffix="_champion").sort("time").fill_null(0.0)
    ours, its = paired["score"].to_numpy(), paired["score_champion"].to_numpy()
    difference, p = _test(ours - its, rule.margin, rule, terms)
    level = rule.level if tries is None else level_of(rule.level, tries)
    why = _too_short(f"{champion} stays champion", difference.n, rule)
    wins = why is None and p <= level
    if why is None:
        asked = f"level {level:.2g}" + (f": {rule.level:g} over all tries, this is number {tries}" if tries else "")
        why = (
            f"{challenger} is {'better' if wins else 'not shown to be better'} than {champion} by more than "
            f"{rule.margin:g} ({asked}): {SAID[rule.metric]} {ours.mean():+.4f} against {its.mean():+.4f}, difference "
            f"{difference.mean:+.4f} ± {difference.error:.4f} on {difference.n} sections that neither learned from, "
            f"p {p:.3f}"
        )
    return Verdict(wins, why, difference.n, _mean(ours), _mean(its), difference.mean, difference.error, p, level)


def stands(frame: pl.DataFrame, rule: Rule, terms: Terms, *, challenger: str = "the challenger") -> Verdict:
    """Judge the column `challenger` alone: whether its score is above zero, where there is no champion to beat."""
    complete = frame.filter(pl.col(CHALLENGER).is_finite())
    scores = section_scores(_traded(complete, CHALLENGER), CHALLENGER, rule.metric, terms)["score"].to_numpy()
    found, p = _test(scores, 0.0, rule, terms)
    why = _too_short(f"nothing is shown about {challenger}", found.n, rule)
    wins = why is None and p <= rule.level
    if why is None:
        why = (
            f"{SAID[rule.metric]} {found.mean:+.4f} ± {found.error:.4f} of {challenger} on {found.n} sections that it "
            f"did not learn from is {'significant' if wins else 'not significant'} (p {p:.3f}, level {rule.level:g})"
        )
    return Verdict(wins, why, found.n, found.mean, 0.0, found.mean, found.error, p, rule.level)


def level_of(level: float, tries: int) -> float:
    """The level of the k-th try: 6 / (π k)² of `level`. All tries there may ever be add up to `level`, so that the best
    of many wins by luck no more often than that (level / k would add up without end). A single try costs 0.6 of it.
    """
    return level * 6 / (math.pi * tries) ** 2


def section_scores(frame: pl.DataFrame, prediction: str, metric: Metric, terms: Terms) -> pl.DataFrame:
    """What one column of predictions scored in each section: (time, score), sections in order.

    rank_ic: sections without a correlation are left out; of one or two symbols, what a section adds to the correlation
    over time. net_return: of a book traded on it, as a rate a year.
    """
    if metric == "rank_ic":
        rows = frame.select("time", "symbol", "outcome", prediction=prediction)
        return ic_series(rows, "spearman").rename({"ic": "score"})
    traded = book(frame, prediction, terms)
    return pl.DataFrame({"time": traded.time, "score": traded.net * traded.per_year})


def p_above(series: npt.NDArray[np.float64], margin: float, lags: int) -> float:
    """Probability of a mean at least this high, if the true one were `margin`; series [n] without NaN.

    Newey and West's error is too small where the lags are many for the length (b = (lags + 1) / n). By Kiefer and
    Vogelsang (2005) its variance centres on 1 - b + b²/3 of the truth, and has as many degrees of freedom as
    Bartlett's kernel leaves (3 / 2b: Priestley, 1981, ch. 6): Student's t of those. A series that does not vary is
    above the margin or not.
    """
    from scipy.special import stdtr

    found = mean_of(series, lags)
    if not found.error > 0:
        return float(not found.mean > margin)
    b = min(1.0, (lags + 1) / found.n)
    t = (found.mean - margin) / found.error * math.sqrt(1 - b + b * b / 3)
    return float(stdtr(1.5 / b, -t))


def _traded(frame: pl.DataFrame, prediction: str) -> pl.DataFrame:
    """The frame without a prediction where it is no signal; its sections stay."""
    return frame.with_columns(pl.when(~pl.col(prediction + ABSTAINS)).then(prediction).otherwise(math.nan))


def _test(series: npt.NDArray[np.float64], margin: float, rule: Rule, terms: Terms) -> tuple[Mean, float]:
    """The mean of a series of scores, and p; NaN where it is too short to test."""
    lags = lags_for(len(series), terms.holding - 1)
    found = mean_of(series, lags)
    return found, p_above(series, margin, lags) if found.n >= rule.min_sections else math.nan


def _too_short(then: str, sections: int, rule: Rule) -> str | None:
    if sections >= rule.min_sections:
        return None
    return f"{then}: {sections} sections have a score there, judging.min_sections asks for {rule.min_sections}"


def _mean(scores: npt.NDArray[np.float64]) -> float:
    return float(scores.mean()) if len(scores) else math.nan
