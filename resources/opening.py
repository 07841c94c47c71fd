"""Opening a Delta table: one whose log is damaged is refused with its name and what to do."""

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from resources.staging import LakeError


def opened(root: str, table: str) -> DeltaTable:
    """The newest version of a table below a lake's root; TableNotFoundError where there is none.

    LakeError where its log cannot be read.
    """
    folder = f"{root.rstrip('/')}/{table}"
    try:
        return DeltaTable(folder)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        raise LakeError(_damaged(folder, table, error)) from None


def there(root: str, table: str) -> DeltaTable:
    """The same of a table that should be there, for it has a log; LakeError where that log is empty, too."""
    try:
        return opened(root, table)
    except TableNotFoundError as error:
        raise LakeError(_damaged(f"{root.rstrip('/')}/{table}", table, error)) from None


def _damaged(folder: str, table: str, error: DeltaError) -> str:
    said, *_ = str(error).splitlines()  # what follows are addresses in the library
    return (
        f"the log of table {table} is damaged ({said}): restore {folder}/_delta_log from a copy, or delete {folder}:"
        " steps make their tables anew, logged answers are lost"
    )
