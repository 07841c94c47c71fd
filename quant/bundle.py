"""The model bundle: everything needed to go from bars to a prediction, and the golden data that proves it.

A bundle is a set of named files in memory (`to_files`, `from_files`); the registry keeps them in a folder.
"""

import hashlib
import io
import json
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import polars as pl

from quant import manifest as manifests
from quant import tensors
from quant.bars import BarsError
from quant.forest import Forest, ForestError, Name
from quant.forest import compile as compile_forest
from quant.forest_choice import available
from quant.formats import refusal
from quant.grid import Grid
from quant.inputs import names
from quant.novelty import Novelty
from quant.preprocess import Preprocess
from quant.recipe import NO_BARS, Recipe, RecipeError
from quant.validate import validate

FORMAT = "tenor-bundle-1"
MANIFEST = manifests.MANIFEST
FILES = ("model.txt", "forest.safetensors", "golden_bars.parquet", "golden.parquet")
IDENTITY = ("content", "config", "source", "lock")  # digests that make the id
NOVELTY = "novelty.safetensors"
NOVELTY_TOLERANCE = 0.02  # of a golden novelty on another kind of device, whose factors differ in the last bits
TOLERANCE = 1e-9  # of a prediction, relative to the scale of LightGBM's predictions

T = TypeVar("T")


class BundleError(ValueError):
    """A bundle that is damaged or does not prove itself, or rows and bars that it cannot predict from."""


