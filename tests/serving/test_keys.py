"""API keys: known by their hash, told by their line, ended by their file."""

import hashlib
from pathlib import Path

import pytest

from serving.keys import KeyRing, KeysError, new, parse


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


def test_a_key_removed_from_the_file_ends_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    (kept, kept_key), (leaked, leaked_key) = new("kept", frozenset({"read"})), new("leaked", frozenset({"read"}))
    file = tmp_path / "keys"
    file.write_text(f"{kept_key.line()}\n{leaked_key.line()}\n")
    ring = KeyRing.from_environment({"TENOR_API_KEYS_FILE": str(file)})
    assert ring is not None
    assert ring.refresh() is False
    file.write_text(kept_key.line())
    assert ring.refresh() is True
    assert (ring.find(kept), ring.find(leaked)) == (kept_key, None)
    file.write_text("kept:read:oops")
    with pytest.raises(KeysError, match="line 1"):
        ring.refresh()
    assert ring.find(kept) == kept_key
