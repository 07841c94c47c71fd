"""What a bundle's manifest says, typed: a key that is missing, unknown or of another type is named."""

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"
FILES = "files"  # the key with the SHA-256 of every file, and of the other keys under the manifest's own name

Instant = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
Ends = tuple[Instant, Instant]
Bounds = dict[str, tuple[float | None, float | None]]
Steps = Literal["kept", "low", "high", "fill", "mean", "scale"]


class ManifestError(ValueError):
    """A manifest that is cut off, changed, or does not say what one must; the message names the key."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Calendar(_Part):
    name: str
    timezone: str | None = None
    open: str | None = None
    close: str | None = None
    weekdays: tuple[int, ...] = ()
    breaks: tuple[tuple[str, str], ...] = ()
    holidays: str | None = None


class _Attribute(_Part):
    categories: tuple[str, ...] | None
    spans: list[tuple[str, date | None, date | None, str | float | None]]


class _Other(_Part):
    calendar: _Calendar
    interval: str
    columns: list[str]
    features: dict[str, str]
    attributes: dict[str, _Attribute]
    derived: dict[str, str] = {}


class _Recipe(_Part):
    calendar: _Calendar
    interval: str
    symbols: list[str]
    columns: list[str]
    features: dict[str, str]
    factors: dict[str, str]
    members: list[tuple[str, date, date | None]] | None
    attributes: dict[str, _Attribute] = {}
    others: dict[str, _Other] = {}
    feature_bounds: Bounds = {}
    factor_bounds: Bounds = {}
    derived: dict[str, str] = {}


class _Label(_Part):
    name: str
    text: str = ""
    lookahead: int = 0


class _Fold(_Part):
    spans: dict[str, Ends]
    groups: list[int]
    counts: dict[str, int]


class _Statistics(_Part):
    missing: float
    edges: list[float] | None


class _Digests(_Part):
    content: str
    config: str
    source: str
    lock: str


class _Novelty(_Part):
    columns: list[str]
    neighbours: int
    rows: int
    abstain_above: Annotated[float, Field(gt=0, lt=1)] | None


class _Manifest(_Part):
    format: str
    id: str
    horizon: str
    digests: _Digests
    config: dict[str, Any] | str
    recipe: _Recipe
    lookback: int
    crosses: bool
    label: _Label
    preprocessing: Annotated[  # an older bundle has an empty list
        dict[Steps, list[float | None]], BeforeValidator(lambda told: {} if told == [] else told)
    ]
    objective: str
    best_iteration: int
    trees: dict[str, int]
    curve: dict[str, dict[str, list[float]]]
    importance: dict[str, float]
    counts: dict[str, int]
    weights: dict[str, float] | None
    tuning: dict[str, Any] | None
    spans: dict[str, Ends]
    folds: list[_Fold]
    scores: dict[str, dict[str, Any]]
    statistics: dict[str, _Statistics]
    novelty: _Novelty | None = None  # an older bundle has none
    device: str
    files: dict[str, str]


def read(data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """What the manifest says, and the SHA-256 of each file; ManifestError names the first key that is wrong."""
    try:
        _Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ManifestError(": ".join(filter(None, (key, first["msg"])))) from error
    told: dict[str, Any] = json.loads(data)
    hashes: dict[str, str] = told.pop(FILES)
    width = len(told["recipe"]["factors"])
    for step, numbers in dict(told["preprocessing"]).items():
        if len(numbers) != width:
            raise ManifestError(f"preprocessing.{step}: {len(numbers)} numbers for {width} factors")
    if hashes.pop(MANIFEST, None) not in (None, digest(told)):  # an older bundle has none
        raise ManifestError("its SHA-256 is not the one in it: a value was changed")
    return told, hashes


def digest(told: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, less its `files`: the same after JSON, whatever the order of keys."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode()).hexdigest()
