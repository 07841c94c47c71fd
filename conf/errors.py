"""The one error that configuration raises: where, what, the nearest valid name, and what to do."""

import difflib
import json
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake in the config, told in one message.

    `where` is a file with its line or "command line"; `problem` names the key and the value; `nearest` is the
    valid name closest to a misspelt one; `fix` says what to do.
    """

    def __init__(self, where: str, problem: str, *, nearest: str | None = None, fix: str = "") -> None:
        self.where = where
        self.problem = problem
        self.nearest = nearest
        hint = f"; did you mean {nearest}?" if nearest else "."
        super().__init__(f"{where}: {problem}{hint}{f' {fix}.' if fix else ''}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, upper and lower case alike; None when none is close."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def shown(value: object) -> str:
    """A value as a message shows it: one line, as YAML would have it, cut when long."""
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
