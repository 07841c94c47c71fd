"""`tenor doctor` on the installation: python, packages, MLX, numba's cache, disk, time."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conf.files import REPOSITORY
from defs.finding import Finding, note, ok, wrong

OLDEST, NEWEST = (3, 11), (3, 14)
LITTLE, SCARCE = 10 << 30, 1 << 30  # bytes free: fewer is worth a word; fewer, and the next write may fail
SKEW = timedelta(minutes=1)  # that clocks of two machines may differ


def python() -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if OLDEST <= sys.version_info[:2] < NEWEST:
        yield ok("python", said)
    else:
        yield wrong("python", f"{said}; Tenor needs 3.11, 3.12 or 3.13", "run `make setup PYTHON=python3.12`")


def packages(lock: Path = REPOSITORY / "requirements.lock") -> Iterator[Finding]:
    """Every package of the lock file that is for this machine, against what is installed."""
    wanted = [Requirement(line.rstrip("\\ \n")) for line in lock.read_text().splitlines() if line[:1].isalnum()]
    here = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    differ = []
    for one in here:
        pinned = str(one.specifier).removeprefix("==")
        try:
            found = version(canonicalize_name(one.name))
        except PackageNotFoundError:
            differ.append(f"{one.name} {pinned} is not installed")
            continue
        if found != pinned:
            differ.append(f"{one.name} is {found}, the lock has {pinned}")
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        yield wrong("packages", "; ".join(differ[:3]) + more, "run `make setup`, which installs what the lock names")
    else:
        yield ok("packages", f"{len(here)} packages are those of the lock")


def mlx() -> Iterator[Finding]:
    import mlx.core as mx

    device = mx.default_device()
    if mx.sum(mx.arange(1000)).item() == 499_500:
        yield ok("MLX", f"{version('mlx')} computes on the {device.type.name}")
    else:
        yield wrong("MLX", f"{device} adds wrongly", "choose another device, or install MLX anew with `make setup`")


def numba_cache() -> Iterator[Finding]:
    named = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(named) if named else REPOSITORY / "quant" / "__pycache__"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            yield ok("numba cache", f"{folder} can be written")
    except OSError as error:
        fix = (
            "let this user write there, or name another folder in NUMBA_CACHE_DIR; else each start compiles for seconds"
        )
        yield wrong("numba cache", f"{folder} cannot be written: {error.strerror}", fix)


def disk(root: Path) -> Iterator[Finding]:
    place = next(path for path in (root, *root.parents) if path.exists())
    usage = shutil.disk_usage(place)
    said = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB are free at {place}"
    if not os.access(place, os.W_OK):
        yield wrong("disk", f"{place} cannot be written", "let this user write there, or choose another store.root")
    elif usage.free < SCARCE:
        yield wrong("disk", said, "make room: `tenor vacuum --dry-run` says what of the store may go")
    elif usage.free < LITTLE:
        yield note("disk", said, "`tenor vacuum --dry-run` says what of the store may go")
    else:
        yield ok("disk", said)


def time(now: datetime, written: datetime | None) -> Iterator[Finding]:
    """Whether the clock agrees with what it stamped before. written: the newest time that the store holds."""
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if written is not None and written > now + SKEW:
        fix = "set the clock (NTP); `known_at` of pushed bars and the ledger's times are its word"
        yield wrong("time", f"{said}, and the store has an entry of {written:%Y-%m-%d %H:%M:%S}", fix)
    else:
        yield ok("time", said)
