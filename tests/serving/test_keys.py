"""API keys: known by their hash, told by their line, ended by their file."""

import hashlib
import math
import os
from pathlib import Path

import pytest

from serving.keys import LOOK, LOST, SETTLED, Key, KeyRing, KeysError, new, parse


def test_a_key_is_known_by_the_sha256_of_its_secret_alone() -> None:
    secret, key = new("feed", frozenset({"push", "read"}), 50)
    assert len(secret) >= 43  # 256 bits
    assert key.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert key.line() == f"feed:read+push:{key.digest}:50"
    assert secret not in key.line()
    assert parse(f"# the desk\n{key.line()}  # rotated in May\n") == [key]
    assert new("feed", frozenset({"push"}))[0] != secret


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no key in it"),
        ("feed", "line 1: a key is written name:role:sha256"),
        ("\nfeed:writes:" + "0" * 64, "line 2 (feed): unknown role 'writes'; roles are read, push, admin"),
        ("feed:push:tenor_secretsecret", "line 1 (feed): the third part must be the SHA-256"),
        ("feed:tenor_x1:push", "line 1 (feed): unknown role; roles are"),
        ("feed:push:" + "0" * 64 + ":-1", "requests per second, above 0"),
        ("feed:push:" + "0" * 64 + ":nan", "requests per second, above 0"),
        (f"a:read:{'0' * 64}\na:push:{'1' * 64}", "two keys have the same name"),
        (f"a:read:{'0' * 64}\nb:push:{'0' * 64}", "two keys have the same hash"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_never_repeated(text: str, told: str) -> None:
    with pytest.raises(KeysError) as caught:
        parse(text)
    assert told in str(caught.value)
    assert "tenor_" not in str(caught.value)


def test_keys_come_from_one_place(tmp_path: Path) -> None:
    secret, key = new("feed", frozenset({"push"}))
    (tmp_path / "keys").write_text(key.line())
    found = KeyRing.from_environment({"TENOR_API_KEYS_FILE": str(tmp_path / "keys")})
    assert found is not None
    assert found.find(secret) == key
    assert found.find("another") is None
    assert KeyRing.from_environment({}) is None
    with pytest.raises(KeysError, match="both set"):
        KeyRing.from_environment({"TENOR_API_KEYS": key.line(), "TENOR_API_KEYS_FILE": "x"})
    with pytest.raises(KeysError, match="absent cannot be read"):
        KeyRing.from_environment({"TENOR_API_KEYS_FILE": str(tmp_path / "absent")})
    with pytest.raises(KeysError, match="TENOR_API_KEYS: there is no key"):
        KeyRing.from_environment({"TENOR_API_KEYS": ""})


class File:
    """A file of keys and the ring that follows it, looked at once a second of made-up time."""

    def __init__(self, path: Path, *lines: str) -> None:
        self.path, self.now = path, 0.0
        self.write(*lines)
        ring = KeyRing.from_environment({"TENOR_API_KEYS_FILE": str(path)})
        assert ring is not None
        self.ring = ring

    def write(self, *lines: str) -> None:
        self.path.write_text("".join(f"{line}\n" for line in lines))

    def wait(self, seconds: float) -> int:
        """How often something was taken up meanwhile."""
        found = 0
        for _ in range(math.ceil(seconds / LOOK)):
            self.now += LOOK
            found += self.ring.refresh(self.now)
        return found


@pytest.fixture
def two() -> list[tuple[str, Key]]:
    return [new("kept", frozenset({"read"})), new("leaked", frozenset({"read"}))]


def test_a_key_ends_when_its_line_goes_the_last_one_too(tmp_path: Path, two: list[tuple[str, Key]]) -> None:
    (kept, kept_key), (leaked, leaked_key) = two
    file = File(tmp_path / "keys", kept_key.line(), leaked_key.line())
    assert file.wait(60) == 0
    file.write(kept_key.line())
    assert file.wait(SETTLED + LOOK) == 1
    assert (file.ring.find(kept), file.ring.find(leaked)) == (kept_key, None)
    assert file.ring.trouble is None
    for rest in ([], ["# nobody any more"]):
        file.write(*rest)
        assert file.wait(SETTLED + LOOK) == 1
        assert file.ring.find(kept) is None
        assert "there is no key in it" in (file.ring.trouble or "")
    file.write(leaked_key.line())
    assert file.wait(SETTLED + LOOK) == 1
    assert (file.ring.find(kept), file.ring.find(leaked)) == (None, leaked_key)


def test_a_line_that_is_wrong_is_no_key_and_the_others_hold(tmp_path: Path, two: list[tuple[str, Key]]) -> None:
    (kept, kept_key), (leaked, leaked_key) = two
    file = File(tmp_path / "keys", kept_key.line(), leaked_key.line())
    file.write("leaked:read:oops", kept_key.line(), f"again:admin:{kept_key.digest}", f"kept:admin:{'0' * 64}")
    assert file.wait(SETTLED + LOOK) == 1
    assert (file.ring.find(kept), file.ring.find(leaked)) == (kept_key, None)  # and not the admin that came second
    assert "line 1 (leaked): the third part must be the SHA-256" in (file.ring.trouble or "")
    assert file.wait(60) == 0, "told once, not at every look"


def test_a_file_that_is_just_being_saved_ends_no_key(tmp_path: Path, two: list[tuple[str, Key]]) -> None:
    kept, kept_key = two[0]
    file = File(tmp_path / "keys", kept_key.line())
    for half in ("", kept_key.line()[:40], kept_key.line() + "\nmore:re"):
        file.path.write_text(half)
        assert file.wait(LOOK) == 0
        assert file.ring.find(kept) == kept_key
    file.write(kept_key.line())
    assert file.wait(60) == 0
    assert file.ring.find(kept) == kept_key


@pytest.mark.parametrize("how", ["deleted", "a folder in its place", "a pipe in its place", "no text"])
def test_a_lost_file_ends_its_keys_after_ten_seconds_until_it_is_back(
    how: str, tmp_path: Path, two: list[tuple[str, Key]]
) -> None:
    kept, kept_key = two[0]
    file = File(tmp_path / "keys", kept_key.line())
    file.path.unlink()
    if how == "a folder in its place":
        file.path.mkdir()
    elif how == "a pipe in its place":
        os.mkfifo(file.path)
    elif how == "no text":
        file.path.write_bytes(b"\xff\xfe")
    file.wait(LOST)
    assert file.ring.find(kept) == kept_key
    file.wait(2 * LOOK)
    assert file.ring.find(kept) is None
    assert "cannot be read" in (file.ring.trouble or "")
    assert str(file.path) in (file.ring.trouble or "")
    if how == "a folder in its place":
        file.path.rmdir()
    else:
        file.path.unlink(missing_ok=True)
    file.write(kept_key.line())
    file.wait(SETTLED + LOOK)
    assert file.ring.find(kept) == kept_key
    assert file.ring.trouble is None


def test_a_file_lost_for_a_moment_ends_no_key(tmp_path: Path, two: list[tuple[str, Key]]) -> None:
    kept, kept_key = two[0]
    file = File(tmp_path / "keys", kept_key.line())
    for _ in range(5):  # the time without it is counted anew
        file.path.unlink()
        file.wait(LOST - 2)
        assert file.ring.find(kept) == kept_key
        file.write(kept_key.line())
        file.wait(1)
        assert file.ring.find(kept) == kept_key
