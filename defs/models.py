"""`tenor models`, `tenor promote`, `tenor rollback`: who serves each horizon, who could, and changing it by hand."""

import getpass
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from conf.compose import asked, compose
from conf.errors import ConfigError
from conf.files import an_example
from conf.origin import COMMAND_LINE
from conf.schema import Horizon
from defs.look import SHORT, root_of, with_all_horizons
from defs.service import another_store, url_of

if TYPE_CHECKING:
    from resources.registry import Entry, Registry

OURS = ("bundle", "why")  # words that are no config
LONGEST = 120  # characters of a cause


def models(overrides: Sequence[str]) -> int:
    """Print every bundle of each horizon: its role, what it learned from, how it scored, how it was judged."""
    from resources.registry import Registry

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    found = compose(with_all_horizons(overrides))
    shown = [name for name in found if name in asked(with_all_horizons(overrides))]
    registry = Registry(root_of(next(iter(found.values()))))
    trained = [name for name in shown if registry.bundles(name)]
    for name in trained:
        _print(console, registry, name)
    if untrained := [name for name in shown if name not in trained]:
        run = f"`tenor run horizon={untrained[0]}` trains one"
        console.print(f"no bundle yet: {', '.join(untrained)}; {run}", style="dim", soft_wrap=True)
    return 0


def promote(overrides: Sequence[str]) -> int:
    """Let a bundle serve, by hand; it must prove itself first."""
    from resources.registry import Undecided

    words, horizon, registry = _words("promote", overrides)
    if "bundle" not in words:
        fix = f"`tenor models horizon={horizon.name}` lists them"
        raise ConfigError(COMMAND_LINE, "promote needs bundle=, the id or its first digits", fix=fix)
    id = registry.find(horizon.name, words["bundle"])
    try:
        champion = registry.champion(horizon.name)
    except Undecided:  # what this command is for
        champion = None
    if champion is not None and champion.id == id:
        print(f"{horizon.name}: {id} is the champion already (number {champion.number}); nothing is changed")
        return 0
    registry.load(horizon.name, id).verify()
    entry = registry.promote(horizon.name, id, words.get("why", "promoted by hand"), by=_who())
    return _said(horizon, entry, champion)


def rollback(overrides: Sequence[str]) -> int:
    """Let the champion before the present one serve again, by hand; it must prove itself first."""
    words, horizon, registry = _words("rollback", overrides)
    if "bundle" in words:
        fix = f"To choose a bundle: `tenor promote horizon={horizon.name} bundle={words['bundle']}`"
        raise ConfigError(COMMAND_LINE, "rollback goes to the champion before and takes no bundle=", fix=fix)
    champion = registry.champion(horizon.name)
    registry.load(horizon.name, registry.previous(horizon.name)).verify()
    entry = registry.rollback(horizon.name, words.get("why", "rolled back by hand"), by=_who())
    return _said(horizon, entry, champion)


def _words(command: str, overrides: Sequence[str]) -> "tuple[dict[str, str], Horizon, Registry]":
    """What is said besides config, the one horizon, and its registry."""
    from resources.registry import Registry

    ours = {word.partition("=")[0]: word.partition("=")[2] for word in overrides if word.partition("=")[0] in OURS}
    rest = [word for word in overrides if word.partition("=")[0] not in OURS]
    if not any(word.startswith("horizon=") for word in rest):
        raise ConfigError(
            COMMAND_LINE, f"{command} needs a horizon", fix=f"Write tenor {command} horizon={an_example()}"
        )
    names = asked(rest)
    if len(names) > 1:
        raise ConfigError(COMMAND_LINE, f"{command} takes one horizon, not {', '.join(names)}")
    horizon = compose(rest)[names[0]]
    empty = next((key for key, value in ours.items() if not value), None)
    if empty:
        raise ConfigError(COMMAND_LINE, f"{empty}= is empty")
    return ours, horizon, Registry(root_of(horizon))


