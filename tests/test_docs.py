"""The Python and the YAML of the documents run as they stand, and say the truth."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets.plan import Plan
from conf.compose import compose
from conf.files import home

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_notebook_examples_run_and_agree_with_each_other() -> None:
    random = np.random.default_rng(0)
    stamps = pl.datetime_range(pl.datetime(2024, 1, 2), pl.datetime(2024, 1, 9), "1h", eager=True, time_zone="UTC")
    frame = pl.concat(
        pl.DataFrame({"timestamp": stamps, "close": 50 + random.normal(0, 1, len(stamps)).cumsum()}).select(
            pl.lit(symbol).alias("symbol"), "timestamp", "close"
        )
        for symbol in ("AAPL", "MSFT")
    )
    scope: dict[str, Any] = {"frame": frame}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "expressions.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, scope)
    rsi, whole, newest, bar = scope["rsi"], scope["whole"], scope["newest"], scope["bar"]
    assert rsi.columns == ["symbol", "timestamp", "value"]
    assert 0 < rsi["value"].min() < rsi["value"].max() < 100
    for name, values in whole.items():
        assert values.shape == (len(stamps), 2)
        assert (values[-1:] == newest[name]).all(), name
        assert (values[-1:] == bar[name]).all(), name


SETS = [
    (file, number, block)
    for file in ("README.md", "docs/expressions.md")
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / file).read_text(), re.DOTALL))
    if "expr:" in block or "@package" in block
]


@pytest.mark.parametrize(("file", "number", "block"), SETS, ids=[f"{file}-{number}" for file, number, _ in SETS])
def test_a_set_in_the_documents_loads_as_it_stands(
    file: str, number: int, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "factors" if "# @package factors" in block else "features"
    plan = planned({f"{group}/mine.yaml": block}, tmp_path, monkeypatch, f"{group}=[{OF[group]},mine]")
    declared = [line.partition(":")[0].partition("{")[0] for line in block.splitlines() if re.match(r"\w", line)]
    made = [*plan.features.names, *plan.factors.names]
    assert declared
    for name in declared:
        assert any(entry.startswith(name) for entry in made), (file, number, name)


def test_the_universe_in_the_documents_declares_what_the_factor_beside_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "expressions.md").read_text()
    [universe] = re.findall(r"```yaml\n(name: mine\n.*?)```", text, re.DOTALL)
    [factors] = re.findall(r"```yaml\n(# @package factors.mine\n.*?)```", text, re.DOTALL)
    [table] = re.findall(r"```\n(symbol,.*?)```", text, re.DOTALL)
    (tmp_path / "sectors.csv").write_text(table)
    monkeypatch.chdir(tmp_path)
    files = {"universe/mine.yaml": universe, "factors/mine.yaml": factors}
    plan = planned(files, tmp_path, monkeypatch, "universe=mine", "factors=[pass_through,mine]")
    assert plan.attributes["sector"].categories == ("media", "tech")
    assert len(plan.attributes["cap"].spans) == 1
    assert plan.factors.outputs["return_in_sector"].crosses


OF = {"features": "technical", "factors": "pass_through"}  # the sets that the documents use beside one's own


def planned(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Plan:
    """What a copy of the config folder with these files gives, found by TENOR_CONF."""
    monkeypatch.delenv("TENOR_CONF", raising=False)
    copy = folder / "conf"
    shutil.copytree(home(), copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, text in files.items():
        (copy / name).write_text(text)
    monkeypatch.setenv("TENOR_CONF", str(copy))
    return Plan(compose(["horizon=5m", *words])["5m"])
