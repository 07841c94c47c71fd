"""`tenor migrate`: bring the tables and databases of an older Tenor to today's formats."""

from collections.abc import Sequence

from conf.compose import asked, compose
from defs.look import root_of, with_all_horizons
from resources import formats
from resources.database import Database
from resources.opening import there
from resources.schemas import schemas
from resources.table_history import tables

DRY = "--dry-run"


def migrate(words: Sequence[str]) -> int:
    """Say what is of an older format and, without --dry-run, change it. No rows are computed anew; nothing may run."""
    dry = DRY in words
    overrides = with_all_horizons([word for word in words if word != DRY])
    found = compose(overrides)
    root, wanted = root_of(next(iter(found.values()))), asked(overrides)
    count = 0
    for name in tables(root / "lake"):
        if name.rpartition("/")[2] not in wanted:
            continue
        table = there(str(root / "lake"), name)
        layout = formats.layout_of(table)
        steps = formats.pending(layout) if dry else formats.migrate(table)
        for step in steps:
            print(f"{name}: {layout.get('format', 'the first format')} to {step.to}: {step.about}")
        count += len(steps)
    for schema in schemas(root) if Database(root).begun else ():
        if not schema.current:
            print(f"database {schema.name}: revision {schema.found} to {schema.newest}: a newer release is installed")
            count += 1
            if not dry:
                schema.upgrade()
    if not count:
        print("nothing to migrate: all is of today's formats")
    elif dry:
        print(f"{count} changes would be made; stop `tenor up` first, then run it without {DRY}")
    return 0
