"""A config folder to change at will, and what every message about a mistake must be like."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import conf
from conf.compose import ConfigError, compose

Mistake = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of Tenor's YAML files with small sets of its own; the working folder is the one around it."""
    ours = Path(conf.__file__).parent
    copy = tmp_path / "conf"
    for file in [ours / "config.yaml", *ours.glob("*/*.yaml")]:
        if file.parent.name not in ("features", "factors"):
            target = copy / file.relative_to(ours)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    sets = {
        "features/technical": "rsi_14: rsi(close, 14)\n'ma_{n}': {expr: mean(close, n), n: [5, 10]}\n",
        "features/volume": "volume_ratio: volume / mean(volume, 20)\n",
        "factors/pass_through": "'{f}': {expr: f, f: features}\n",
        "factors/cross_section": "'{f}_rank': {expr: rank(f), f: features}\n",
    }
    for name, text in sets.items():
        file = copy / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# @package {name.replace('/', '.')}\n{text}")
    monkeypatch.chdir(tmp_path)
    for variable in ("TENOR_CONF", "TENOR_HOME", "TENOR_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    return copy


@pytest.fixture
def mistake(folder: Path) -> Mistake:
    """The one message that composing these words ends in: one readable line, without a library's jargon."""

    def message(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            compose(words, folder)
        text = str(caught.value)
        assert "\n" not in text
        for jargon in (
            "Traceback",
            "pydantic",
            "Input should",
            "DictConfig",
            "hydra.cc",
            "object_type",
            "Errno",
        ):
            assert jargon not in text
        assert caught.value.__cause__ is None
        return text

    return message
