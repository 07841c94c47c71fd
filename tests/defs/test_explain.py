"""`tenor explain`: a prediction goes back to its bars, its factors and what LightGBM says they added, its bundle."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from defs.cli import main
from quant.bundle import Bundle
from quant.forest_choice import fixed
from resources.arrivals import Journal
from resources.lake import Lake
from resources.registry import Registry
from serving.log_rows import LAYOUT, frame, line, table
from serving.predictor import Predictor
from serving.record import Record
from tests.serving.conftest import random_bars, recipe, train

TABLE = {"calendar": {"name": "XNYS"}, "interval": "5m", "bars": "source"}
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_bars(recipe())


@pytest.fixture(scope="module")
def bundles(bars: pl.DataFrame) -> list[Bundle]:
    return [train(recipe(), bars, seed) for seed in (1, 2)]


@pytest.fixture
def store(tmp_path: Path, bars: pl.DataFrame, bundles: list[Bundle]) -> Path:
    """Bars in the lake, the first bundle promoted, and signal `asked.0 … 3`: the section of the newest bars."""
    root = tmp_path / "store"
    registry, lake = Registry(root), Lake(f"{root}/lake")
    for bundle in bundles:
        registry.write(bundle, {"tables": {"bars": 0}, "run": "run-1"})
    entry = registry.promote("5m", bundles[0].id, "the first model", by="ada")
    days = bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition")
    lake.write("bars/5m", [bars.with_columns(days)], days.unique().to_list(), TABLE)
    keys, X = recipe().rows(bars, 1)
    by = Predictor(bundles[0], entry, entry.at, entry.at, fixed("native"))
    stamp = datetime.now(UTC) + timedelta(milliseconds=1)  # Delta's commits are stamped to the millisecond
    asked = Record("asked", stamp, "/predict", "5m", by, X, bundles[0].predict_rows(X), list(keys.iter_rows()), 0.0021)
    moved = X.copy()
    moved[0, 0] += 1
    sent = asked._replace(request_id="sent", X=moved, values=bundles[0].predict_rows(moved))
    nameless = asked._replace(request_id="nameless", keys=None)
    canary = asked._replace(
        request_id="canary",
        predictor=Predictor(bundles[1], entry, entry.at, entry.at, fixed("native"), "canary"),
    )
    canary = canary._replace(values=bundles[1].predict_rows(X))
    for one in (asked, sent, nameless, canary):
        rows = frame([line(one)], keep=True)
        lake.append(table("5m"), rows, LAYOUT)
        if one is asked:
            shadow = rows.with_columns(
                role=pl.lit("shadow"), bundle=pl.lit(bundles[1].id), prediction=pl.Series(bundles[1].predict_rows(X))
            )
            lake.append(table("5m"), shadow, LAYOUT)
    return root


@pytest.fixture
def say(store: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(["explain", *words, f"store.root='{store}'"])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def explained(say: Say, signal: str) -> dict[str, Any]:
    status, out, err = say(signal, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_contributions_are_lightgbms_own_and_add_up_to_its_raw_score(
    say: Say, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    keys, X = recipe().rows(bars, 1)
    booster = lgb.Booster(model_str=bundles[0].text)
    for row in (0, 3):
        told = explained(say, f"asked.{row}")
        assert told["symbol"] == keys["symbol"][row]
        assert told["prediction"] == bundles[0].predict_rows(X)[row]
        assert told["raw score"] == pytest.approx(booster.predict(X, raw_score=True)[row], abs=1e-12)
        by_name = {one["name"]: one for one in told["factors"]}
        oracle = booster.predict(X, pred_contrib=True)[row]
        assert [by_name[name]["contribution"] for name in bundles[0].factors] == oracle[:-1].tolist()
        assert told["base"] == oracle[-1]
        assert [np.float32(by_name[name]["value"]) for name in bundles[0].factors] == X[row].tolist()
        sizes = [abs(one["contribution"]) for one in told["factors"]]
        assert sizes == sorted(sizes, reverse=True)


def test_it_names_bundle_ledger_tables_config_and_the_bars_and_replays_all_of_it(
    say: Say, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    told = explained(say, "asked.1")
    assert told["bundle"]["id"] == bundles[0].id
    assert told["bundle"]["ledger"]["why"] == "the first model"
    assert told["bundle"]["ledger"]["by"] == "ada"
    assert told["bundle"]["provenance"]["tables"] == {"bars": 0}
    assert told["config"] == bundles[0].manifest["config"]
    assert told["shadow"][0]["bundle"] == bundles[1].id
    assert told["answered"]["role"] == "champion"
    mine = bars.filter(symbol=told["symbol"]).sort("timestamp").tail(5)
    assert [bar["close"] for bar in told["bars"]["newest"]] == mine["close"].to_list()
    assert told["bars"]["version now"] == told["bars"]["version then"] == 0
    assert told["replay"] == {
        "same prediction": True, "inputs unchanged": True, "factors that differ from the bars": [], "problem": None,
    }  # fmt: skip
    status, out, _ = say("asked.1")
    assert status == 0
    assert "the bundle gives this answer again, to the bit; the bars give the same factors, to the bit" in out
    assert f"{bundles[0].id} as champion, number 1 of the ledger" in out
    assert "promote at" in out
    assert f"challenger {bundles[1].id} said" in out


def test_a_factor_that_the_client_sent_otherwise_is_named(say: Say, bundles: list[Bundle]) -> None:
    told = explained(say, "sent.0")
    assert told["replay"]["factors that differ from the bars"] == [bundles[0].factors[0]]
    assert told["replay"]["same prediction"] is True


def test_a_row_without_symbol_is_explained_from_its_inputs_alone(say: Say) -> None:
    told = explained(say, "nameless.2")
    assert told["replay"]["problem"] == "the request named no symbol and bar"
    assert told["factors"]
    assert "no named symbol" in say("nameless.2")[1]


def test_what_a_canary_said_is_taken_back_to_the_canary(say: Say, bundles: list[Bundle]) -> None:
    told = explained(say, "canary.0")
    assert told["bundle"]["id"] == bundles[1].id
    assert told["replay"]["same prediction"] is True
    assert f"{bundles[1].id} as canary, which stood beside champion {bundles[0].id}" in say("canary.0")[1]


def test_without_the_bundle_the_log_the_ledger_and_the_bars_are_told(
    say: Say, store: Path, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    whole = explained(say, "asked.1")
    folder = Registry(store).path("5m", bundles[0].id)
    (folder / "model.txt").write_text("no model")
    told = explained(say, "asked.1")
    assert "model.txt is damaged" in told["bundle"]["problem"]
    assert told["factors"] is None
    for name in ("signal", "answered", "symbol", "timestamp", "prediction", "coverage", "inputs", "shadow"):
        assert told[name] == whole[name]
    assert told["bundle"]["ledger"] == whole["bundle"]["ledger"]
    assert told["bundle"]["provenance"] == whole["bundle"]["provenance"]
    assert told["bars"]["newest"] == whole["bars"]["newest"]
    status, out, _ = say("asked.1")
    assert status == 0
    assert "nothing can be replayed without the bundle" in out
    assert "promote at" in out

    shutil.rmtree(folder)  # and what is left when all of it is gone
    (store / "registry" / "5m" / "ledger" / "000001.json").write_text("{")
    told = explained(say, "asked.1")
    assert (told["prediction"], told["bars"]) == (whole["prediction"], whole["bars"])
    assert "damaged" in told["bundle"]["ledger"]["problem"]
    status, out, _ = say("asked.1")
    assert status == 0
    assert "cannot be read" in out


LONG = """
import sys
from defs import cli
cli.command = lambda _: lambda _: print("x" * 100_000) or 0
sys.exit(cli.main(["explain", "asked.1"]))
"""


def test_a_reader_that_has_seen_enough_costs_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        assert told.stdout.read(10) == "x" * 10
        told.stdout.close()  # as `| head -c 10` does
        assert told.stderr.read() == ""
        assert told.wait(60) == 128 + signal.SIGPIPE


def test_revised_bars_are_told_by_version_and_factor(say: Say, store: Path, bars: pl.DataFrame) -> None:
    time.sleep(0.01)
    newest = bars["timestamp"].max()
    revised = pl.when(pl.col("timestamp") == newest).then(pl.col("close") * 1.01).otherwise(pl.col("close"))
    days = bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition")
    lake = Lake(f"{store}/lake")
    lake.write("bars/5m", [bars.with_columns(revised.alias("close"), days)], days.unique().to_list(), TABLE)
    told = explained(say, "asked.0")
    assert (told["bars"]["version then"], told["bars"]["version now"]) == (0, 1)
    assert "momentum" in told["replay"]["factors that differ from the bars"]
    assert told["replay"]["same prediction"] is True


def test_without_kept_inputs_the_bars_give_them_and_the_hash_proves_it(
    say: Say, store: Path, bundles: list[Bundle]
) -> None:
    lake = Lake(f"{store}/lake")
    rows = lake.scan(table("5m")).collect().filter(pl.col("request").is_in(["asked", "sent"]))
    bare = rows.with_columns(signal=pl.lit("bare-") + pl.col("signal"), inputs=pl.lit(None, pl.List(pl.Float32)))
    lake.append(table("5m"), bare, LAYOUT)
    assert explained(say, "bare-asked.0")["factors"] == explained(say, "asked.0")["factors"]
    lost = explained(say, "bare-sent.0")
    assert lost["factors"] is None
    assert "their hash differs" in lost["replay"]["problem"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.0"], "there is no signal 'nothing.0' in the prediction log of 5m ("),
        ([], "explain takes one signal, not 0"),
        (["a.0", "b.0"], "explain takes one signal, not 2"),
        (["asked.0", "horizon=1h"], "no prediction was logged there"),
    ],
)
def test_a_signal_that_is_not_there_is_told_in_one_line(say: Say, words: list[str], told: str) -> None:
    status, out, err = say(*words)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_signal_of_pushed_bars_replays_from_the_journal_before_any_table_has_them(
    say: Say, store: Path, bars: pl.DataFrame
) -> None:
    newest = bars.filter(pl.col("timestamp") == pl.col("timestamp").max())
    days = bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition")
    kept = bars.with_columns(days).join(newest, on=["symbol", "timestamp"], how="anti")
    Lake(f"{store}/lake").write("bars/5m", [kept], days.unique().to_list(), TABLE)
    assert "has no bar of" in explained(say, "asked.0")["replay"]["problem"]
    journal = Journal(store, "5m")
    columns = {"symbol": newest["symbol"].to_list(), "timestamp": newest["timestamp"].dt.epoch("us").to_list()}
    columns |= {name: newest[name].to_list() for name in ("open", "high", "low", "close", "volume")}
    journal.append(newest["timestamp"][0] + timedelta(minutes=5), columns).result(10)
    journal.close()
    told = explained(say, "asked.0")
    assert told["replay"]["factors that differ from the bars"] == []
    assert told["replay"]["same prediction"] is True
    assert datetime.fromisoformat(told["bars"]["newest"][-1]["timestamp"]) == newest["timestamp"][0]
