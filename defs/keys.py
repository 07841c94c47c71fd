"""`tenor keys new`: an API key of the inference service, printed once; only its hash is ever kept."""

from collections.abc import Sequence

from conf.errors import ConfigError, nearest
from serving.keys import ROLES, VARIABLE, KeysError, new

COMMAND_LINE = "command line"
EXAMPLE = "tenor keys new name=feed role=push"
WORDS = ("name", "role", "rate")


def keys(words: Sequence[str]) -> int:
    """Print a new key and the line that makes the service know it."""
    told = _told(words)
    roles = told["role"].split("+")
    if wrong := next((role for role in roles if role not in ROLES), None):
        fix = f"Roles are {', '.join(ROLES)}, joined by +"
        raise ConfigError(COMMAND_LINE, f"there is no role {wrong!r}", nearest=nearest(wrong, ROLES), fix=fix)
    try:
        secret, key = new(told["name"], frozenset(roles), float(told["rate"]) if "rate" in told else None)  # type: ignore[arg-type]  # checked above
    except (KeysError, ValueError) as error:
        raise ConfigError(COMMAND_LINE, f"no such key can be made: {error}", fix=f"Write {EXAMPLE}") from None
    print(
        f"The key of {key.name}, shown this once; whoever calls the service sends it as `Authorization: Bearer …`,\n"
        f"Tenor's own commands take it from TENOR_API_KEY:\n\n  {secret}\n\n"
        f"Its line for the service, in {VARIABLE} or in the file that {VARIABLE}_FILE names:\n\n  {key.line()}"
    )
    return 0


def _told(words: Sequence[str]) -> dict[str, str]:
    """name, role and perhaps rate; ConfigError for whatever else there is, or is not."""
    if not words or words[0] != "new":
        raise ConfigError(COMMAND_LINE, "keys makes new keys only: it knows none that exist", fix=f"Write {EXAMPLE}")
    told: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if name not in WORDS or not equals or not value:
            raise ConfigError(COMMAND_LINE, f"{word!r} is none of name=, role= and rate=", nearest=nearest(name, WORDS))
        told[name] = value
    if lacking := [name for name in WORDS[:2] if name not in told]:
        raise ConfigError(COMMAND_LINE, f"{' and '.join(lacking)} must be given", fix=f"Write {EXAMPLE}")
    return told
