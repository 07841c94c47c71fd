"""Champion and challenger: a new bundle is held against the present champion, and the ledger hears which one serves.

Both predict the newest rows, from which neither learned: `quant.judge` compares them. Whatever comes of it is kept in
`judgement.json` beside the new bundle; the ledger's reason names it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names
from assets.costs import framed, terms
from assets.dataset import Dataset
from assets.plan import Plan
from assets.replay import replayed
from quant.bundle import Bundle, BundleError
from quant.expression import ExpressionError
from quant.judge import ABSTAINS, CHALLENGER, CHAMPION, Rule, beats, stands
from quant.recipe import RecipeError
from quant.score import leaning, task_for
from quant.universe import session_of
from resources.lake import Lake, LakeError
from resources.registry import JUDGEMENT, Entry, LedgerMoved, Registry, RegistryError

TEST = "test"  # the part of the spans that nothing learned from


class Incomparable(ValueError):
    """Two bundles that no common window can be found for; the message says why."""


@dataclass(frozen=True)
class Decision:
    """What became of a new bundle."""

    why: str
    metadata: dict[str, Any]


def decide(plan: Plan, data: Dataset, lake: Lake, registry: Registry, bundle: Bundle, run: str) -> Decision:
    """Judge a bundle that the ledger has never named, and promote it where it wins.

    One that the ledger knows stays where it is: what was rolled back by hand is not promoted again by training it
    again. The same judgement twice is one record.
    """
    horizon, id = plan.horizon.name, bundle.id
    while True:
        ledger = registry.ledger(horizon)
        champion = ledger[-1] if ledger else None
        if champion is not None and any(entry.id == id for entry in ledger):
            its = "is the champion" if champion.id == id else f"was champion before; {champion.id} stays champion"
            return Decision(f"{id} {its}", {})
        found = _judge(plan, data, lake, registry, bundle, champion)
        kept = registry.judgements(horizon, id)
        number = next((n for n, before in enumerate(kept, 1) if found.items() <= before.items()), None)
        number = number or registry.judged(horizon, id, {**found, "run": run})
        if not found["promotes"]:
            serve = f"it is kept as challenger; `tenor promote horizon={horizon} bundle={id}` lets it serve"
            return _told(f"{found['why']}; {serve}", found, registry, horizon, id)
        why = f"{found['why']}; {JUDGEMENT} no. {number}"
        try:
            entry = registry.promote(
                horizon, id, why, by=f"model step, run {run[:8]}", over=champion.number if champion else 0
            )
        except LedgerMoved:
            continue  # somebody promoted or rolled back meanwhile: it is another champion to beat
        return _told(f"number {entry.number} of the ledger: {why}", found, registry, horizon, id)


def learned_until(bundle: Bundle, newest: np.datetime64) -> np.datetime64:
    """When the last label that the bundle learned from was known, at least; `newest`: how far to look."""
    spans = {part: ends for part, ends in bundle.manifest["spans"].items() if part != TEST}
    if not spans:
        raise Incomparable(f"{bundle.id} does not say which bars it learned from")
    last = max(np.datetime64(end.removesuffix("Z"), "us") for _, end in spans.values())
    grid = bundle.recipe.grid
    first, final = grid.session_dates(np.array([last, max(last, newest)])).tolist()
    slots = grid.slots(first, final)
    at = int(np.searchsorted(slots, last)) + bundle.manifest["label"]["lookahead"]
    return grid.ends(slots)[min(at, len(slots) - 1)]


def _judge(
    plan: Plan, data: Dataset, lake: Lake, registry: Registry, bundle: Bundle, champion: Entry | None
) -> dict[str, Any]:
    """What is recorded of a judgement, less when and by which run."""
    config, id = plan.horizon.judging, bundle.id
    rule = Rule(config.metric, config.margin, config.level, config.min_sections)
    newest = data.label_known.max()
    fresh = data.timestamp >= np.datetime64(bundle.manifest["spans"][TEST][0].removesuffix("Z"), "us")
    base: dict[str, Any] = {"challenger": id, "champion": champion.id if champion else None, "rule": asdict(rule)}
    base |= {"ledger": champion.number if champion else 0, "correct_for_tries": config.correct_for_tries}
    if champion is None:
        frame = _frame(plan, data, bundle, np.flatnonzero(fresh))
        verdict = stands(frame, rule, terms(plan), challenger=id)
        promotes = verdict.wins or config.first == "always"
        why = f"the first model of {plan.horizon.name}: {verdict.why}"
        if promotes and not verdict.wins:
            why += "; it serves because judging.first is always"
        return base | _window(frame) | verdict.to_dict() | {"why": why, "promotes": promotes, "first": config.first}
    try:
        theirs = registry.load(plan.horizon.name, champion.id)
        _comparable(bundle, theirs)
        rows = np.flatnonzero(fresh & (data.known > learned_until(theirs, newest)))
        if not len(rows):
            raise Incomparable(f"{theirs.id} learned from all bars whose outcome is known by now")
        frame = _frame(plan, data, bundle, rows)
        frame, how = _with_champion(plan, data, lake, frame, rows, bundle, theirs)
    except (Incomparable, BundleError, RegistryError, RecipeError, ExpressionError, LakeError) as error:
        why = f"{id} cannot be judged against {champion.id}, which stays champion: {error}"
        return base | {"wins": False, "promotes": False, "sections": 0, "why": why}
    tries = _tries(registry, plan.horizon.name, id, champion.id, frame, rule) if config.correct_for_tries else None
    verdict = beats(frame, rule, terms(plan), tries=tries, challenger=id, champion=champion.id)
    about = {"promotes": verdict.wins, "tries": tries, "factors of the champion": how}
    return base | _window(frame) | verdict.to_dict() | about


def _comparable(bundle: Bundle, champion: Bundle) -> None:
    """Raise Incomparable where the two predict different things."""
    for what, ours, theirs in (
        ("label", _label(bundle), _label(champion)),
        ("calendar", bundle.recipe.calendar, champion.recipe.calendar),
        ("interval", bundle.recipe.interval, champion.recipe.interval),
    ):
        if ours != theirs:
            raise Incomparable(f"they have another {what}, {ours} and {theirs}: no score is common to both")


def _label(bundle: Bundle) -> dict[str, Any]:
    return {key: value for key, value in bundle.manifest["label"].items() if key != "name"}


def _frame(plan: Plan, data: Dataset, bundle: Bundle, rows: np.ndarray) -> pl.DataFrame:
    """The rows as `quant.judge` takes them, with the new bundle's predictions."""
    frame = pl.DataFrame(
        {
            "time": pl.Series(data.timestamp[rows]).dt.replace_time_zone("UTC"),
            "symbol": pl.Series(data.symbol[rows], dtype=pl.String),
            "outcome": data.y[rows],
            CHALLENGER: _leaning(bundle, data.X[rows]),
            CHALLENGER + ABSTAINS: _abstains(bundle, data.X[rows]),
        }
    )
    return framed(plan, frame)


