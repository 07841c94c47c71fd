"""The command line: `tenor COMMAND [overrides in Hydra's grammar]`."""

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

EPILOG = """\
overrides use Hydra's grammar, everywhere the same:
  horizon=5m,1h                  one or several horizons (files under conf/horizon)
  source=parquet source.path=…   another choice of a group, and a value in it
  model.num_leaves=63            any value; `tenor config horizon=5m` shows them all
"""


MODULES = {  # the module of defs/ that has the function of a command's name; `look` unless it is here
    **dict.fromkeys(("run", "refresh"), "run"),
    **dict.fromkeys(("models", "promote", "rollback"), "models"),
    "backfill": "backfill",
    "up": "up",
    "serve": "serve",
    "verify": "verify",
    "explain": "explain_signal",
    "analogs": "analogs",
    "alerts": "alerting",
    "doctor": "doctor",
    "vacuum": "vacuum",
    "migrate": "migrate",
    "keys": "keys",
}
FLAGS = {  # words with dashes, which argparse has to know
    "explain": {"--json": "all of it, as JSON"},
    "analogs": {"--json": "all of it, as JSON"},
    "doctor": {"--deep": "prove every bundle and read every table whole", "--json": "all of it, as JSON"},
    "vacuum": {"--dry-run": "say what would go, and delete nothing"},
    "migrate": {"--dry-run": "say what would change, and change nothing"},
}


def command(name: str) -> Callable[[Sequence[str]], int]:
    """Commands are imported when asked for: `tenor --help` should not wait for Dagster."""
    found: Callable[[Sequence[str]], int] = getattr(import_module(f"defs.{MODULES.get(name, 'look')}"), name)
    return found


