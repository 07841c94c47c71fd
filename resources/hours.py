"""Trading hours as a process before this one made them: exchange_calendars takes seconds of each start."""

import hashlib
import io
import json
import uuid
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from quant.calendars import CalendarSpec, Segments, made


class Hours:
    """Files `calendars/<version>-<hash>.npz` below a store's root; another version of exchange_calendars makes others.

    A cache: what is damaged or of another version is left aside and made again.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "calendars"
        self._version = version("exchange_calendars")

    def recall(self) -> list[CalendarSpec]:
        """Take the hours that are there into this process; which calendars they are of."""
        found = []
        for file in sorted(self._folder.glob(f"{self._version}-*.npz")):
            try:
                with np.load(io.BytesIO(file.read_bytes())) as held:
                    spec = _spec(str(held["spec"]))
                    hours = Segments(held["dates"], held["first"], held["open"], held["close"])
                    told = str(held["digest"])
            except (OSError, ValueError, KeyError, EOFError, BadZipFile):
                continue
            if told == _digest(spec, hours):
                made.setdefault(spec, hours)
                found.append(spec)
        return found

    def keep(self) -> None:
        """Write the hours of this process that are not there."""
        for spec, hours in list(made.items()):
            text = _text(spec)
            file = self._folder / f"{self._version}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
            if file.exists() and spec in self.recall():
                continue
            self._folder.mkdir(parents=True, exist_ok=True)
            data = io.BytesIO()
            np.savez(data, spec=text, digest=_digest(spec, hours), **asdict(hours))
            draft = file.with_name(f".{uuid.uuid4().hex}")
            draft.write_bytes(data.getvalue())
            draft.replace(file)


def _digest(spec: CalendarSpec, hours: Segments) -> str:
    digest = hashlib.sha256(_text(spec).encode())
    for values in asdict(hours).values():
        digest.update(np.ascontiguousarray(values).view(np.int64).tobytes())
    return digest.hexdigest()


def _text(spec: CalendarSpec) -> str:
    return json.dumps(asdict(spec), sort_keys=True)


def _spec(text: str) -> CalendarSpec:
    told = json.loads(text)
    tuples = {"weekdays": tuple(told["weekdays"]), "breaks": tuple(tuple(pair) for pair in told["breaks"])}
    return CalendarSpec(**{**told, **tuples})