def _said(horizon: Horizon, entry: "Entry", before: "Entry | None") -> int:
    """Say what serves now, and ask a running service of this store to load it; 1 where it refuses."""
    from resources.inference import Inference, InferenceError, ServiceDown

    instead = f" instead of {before.id}" if before else ""
    print(
        f"{horizon.name}: {entry.id} serves from now on{instead} (number {entry.number} of the ledger, by {entry.by})"
    )
    print("It stays until it is beaten by a new model, promoted over or rolled back.")
    with Inference(url_of(horizon.serving)) as service:
        try:
            if another_store(horizon.serving, service.url, service.health(), root_of(horizon)) is not None:
                print(f"The service at {service.url} serves another store; one of this store follows its ledger.")
                return 0
            served = service.load(horizon.name)
        except ServiceDown:
            print(f"No service runs at {service.url}; the next one serves it, and any other follows the ledger.")
            return 0
        except InferenceError as error:
            print(f"The service at {service.url} refuses it: {error}")
            return 1
    print(f"The service at {service.url} serves {served['bundle']}.")
    return 0


def _print(console: Console, registry: "Registry", horizon: str) -> None:
    from resources.registry import RegistryError

    ledger, problem = [], ""
    try:
        ledger = registry.ledger(horizon)
    except RegistryError as error:  # the bundles are there all the same, and the remedy asks for one
        problem = str(error)
    champion = ledger[-1] if ledger else None
    table = Table(title=f"{horizon}: who serves, and who could", title_justify="left")
    for column in ("bundle", "role", "learned from", "to", "rank IC", "net Sharpe", "cause", "judged", "size"):
        table.add_column(
            column, justify="right" if column in ("rank IC", "net Sharpe", "size") else "left", overflow="fold"
        )
    for id in reversed(registry.bundles(horizon)):
        manifest = registry.manifest(horizon, id)
        spans, scores = manifest["spans"], manifest["scores"].get("model", {})
        table.add_row(
            id,
            "not known" if problem else role(id, ledger),
            spans["train"][0][:10] if "train" in spans else "–",
            max(end for part, (_, end) in spans.items() if part != "test")[:10] if spans else "–",
            _figure(scores.get("rank_ic"), scores.get("rank_ic_error")),
            _figure(scores.get("net", {}).get("sharpe"), scores.get("net", {}).get("sharpe_error"), 2),
            caused(registry.provenance(horizon, id)),
            judged(registry.judgements(horizon, id), [entry for entry in ledger if entry.id == id]),
            f"{registry.size(horizon, id) / 1e6:.1f} MB",
        )
    console.print(table)
    if problem:
        console.print(problem, soft_wrap=True)
    elif champion is not None:
        by = f", by {champion.by}" if champion.by else ""
        since = f"{champion.id} serves since {champion.at:%Y-%m-%d %H:%M} UTC (number {champion.number}{by})"
        console.print(f"{since}: {champion.why}", soft_wrap=True)
    else:
        console.print("none serves: `tenor promote` lets one", soft_wrap=True)


def role(id: str, ledger: "Sequence[Entry]") -> str:
    """champion: serves now; former: served before; challenger: never did."""
    if ledger and ledger[-1].id == id:
        return "champion"
    return "former" if any(entry.id == id for entry in ledger) else "challenger"


def caused(provenance: Mapping[str, Any]) -> str:
    """Why it was trained: by hand, or what warranted it and why."""
    found = provenance.get("cause")
    if not found:
        return "not recorded"
    why = found["why"]
    return f"{found['kind']}: {why if len(why) <= LONGEST else why[: LONGEST - 1] + '…'}" if why else found["kind"]


def judged(judgements: Sequence[Mapping[str, Any]], entries: "Sequence[Entry]") -> str:
    """In a few words: the newest judgement, and who promoted it by hand since."""
    told = []
    if judgements:
        newest = judgements[-1]
        p = "" if newest.get("p") is None else f", p {newest['p']:.3f}"
        against = f"against {newest['champion'][:SHORT]}" if newest["champion"] else "alone"
        what = "significant" if newest["wins"] else "not significant" if p else "not tested"
        told.append(f"{against}: {what}{p}")
    by_hand = [entry for entry in entries if not any(entry.why.startswith(found["why"]) for found in judgements)]
    if by_hand:
        newest_entry = by_hand[-1]
        told.append(f"{newest_entry.action} by {newest_entry.by or 'unknown'}")
    return "; ".join(told) or "never"


def _figure(value: float | None, error: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:+.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _who() -> str:
    """The user and machine that typed the command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"