def _leaning(bundle: Bundle, X: np.ndarray) -> np.ndarray:
    """Predictions of rows, above 0 where they say up."""
    made = pl.DataFrame({"prediction": bundle.predict_rows(X)})
    return leaning(made, task_for(bundle.manifest["objective"]))["prediction"].to_numpy()


def _abstains(bundle: Bundle, X: np.ndarray) -> np.ndarray:
    """Which of the rows' predictions would be no signal, bool [N]."""
    above = bundle.abstains_above
    unlike = None if above is None else bundle.novelty_of(X)
    return np.zeros(len(X), bool) if unlike is None else unlike > above


def _with_champion(
    plan: Plan, data: Dataset, lake: Lake, frame: pl.DataFrame, rows: np.ndarray, bundle: Bundle, champion: Bundle
) -> tuple[pl.DataFrame, str]:
    """The frame with the champion's predictions, NaN where it makes none, and where its factors came from."""
    if champion.recipe.to_dict() == bundle.recipe.to_dict():
        X = data.X[rows]
        ours = pl.Series(CHAMPION, _leaning(champion, X)), pl.Series(CHAMPION + ABSTAINS, _abstains(champion, X))
        return frame.with_columns(ours), "the factor table"
    made = _from_bars(plan, lake, champion, frame["time"])
    found = frame.join(made, on=["time", "symbol"], how="left", maintain_order="left")
    filled = pl.col(CHAMPION).fill_null(np.nan), pl.col(CHAMPION + ABSTAINS).fill_null(False)
    return found.with_columns(filled), "its own expressions over the bars"


def _from_bars(plan: Plan, lake: Lake, champion: Bundle, times: pl.Series) -> pl.DataFrame:
    """What a bundle with other expressions predicts in the sessions of these times: time, symbol, champion, and where
    it abstains.
    """
    first, last = session_of(pl.Series([times.min(), times.max()]), champion.recipe.grid)
    made = [
        keys.rename({"timestamp": "time"}).with_columns(
            pl.Series(CHAMPION, _leaning(champion, X)), pl.Series(CHAMPION + ABSTAINS, _abstains(champion, X))
        )
        for keys, X in replayed(plan, lake, champion, first, last)
    ]
    if not made:
        raise Incomparable(f"there are no bars of the symbols of {champion.id}")
    return pl.concat(made)


def _window(frame: pl.DataFrame) -> dict[str, Any]:
    ends = frame.select(first=pl.min("time"), last=pl.max("time")).row(0)
    abstained = {
        column: float(frame[column + ABSTAINS].mean())  # type: ignore[arg-type]
        for column in (CHALLENGER, CHAMPION)
        if column in frame.columns
    }
    return {"window": [end.isoformat() for end in ends], "rows": frame.height, "abstained": abstained}


def _tries(registry: Registry, horizon: str, id: str, champion: str, frame: pl.DataFrame, rule: Rule) -> int:
    """How many judgements, this one included, held a bundle against the champion on some of these sections.

    One more rule for the same bundle is one more try; the same one again is not.
    """
    first, last = _window(frame)["window"]
    others = 0
    for other, judgements in registry.all_judgements(horizon).items():
        rules = {
            tuple(sorted(found["rule"].items()))
            for found in judgements
            if found["champion"] == champion
            and "window" in found
            and found["window"][0] <= last
            and found["window"][1] >= first
        }
        others += len(rules - {tuple(sorted(asdict(rule).items()))} if other == id else rules)
    return others + 1


def _told(why: str, found: dict[str, Any], registry: Registry, horizon: str, id: str) -> Decision:
    metadata = {
        "judged against": found["champion"] or "nothing: it is the first",
        "judged sections": found["sections"],
        "judged window": " to ".join(found["window"]) if "window" in found else "none",
        "judged p": names.number(found.get("p")),
        "judgement": dg.MetadataValue.path(registry.path(horizon, id) / JUDGEMENT),
    }
    return Decision(why, metadata)
