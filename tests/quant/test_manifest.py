"""A manifest in which anything was taken away, changed or added is refused with the key, or is the same one."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import tensors
from quant.bundle import MANIFEST, NOVELTY, Bundle, BundleError, parquet
from quant.manifest import FILES, digest
from tests.quant.test_bundle import bundle

__all__ = ["bundle"]

OTHER = [None, True, False, 0, -1, 1.5, 10**30, "", "other", "2024-01-01T00:00:00Z", [], {}, [None], [[]], {"other": 1}]
Path = tuple[str | int, ...]


def places(told: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in JSON, the whole of it included."""
    yield path
    items = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(told: Any, path: Path, how: str, value: Any) -> Any:
    """A copy with one place deleted, replaced, or given one more key or item."""
    if how == "replace" and not path:
        return value
    whole = copy.deepcopy(told)
    at = whole
    for key in path[:-1] if how in ("delete", "replace") else path:
        at = at[key]
    if how == "delete":
        del at[path[-1]]
    elif how == "replace":
        at[path[-1]] = value
    elif isinstance(at, dict):
        at["novelyt"] = value
    elif isinstance(at, list):
        at.append(value)
    return whole


@given(st.data())
def test_a_changed_manifest_is_refused_by_name_or_is_the_same(bundle: Bundle, data: st.DataObject) -> None:
    files = bundle.to_files()
    told = json.loads(files[MANIFEST])
    older = data.draw(st.booleans())  # one that says nothing of its own hash
    if older:
        del told[FILES][MANIFEST]
    path = data.draw(st.sampled_from(list(places(told))))
    how = data.draw(st.sampled_from(["delete", "replace", "add"] if path else ["replace", "add"]))
    spoiled = changed(told, path, how, data.draw(st.sampled_from(OTHER)))
    said, again = "", None
    try:
        again = Bundle.from_files(files | {MANIFEST: json.dumps(spoiled).encode()})
    except BundleError as error:
        said = str(error)
    if again is None:
        assert any(name in said for name in (*files, "format"))
    else:
        assert older or again.to_files() == files


@pytest.mark.parametrize(
    ("path", "how", "value", "said"),
    [
        (("novelty", "abstain_above"), "delete", None, "novelty.abstain_above: Field required"),
        (("novelty", "neighbours"), "replace", None, "novelty.neighbours: Input should be a valid integer"),
        (("novelty", "abstain_above"), "replace", "0.9", "novelty.abstain_above: Input should be a valid number"),
        (("novelty", "abstain_above"), "replace", 2, "novelty.abstain_above: Input should be less than 1"),
        ((), "add", {}, "novelyt: Extra inputs are not permitted"),
        (("novelty",), "delete", None, f"files: {NOVELTY} belongs to nothing"),
        (("digests", "lock"), "delete", None, "digests.lock: Field required"),
        (("recipe", "factors", "back"), "replace", 1, "recipe.factors.back: Input should be a valid string"),
        (("recipe", "calendar"), "replace", [], "recipe.calendar: Input should be an object"),
        (("recipe", "factors", "back"), "replace", "back +", "its SHA-256 is not the one in it"),
        (("novelty", "abstain_above"), "replace", 0.5, "its SHA-256 is not the one in it"),
        (("scores", "model", "rank_ic"), "delete", None, "its SHA-256 is not the one in it"),
        (("preprocessing",), "replace", {"fill": [0.0]}, "preprocessing.fill: 1 numbers for 4 factors"),
        (("spans",), "replace", {"train": ["yesterday", "today"]}, "spans.train.0: String should match"),
    ],
)
def test_what_is_wrong_is_named(bundle: Bundle, path: Path, how: str, value: Any, said: str) -> None:
    files = bundle.to_files()
    told = json.loads(files[MANIFEST])
    if path == ("novelty",) and how == "delete":  # the damage of someone who knows of the hash
        told = changed(told, path, how, value)
        told[FILES][MANIFEST] = digest({key: part for key, part in told.items() if key != FILES})
    else:
        told = changed(told, path, how, value)
    with pytest.raises(BundleError) as caught:
        Bundle.from_files(files | {MANIFEST: json.dumps(told).encode()})
    assert f"{MANIFEST} is damaged: {said}" in str(caught.value)


def rewritten(bundle: Bundle, name: str, data: bytes) -> dict[str, bytes]:
    """The bundle's files with other content in one, whose hash fits."""
    import hashlib

    files = bundle.to_files()
    told = json.loads(files[MANIFEST])
    told[FILES][name] = hashlib.sha256(data).hexdigest()
    return files | {name: data, MANIFEST: json.dumps(told).encode()}


def without(data: bytes, name: str) -> bytes:
    arrays, meta = tensors.loads(data)
    return tensors.dumps({key: array for key, array in arrays.items() if key != name}, meta)


@pytest.mark.parametrize("name", ["golden", "sample", "distances"])
def test_a_novelty_file_without_one_of_its_arrays_is_named(bundle: Bundle, name: str) -> None:
    data = without(bundle.to_files()[NOVELTY], name)
    with pytest.raises(BundleError, match=rf"{NOVELTY} is damaged: .*{name}"):
        Bundle.from_files(rewritten(bundle, NOVELTY, data))


def test_a_novelty_file_of_other_rows_is_named(bundle: Bundle) -> None:
    assert bundle.novelty is not None
    assert bundle.golden_novelty is not None
    data = bundle.novelty.dumps(golden=bundle.golden_novelty[:-1])
    with pytest.raises(BundleError, match=rf"{NOVELTY} is damaged: .* golden rows"):
        Bundle.from_files(rewritten(bundle, NOVELTY, data))


@pytest.mark.parametrize("column", ["symbol", "prediction", "wild"])
def test_golden_rows_without_a_column_are_named(bundle: Bundle, column: str) -> None:
    data = parquet(bundle.golden.drop(column))
    with pytest.raises(BundleError, match=r"golden\.parquet is damaged: its columns are"):
        Bundle.from_files(rewritten(bundle, "golden.parquet", data))
    data = parquet(bundle.golden.with_columns(pl.lit("text").alias(column)))
    if column != "symbol":
        with pytest.raises(BundleError, match=r"golden\.parquet is damaged: its columns are"):
            Bundle.from_files(rewritten(bundle, "golden.parquet", data))


@pytest.mark.parametrize("name", ["model.txt", "forest.safetensors", "golden_bars.parquet", "golden.parquet", NOVELTY])
def test_a_file_of_other_content_with_a_hash_that_fits_is_named(bundle: Bundle, name: str) -> None:
    with pytest.raises(BundleError, match=name):
        Bundle.from_files(rewritten(bundle, name, b"\xff no such thing"))
