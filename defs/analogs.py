"""`tenor analogs`: when did a symbol, or the market, look like this, and what followed?"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from conf.compose import asked, compose
from conf.errors import ConfigError
from conf.files import an_example
from conf.origin import COMMAND_LINE
from conf.schema import Horizon
from defs.explain_signal import plain
from defs.look import root_of

if TYPE_CHECKING:  # imported when asked for
    from resources.analogs import Terms

OURS = ("symbol", "at", "k")  # words that are no config
EXAMPLE = "Write tenor analogs horizon={} symbol=SYM00 at=2024-03-01T15:00 k=10"


def analogs(words: Sequence[str]) -> int:
    """Print the nearest past states of a symbol, or of the market, as of a time, with what followed them."""
    from resources import analogs as search
    from resources.clock import clock_of_environment
    from resources.database import Database
    from resources.lake import Lake
    from resources.vectors import Vectors

    ours, horizon = _words([word for word in words if word != "--json"])
    at = _instant(ours["at"]) if "at" in ours else clock_of_environment().now()
    k = _count(ours.get("k", "10"))
    root = root_of(horizon)
    database = Database(root)
    try:
        found = search.analogs(
            Vectors(database), Lake(f"{root}/lake"), terms_of(horizon), at=at, symbol=ours.get("symbol"), k=k
        )
    finally:
        database.release()
    if "--json" in words:
        json.dump(plain(found.to_dict()), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        _show(found.to_dict())
    return 0


def terms_of(horizon: Horizon) -> "Terms":
    """What states and outcomes mean by the config."""
    from assets.plan import Plan
    from resources.analogs import Terms

    plan = Plan(horizon)
    return Terms(horizon.name, plan.grid, plan.label, horizon.vectors.apart, plan.attributes)


def _words(words: Sequence[str]) -> tuple[dict[str, str], Horizon]:
    """What is said besides config, and the one horizon."""
    ours = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.partition("=")[0] in OURS}
    rest = [word for word in words if word.partition("=")[0] not in OURS]
    names = asked(rest)
    if len(names) > 1:
        raise ConfigError(
            COMMAND_LINE, f"analogs takes one horizon, not {', '.join(names)}", fix=EXAMPLE.format(an_example())
        )
    if empty := next((key for key, value in ours.items() if not value), None):
        raise ConfigError(COMMAND_LINE, f"{empty}= is empty", fix=EXAMPLE.format(an_example()))
    return ours, compose(rest)[names[0]]


def _instant(text: str) -> datetime:
    from resources.analogs import utc

    try:
        return utc(datetime.fromisoformat(text))
    except ValueError:
        fix = "Write it as 2024-03-01T15:00, which is UTC, or with an offset"
        raise ConfigError(COMMAND_LINE, f"at={text} is no time", fix=fix) from None


def _count(text: str) -> int:
    from resources.analogs import MOST

    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ConfigError(COMMAND_LINE, f"k={text} must be a whole number from 1 to {MOST}")
    return int(text)


def _show(told: dict[str, Any]) -> None:
    """The answer for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    state, followed = told["state"], told["followed"]
    console.print(
        f"{told['symbol']}, horizon {told['horizon']}, as of {_minute(told['at'])}: its state at "
        f"{_minute(state['timestamp'])}, {state['coverage']:.0%} of its numbers present",
        soft_wrap=True,
    )
    if not told["analogs"]:
        console.print(f"There is no earlier state at least {told['apart']} bars before it", soft_wrap=True)
        return
    columns = ["bar (UTC)", "distance", "coverage", "followed by", "known (UTC)"]
    of_market = told["analogs"][0]["members"] is not None
    shown = Table(*columns, *(["members"] if of_market else []))
    for one in told["analogs"]:
        known = one["outcome"] is not None
        shown.add_row(
            _minute(one["timestamp"]),
            f"{one['distance']:.3f}",
            f"{one['coverage']:.0%}",
            f"{one['outcome']:+.5f}" if known else "not known then",
            _minute(one["outcome_known_at"]) if known else "",
            *([str(one["members"])] if of_market else []),
        )
    console.print(shown)
    console.print(f"label: {told['label']}; analogs are at least {told['apart']} bars apart", soft_wrap=True)
    if followed["known"]:
        console.print(
            f"followed by {followed['mean']:+.5f} on average, {followed['median']:+.5f} in the middle, above 0 in "
            f"{followed['share_above_zero']:.0%} of {followed['known']}",
            soft_wrap=True,
        )


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