COMMANDS = {
    "run": (
        "materialize horizons from bars to a served prediction",
        "tenor run horizon=5m,1h\n  tenor run horizon=1d source=parquet source.path='data/*.parquet' universe=all",
    ),
    "refresh": (
        "bring bars, features, factors and vectors up to date, train nothing",
        "tenor refresh horizon=5m,1h",
    ),
    "backfill": (
        "find partitions that are missing, say which, and make them and what follows in one run",
        "tenor backfill horizon=5m\n  tenor backfill horizon=1h from=2024-01-31 to=2024-03-31",
    ),
    "up": (
        "start the Dagster UI with its daemon and the inference service; Ctrl-C stops them",
        "tenor up\n  tenor up horizon=5m source=parquet source.path='data/*.parquet'",
    ),
    "serve": ("start the inference service alone", "tenor serve\n  tenor serve serving.port=9000"),
    "config": ("print the resolved config of horizons", "tenor config horizon=5m model.num_leaves=63"),
    "features": (
        "list features and factors with expression, look-back, group and description",
        "tenor features horizon=5m",
    ),
    "verify": (
        "audit feature and factor sets on the bars in the store: laws, parity, columns that look too good",
        "tenor verify horizon=5m\n  tenor verify horizon=1d source=parquet source.path='data/*.parquet' universe=all",
    ),
    "validate": (
        "check every config and load the Dagster graph",
        "tenor validate\n  tenor validate horizon=30m",
    ),
    "status": ("show each horizon's newest partition, model and what is served", "tenor status"),
    "models": (
        "list each horizon's bundles: who serves, what they learned from, how they scored and were judged",
        "tenor models\n  tenor models horizon=5m",
    ),
    "promote": (
        "let a bundle serve, by hand, through the ledger",
        "tenor promote horizon=5m bundle=3fa9\n  tenor promote horizon=5m bundle=3fa9 why='the new label'",
    ),
    "rollback": (
        "let the champion before the present one serve again, by hand, through the ledger",
        "tenor rollback horizon=5m why='trades too much'",
    ),
    "explain": (
        "take one served prediction back to its bars, factors with their contributions, bundle, tables and config",
        "tenor explain 3fa9…0001.0\n  tenor explain 3fa9…0001.0 --json > signal.json",
    ),
    "analogs": (
        "find the past states most like the present one of a symbol, or of the market, and what followed them",
        "tenor analogs horizon=5m symbol=SYM00\n  tenor analogs horizon=5m at=2024-03-01T15:00 k=20 --json",
    ),
    "keys": (
        "make an API key for the service: printed once, kept nowhere",
        "tenor keys new name=feed role=push\n  tenor keys new name=desk role=read+push rate=50",
    ),
    "alerts": (
        "show what is wrong and what could not be sent yet; with `test`, send a message through every channel",
        "tenor alerts\n  tenor alerts test",
    ),
    "doctor": (
        "look at installation, database, tables, registry and service; say what is wrong and what to do",
        "tenor doctor\n  tenor doctor horizon=5m --deep",
    ),
    "vacuum": (
        "delete old table versions, bundles, reports and logs by the retention policy, nothing that is referred to",
        "tenor vacuum --dry-run\n  tenor vacuum horizon=5m retention.versions_days=3",
    ),
    "migrate": (
        "bring tables and databases that an older Tenor made to today's formats; their rows stay as they are",
        "tenor migrate --dry-run\n  tenor migrate horizon=5m",
    ),
    "clean": ("delete the store: tables, models, reports and the embedded database", "tenor clean"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tenor",
        description="Tenor: config in, a served and monitored trading model out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (about, examples) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=about,
            description=f"tenor {name}: {about}.",
            epilog=f"examples:\n  {examples}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for flag, meaning in FLAGS.get(name, {}).items():
            sub.add_argument(flag, action="append_const", dest="flags", const=flag, help=meaning)
        sub.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="Hydra override, e.g. horizon=5m")
    return top


def lost_database() -> tuple[type[Exception], ...]:
    """What a query raises whose server was killed."""
    import psycopg2  # type: ignore[import-untyped]
    import sqlalchemy.exc

    return (sqlalchemy.exc.OperationalError, psycopg2.OperationalError)


def told_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the user; any other is a bug and keeps its traceback."""
    from conf.errors import ConfigError
    from defs.explain_signal import ExplainError
    from quant.bars import BarsError
    from quant.bundle import BundleError
    from quant.expression import ExpressionError
    from resources.alerts import AlertsError
    from resources.journal import JournalError
    from resources.lake import LakeError
    from resources.postgres import DatabaseError
    from resources.registry import RegistryError
    from resources.sources import SourceError
    from resources.vectors import NoVectors

    return (
        ConfigError,
        ExplainError,
        ExpressionError,
        BarsError,
        BundleError,
        SourceError,
        AlertsError,
        LakeError,
        JournalError,
        RegistryError,
        DatabaseError,
        NoVectors,
    )


def refused_by_disk(error: Exception) -> str | None:
    """What to say of a disk that is full, or of a place that may not be written; None of anything else."""
    if not isinstance(error, OSError):
        return None
    where = error.filename or "the store"  # a write knows no name
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "make room (`tenor vacuum` lets go of what is old), then run it again"
    elif error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        fix = "give Tenor a folder that it may write: TENOR_HOME, or store.root="
    else:
        return None
    return f"{where}: {error.strerror}: {fix}"


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more (`| head`)."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 on success, 1 when a step failed, 2 when the input is wrong."""
    # argparse takes no further overrides behind an option: they come back as unknown.
    arguments, behind = parser().parse_known_args(argv)
    if unknown := [word for word in behind if word.startswith("-")]:
        parser().error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.command is None:
        parser().print_help()
        return 2
    # A service manager's SIGTERM ends as Ctrl-C does, and both also where a shell started us with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        words = [*arguments.overrides, *behind, *(getattr(arguments, "flags", None) or ())]
        status = command(arguments.command)(words)
        sys.stdout.flush()
        return status
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes at its end
            return 128 + signal.SIGPIPE
        if isinstance(error, lost_database()):
            print("tenor: the database stopped while this ran; run it again, nothing kept is lost", file=sys.stderr)
            return 1
        if (said := refused_by_disk(error)) is not None:
            print(f"tenor: {said}", file=sys.stderr)
            return 1
        if not isinstance(error, told_errors()):
            raise
        print(f"tenor: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tenor: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
