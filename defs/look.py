"""Commands that look and tidy: `config`, `validate`, `status`, `clean`."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.prompt import Confirm
from rich.syntax import Syntax
from rich.table import Table

from conf.compose import asked, compose, horizons, to_yaml
from conf.schema import Horizon

if TYPE_CHECKING:  # the commands that need it import it themselves
    from quant.attributes import Attribute

MOST = 20  # categories of an attribute that are listed
# What the pipeline, the databases and the services put into a store.
SHORT = 8  # digits of a bundle's id that tell it from the others
STORE = (
    "lake", "registry", "reports", "arrivals", "published", "audit", "alerts", "calendars", "evaluators", "tuning",
    "postgres", "dagster", "dagster.log", "service.log",
)  # fmt: skip


def config(overrides: Sequence[str]) -> int:
    """Print the resolved config of each horizon as YAML."""
    console = Console()
    for name, horizon in compose(overrides).items():
        text = f"# horizon {name}\n{to_yaml(horizon)}"
        # Plain text into a pipe, so that it can be saved and compared.
        console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, soft_wrap=True)
    return 0


def features(overrides: Sequence[str]) -> int:
    """Print every feature and factor of each horizon asked for: name, expression, look-back, group, description."""
    from assets.plan import Plan
    from quant.across import told

    # Into a pipe the table is as wide as it needs to be: columns are for grep, not for an eighty-column screen.
    console = Console(width=None if sys.stdout.isatty() else 240, markup=False)
    found, wanted = compose(overrides), asked(overrides)
    for name in (name for name in found if name in wanted):
        plan = Plan(found[name])
        compiled = (  # before anything is printed: a mistake stands alone
            ("features", plan.features, plan.feature_entries),
            ("factors", plan.factors, plan.factor_entries),
        )
        if plan.attributes:
            console.print(_attributes(name, plan.attributes))
        for title, program, entries in compiled:
            shown = Table(title=f"{name} {title}: {len(entries)}", title_justify="left")
            for column in ("name", "expression", "look-back", "group", "description"):
                shown.add_column(column, justify="right" if column == "look-back" else "left", overflow="fold")
            for entry in entries.values():
                lookback = told(program.outputs[entry.name])
                shown.add_row(entry.name, entry.text, lookback, entry.group, entry.description)
            console.print(shown)
    return 0


def _attributes(horizon: str, attributes: "Mapping[str, Attribute]") -> Table:
    """What the universe declares of its symbols: names that expressions may use."""
    shown = Table(title=f"{horizon} attributes: {len(attributes)}", title_justify="left")
    for column in ("name", "values", "symbols", "changes"):
        shown.add_column(column, justify="left" if column in ("name", "values") else "right", overflow="fold")
    for name, attribute in attributes.items():
        texts = attribute.categories
        values = "numbers" if texts is None else ", ".join(f"{code} {text}" for code, text in enumerate(texts[:MOST]))
        more = f" and {len(texts) - MOST} more" if texts and len(texts) > MOST else ""
        symbols = len(attribute.symbols)
        shown.add_row(name, values + more, str(symbols), str(len(attribute.spans) - symbols))
    return shown


def validate(overrides: Sequence[str]) -> int:
    """Compose and check horizons (all of them by default) and build their graph, running nothing."""
    from defs.graph import build

    found = compose(with_all_horizons(overrides))
    definitions = build(found)
    jobs = len(list(definitions.resolve_all_job_defs()))
    print(f"{len(found)} horizons are valid ({', '.join(found)}); the graph has {jobs} jobs")
    return 0


def status(overrides: Sequence[str]) -> int:
    """Print each horizon's newest partition, its newest model, what the ledger says and what the service serves.

    1 where a ledger cannot be read: that horizon's line says so, and the reason follows the table.
    """
    from assets.names import table
    from defs.service import another_store, url_of
    from resources.inference import Inference, ServiceDown
    from resources.lake import Lake
    from resources.registry import Registry, RegistryError

    console = Console()
    found = compose(with_all_horizons(overrides))
    first = next(iter(found.values()))
    root = root_of(first)
    lake, registry = Lake(f"{root}/lake"), Registry(root)
    served: dict[str, str] = {}
    with Inference(url_of(first.serving), timeout=5.0) as service:
        try:
            theirs = another_store(first.serving, service.url, service.health(), root)
            about = f"service at {service.url}"
            if theirs is None:
                served = {model["horizon"]: model["bundle"] for model in service.models() if model["bundle"]}
            else:
                about += f" serves another store, {theirs}"
        except ServiceDown:
            about = f"no service at {service.url}; start it with `tenor serve` or `tenor up`"
    shown = Table()
    for column in ("horizon", "partition", "model", "champion", "since (UTC)", "served"):
        shown.add_column(column, no_wrap=True)
    unreadable = []
    for name in found:
        partitions, bundles = lake.partitions(table("bars", name)), registry.bundles(name)
        champion, since = "–", "–"
        try:
            if entry := registry.champion(name):
                champion, since = f"{entry.id[:SHORT]} no. {entry.number}", f"{entry.at:%m-%d %H:%M}"
        except RegistryError as error:
            champion = "unreadable"
            unreadable.append(f"tenor: {name}: {error}")
        shown.add_row(
            name,
            partitions[-1] if partitions else "–",
            bundles[-1][:SHORT] if bundles else "–",
            champion,
            since,
            served[name][:SHORT] if name in served else "–",
        )
    console.print(shown)
    console.print(f"store {root}; {about}", style="dim", soft_wrap=True)
    print(*unreadable, sep="\n", file=sys.stderr, end="\n" if unreadable else "")
    return 1 if unreadable else 0


def clean(overrides: Sequence[str]) -> int:
    """Delete the store's folder, after asking; refused while another process uses its database."""
    from resources.database import Database

    root = root_of(next(iter(compose(overrides).values())))
    if not root.exists():
        print(f"nothing to delete: there is no {root}")
        return 0
    if foreign := sorted(path.name for path in root.iterdir() if path.name not in STORE):
        print(f"{root} is not only a Tenor store, it holds {foreign[0]}: nothing is deleted", file=sys.stderr)
        return 2
    if not sys.stdin.isatty():
        print(f"tenor clean asks before it deletes {root}, and there is no terminal to ask on", file=sys.stderr)
        return 2
    print(f"{root} holds the tables, models, reports and run history of every horizon.")
    if not Confirm.ask("Delete all of it?", default=False):
        return 1
    Database(root).retire()
    shutil.rmtree(root)
    print(f"deleted {root}")
    return 0


def with_all_horizons(overrides: Sequence[str]) -> list[str]:
    """The overrides, and every horizon under conf/ where they name none."""
    if any(word.startswith("horizon=") for word in overrides):
        return list(overrides)
    return [f"horizon={','.join(horizons())}", *overrides]


def root_of(horizon: Horizon) -> Path:
    """The store's folder."""
    return Path(horizon.store.root).resolve()