@dataclass(frozen=True)
class Bundle:
    """A trained model with its recipe. `manifest` is JSON: what it is, how it was made, how it scored."""

    manifest: Mapping[str, Any]
    recipe: Recipe
    text: str  # LightGBM's model text
    forest: Forest
    golden_bars: pl.DataFrame  # rows of the bars table
    golden: pl.DataFrame  # symbol, timestamp, factors Float32, prediction Float64 by LightGBM
    golden_others: Mapping[str, pl.DataFrame] = field(default_factory=dict)  # the same of the horizons it reads too
    novelty: Novelty | None = None  # None: the bundle was made before there was any
    golden_novelty: np.ndarray | None = None  # of the golden rows, float32 [N]

    @property
    def id(self) -> str:
        """16 hex digits of the digests of row content, resolved config, source of `quant` and lock file."""
        return self.manifest["id"]

    @property
    def horizon(self) -> str:
        return self.manifest["horizon"]

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(self.recipe.factors)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that expressions read off the bars sent."""
        used = {*self.recipe.feature_program.inputs, *self.recipe.factor_program.inputs}
        return tuple(name for name in self.recipe.columns if name in used)

    def columns_of(self, horizon: str) -> tuple[str, ...]:
        """Names that expressions read off the bars of another horizon in `recipe.reads`."""
        programs = (self.recipe.feature_program, self.recipe.factor_program)
        used = {name for program in programs if horizon in program.others for name in program.others[horizon].inputs}
        return tuple(name for name in self.recipe.others[horizon].columns if name in used)

    @property
    def scores(self) -> Mapping[str, Any]:
        return self.manifest["scores"]

    @property
    def golden_rows(self) -> np.ndarray:
        """What the forest reads of the golden factors, float32 [N, F]."""
        return self.preprocess.apply(_matrix(self.golden, self.factors))

    @cached_property
    def preprocess(self) -> Preprocess:
        """What the forest reads is what this makes of the factors."""
        return Preprocess.from_dict(self.manifest["preprocessing"] or {})  # an older bundle has an empty list

    def predict_rows(self, X: np.ndarray, evaluator: Name = "native") -> np.ndarray:
        """Predictions float64 [N] of X float32 [N, F], NaN = missing; BundleError for another shape."""
        try:
            self.forest.check(X)
            return self.forest.predict(self.preprocess.apply(X), evaluator)
        except ForestError as error:
            raise BundleError(str(error)) from error

    def novelty_of(self, X: np.ndarray) -> np.ndarray | None:
        """How unlike the training rows X float32 [N, F] are, [N] from 0 to 1; None where the bundle cannot say."""
        return None if self.novelty is None else self.novelty.of(X, self.factors)

    @property
    def abstains_above(self) -> float | None:
        """The novelty above which a prediction is no signal; None: it always is one."""
        return abstains_above(self.manifest)

    def predict_bars(
        self,
        frame: pl.DataFrame,
        last: int | None = 1,
        absent: Collection[str] = (),
        others: Mapping[str, pl.DataFrame] = NO_BARS,
    ) -> pl.DataFrame:
        """Predict the newest `last` slots (None: all with a full look-back) from bars, as `rows_of` takes them.

        Returns symbol, timestamp, prediction, coverage (share of factors with a value), a row per member with a bar.
        """
        keys, X = self.rows_of(frame, last, absent, others)
        return keys.with_columns(
            prediction=self.predict_rows(X), coverage=1.0 - np.isnan(X).mean(axis=1, dtype=np.float64)
        )

    def rows_of(
        self,
        frame: pl.DataFrame,
        last: int | None = 1,
        absent: Collection[str] = (),
        others: Mapping[str, pl.DataFrame] = NO_BARS,
    ) -> tuple[pl.DataFrame, np.ndarray]:
        """Keys (symbol, timestamp) and factors float32 [N, F] of the newest `last` slots of bars.

        frame: rows of the bars table; `known_at` and `source` may be absent, adjustment factors too (then 1).
        It must reach `recipe.lookback` slots further back and, where factors cross the section, hold every
        member not named in `absent`. others: bars of the horizons in `recipe.reads`, at least those that
        `recipe.needs` names. Raises BundleError for bars that are refused or do not suffice.
        """
        try:
            bars = self._valid(frame, self.recipe.grid, self.columns)
            read = {
                name: self._valid(others[name], self.recipe.others[name].grid, self.columns_of(name), name)
                for name in self.recipe.reads
                if name in others
            }
            self.recipe.enough(bars, read, last, absent)
            return self.recipe.rows(bars, last, absent, read)
        except (BarsError, RecipeError) as error:
            raise BundleError(str(error)) from error

    def verify(self) -> None:
        """Replay the golden data from bars to predictions; BundleError says what differs.

        Factors must come out to the bit on the kind of device that made them (elsewhere to 1e-4 of their
        spread), predictions to 1e-9 of their scale, and every evaluator that runs here with the same bits.
        """
        if compile_forest(self.text).dumps() != self.forest.dumps():
            raise BundleError(f"bundle {self.id}: forest.safetensors is not what model.txt compiles to")
        try:
            absent = without_bars(self.recipe, self.golden_bars)
            keys, X = self.recipe.rows(self.golden_bars, absent=absent, others=self.golden_others)
        except ValueError as error:
            raise BundleError(f"bundle {self.id}: golden bars give no factors: {error}") from error
        if not keys.equals(self.golden.select("symbol", "timestamp")):
            raise BundleError(
                f"bundle {self.id}: golden bars give {keys.height} rows, {self.golden.height} were recorded, "
                "or other symbols and times"
            )
        golden = _matrix(self.golden, self.factors)
        self._compare_factors(X, golden)
        found = self.verify_predictions()
        for name in available():
            if self.predict_rows(golden, name).tobytes() != found.tobytes():
                raise BundleError(f"bundle {self.id}: evaluator {name} disagrees with native on the golden rows")
        self._compare_novelty(golden)

    def verify_predictions(self) -> np.ndarray:
        """Predict the golden factors, float64 [N]; BundleError where LightGBM's predictions are others."""
        expected = self.golden["prediction"].to_numpy()
        found = self.predict_rows(_matrix(self.golden, self.factors))
        worst = float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny))
        if not worst <= TOLERANCE:
            raise BundleError(f"bundle {self.id}: predictions differ from LightGBM's by {worst:.1e} of their scale")
        return found

    def warm(self) -> None:
        """Do once what the first prediction of a section would wait for."""
        absent = without_bars(self.recipe, self.golden_bars)
        _, X = self.recipe.rows(self.golden_bars, 1, absent, self.golden_others)
        self.predict_rows(X)
        self.novelty_of(X)

    def to_files(self) -> dict[str, bytes]:
        """File name -> content; the manifest comes last and lists the SHA-256 of every other file and of itself."""
        contents = (
            self.text.encode(),
            self.forest.dumps(),
            parquet(self.golden_bars),
            parquet(self.golden),
        )
        files = dict(zip(FILES, contents, strict=True))
        files |= {_golden_of(name): parquet(bars) for name, bars in self.golden_others.items()}
        if self.novelty is not None and self.golden_novelty is not None:
            files[NOVELTY] = self.novelty.dumps(golden=self.golden_novelty)
        hashes = {name: _sha256(data) for name, data in files.items()}
        manifest = {**self.manifest, manifests.FILES: {**hashes, MANIFEST: manifests.digest(self.manifest)}}
        return files | {MANIFEST: json.dumps(manifest, indent=1, allow_nan=False).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "Bundle":
        """Read and check the files; BundleError names one that is absent, damaged or does not fit."""
        if MANIFEST in files:
            _known_format(files[MANIFEST])  # first: another format may have other files
        if missing := [name for name in (*FILES, MANIFEST) if name not in files]:
            raise BundleError(f"incomplete bundle, missing {', '.join(missing)}: it was not copied whole")
        try:
            manifest, hashes = manifests.read(files[MANIFEST])
            recipe = _recipe(json.dumps(manifest["recipe"]))
            theirs = {name: _golden_of(name) for name in recipe.reads}
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{MANIFEST} is damaged: {error}") from error
        told = (NOVELTY,) if manifest.get("novelty") else ()
        for name in (*FILES, *theirs.values(), *told):
            if name not in files:
                raise BundleError(f"incomplete bundle, missing {name}: it was not copied whole")
            if hashes.pop(name, None) != _sha256(files[name]):
                raise BundleError(f"{name} is damaged: its SHA-256 is not the one in {MANIFEST}")
        if hashes:
            raise BundleError(f"{MANIFEST} is damaged: files: {', '.join(hashes)} belongs to nothing else that it says")
        if manifest["id"] != identity(manifest["digests"]):
            raise BundleError(f"{MANIFEST} is damaged: id {manifest['id']} does not follow from its digests")
        text = _part("model.txt", files, bytes.decode)
        forest = _part("forest.safetensors", files, Forest.loads)
        bars = _part("golden_bars.parquet", files, _frame)
        golden = _part("golden.parquet", files, _frame)
        expected = {"symbol": pl.String(), "timestamp": pl.Datetime("us", "UTC"), "prediction": pl.Float64()}
        expected |= dict.fromkeys(recipe.factors, pl.Float32())
        if dict(golden.schema) != expected:
            raise BundleError(f"golden.parquet is damaged: its columns are {dict(golden.schema)}, not {expected}")
        others = {name: _part(file, files, _frame) for name, file in theirs.items()}
        novelty = _part(NOVELTY, files, Novelty.loads) if told else None
        golden_novelty = _part(NOVELTY, files, lambda data: tensors.loads(data)[0]["golden"]) if told else None
        if novelty is not None and not set(novelty.columns) <= set(recipe.factors):
            raise BundleError(f"{NOVELTY} is damaged: it is of other factors: {', '.join(novelty.columns)}")
        if golden_novelty is not None and golden_novelty.shape != (golden.height,):
            raise BundleError(f"{NOVELTY} is damaged: {golden_novelty.shape} numbers for {golden.height} golden rows")
        return cls(manifest, recipe, text, forest, bars, golden, others, novelty, golden_novelty)

    def _valid(self, frame: pl.DataFrame, grid: Grid, columns: Collection[str], horizon: str = "") -> pl.DataFrame:
        what = f"bars of horizon {horizon}" if horizon else "bars"
        if lacking := [name for name in columns if name not in {*names(), *frame.columns}]:
            raise BundleError(f"the expressions read {', '.join(lacking)}, and the {what} have no such column")
        checked = validate(_completed(frame, grid), grid)
        if checked.rejected.height:
            first = checked.rejected.row(0, named=True)
            raise BundleError(
                f"{checked.rejected.height} of {frame.height} {what} are refused, the first: {first['symbol']} "
                f"at {first['timestamp']}: {first['reason']}"
            )
        return checked.good

    def _compare_factors(self, found: np.ndarray, golden: np.ndarray) -> None:
        """Raise BundleError for the first factor that does not replay."""
        for column, name in enumerate(self.factors):
            new, old = found[:, column], golden[:, column]
            if self.manifest["device"] == device():
                same = (new.view(np.int32) == old.view(np.int32)) | (np.isnan(new) & np.isnan(old))
            else:
                spread = float(np.nanstd(old, dtype=np.float64)) if np.isfinite(old).any() else 0.0
                same = np.isclose(new, old, rtol=1e-4, atol=1e-4 * spread, equal_nan=True)
            if not same.all():
                row = int(np.argmin(same))
                where = self.golden.row(row, named=True)
                raise BundleError(
                    f"bundle {self.id}: factor {name} replays differently in {int((~same).sum())} of "
                    f"{len(same)} golden rows, first {where['symbol']} at {where['timestamp']}: {new[row]} "
                    f"instead of {old[row]}"
                )

    def _compare_novelty(self, golden: np.ndarray) -> None:
        """Raise BundleError where the golden rows are not as novel as they were."""
        found = self.novelty_of(golden)
        if found is None or self.golden_novelty is None:
            return
        apart = np.abs(found - self.golden_novelty)
        if not (apart <= (0 if self.manifest["device"] == device() else NOVELTY_TOLERANCE)).all():
            at = int(np.argmax(apart))
            row = self.golden.row(at, named=True)
            raise BundleError(
                f"bundle {self.id}: the novelty of {row['symbol']} at {row['timestamp']} replays as {found[at]} "
                f"instead of {self.golden_novelty[at]}"
            )


def _known_format(manifest: bytes) -> None:
    try:
        found = json.loads(manifest)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{MANIFEST} is damaged: {type(error).__name__} {error}") from error
    if found != FORMAT:
        raise BundleError(refusal("the bundle", found, FORMAT, "train again"))


def _part(name: str, files: Mapping[str, bytes], read: Callable[[bytes], T]) -> T:
    """Read a file whose hash is right; BundleError names it where its content is none."""
    try:
        return read(files[name])
    except (ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{name} is damaged: {type(error).__name__} {error}") from error


def _frame(data: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(data))


@lru_cache(8)
def _recipe(text: str) -> Recipe:
    """The recipe of JSON text. The same one for equal texts: bundles of one horizon share what is compiled of it."""
    return Recipe.from_dict(json.loads(text))


def _golden_of(horizon: str) -> str:
    """The file of another horizon's golden bars."""
    return f"golden_bars_{horizon}.parquet"


def abstains_above(manifest: Mapping[str, Any]) -> float | None:
    """The novelty above which a prediction of the bundle with this manifest is no signal; None: it always is one."""
    return (manifest.get("novelty") or {}).get("abstain_above")


def without_bars(recipe: Recipe, bars: pl.DataFrame) -> set[str]:
    """Symbols that truly had no bar: golden data is all there was."""
    return set(recipe.symbols) - set(bars["symbol"])


def identity(digests: Mapping[str, str]) -> str:
    """The bundle id: 16 hex digits over the digests, whatever their order."""
    return _sha256("\n".join(f"{name}={digests[name]}" for name in IDENTITY).encode())[:16]


def device() -> str:
    """The kind of device whose arithmetic made the factors: processor, and MLX's default device."""
    import mlx.core as mx

    return f"{platform.machine()} {mx.default_device().type.name}"


def _completed(frame: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Bars with the columns a client need not send: adjustment factors of 1, known when the bar ends."""
    stamps = frame["timestamp"].dt.replace_time_zone(None).to_numpy()
    absent: dict[str, pl.Expr | pl.Series] = {
        "price_factor": pl.lit(1.0),
        "volume_factor": pl.lit(1.0),
        "known_at": pl.Series(grid.ends(stamps)).dt.replace_time_zone("UTC"),
        "source": pl.lit("sent"),
    }
    return frame.with_columns(**{name: value for name, value in absent.items() if name not in frame.columns})


def _matrix(frame: pl.DataFrame, columns: Collection[str]) -> np.ndarray:
    return np.stack([frame[name].to_numpy() for name in columns], axis=1)


def parquet(frame: pl.DataFrame) -> bytes:
    """A frame as the file that bundles keep."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, statistics=False)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
