"""Every answer is kept off the request path, the challenger's beside the champion's; the log never costs an answer."""

import hashlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from conf.options import Beside, Log
from quant.bundle import Bundle
from quant.forest_choice import fixed
from resources.clock import SystemClock
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Entry, Registry
from serving.challengers import Challengers, differs
from serving.evaluators import Evaluators
from serving.log_rows import frame, line, table
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.predictor import Predictor
from serving.proofs import Prover
from serving.record import Record

Serve = Callable[..., AbstractContextManager[str]]

AT = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
OPTIONS = Log(predictions=True, inputs=True, flush_seconds=0.05, rows=1000)
SHADOW = Beside(shadow=True, canary=0.0)


def predictor(bundle: Bundle, role: Any = "champion") -> Predictor:
    entry = Entry(1, "5m", bundle.id, "promote", "first", AT)
    return Predictor(bundle, entry, AT, AT, fixed("native"), role)


def record(by: Predictor, rows: int = 2, request: str = "r", **changed: Any) -> Record:
    X = np.ascontiguousarray(by.bundle.golden.select(by.bundle.factors).to_numpy()[:rows])
    keys = list(by.bundle.golden.select("symbol", "timestamp").head(rows).iter_rows())
    made = Record(request, AT, "/predict", "5m", by, X, by.bundle.predict_rows(X), keys, 0.002)
    return made._replace(**changed)


def logged(root: Path) -> pl.DataFrame:
    return Lake(f"{root}/lake").scan(table("5m")).sort("at", "signal", "role").collect()


def metric(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


# -- a row -----------------------------------------------------------------------------------------------------------


def test_a_row_has_all_that_takes_it_back_to_its_inputs(bundles: list[Bundle]) -> None:
    by = predictor(bundles[0])
    first, second = record(by, 2, "a"), record(by, 1, "b", keys=None, seconds=0.5)
    X = np.concatenate([first.X, second.X])
    X[1, 2] = np.nan
    second = second._replace(X=X[2:])
    lines = [line(first._replace(X=X[:2])), line(second)]
    made = frame(lines, keep=True)
    assert made["signal"].to_list() == ["a.0", "a.1", "b.0"]
    assert made["request"].to_list() == ["a", "a", "b"]
    assert made["seconds"].to_list() == [0.002, 0.002, 0.5]
    assert made["symbol"].to_list() == [*(symbol for symbol, _ in first.keys or ()), None]
    assert made["partition"].unique().to_list() == ["2026-03-02"]
    assert made["coverage"].to_list() == pytest.approx([1.0, 2 / 3, 1.0])
    assert np.array_equal(np.array(made["inputs"].to_list(), np.float32), X, equal_nan=True)
    assert made["inputs_hash"].to_list() == [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in X]
    assert frame(lines, keep=False)["inputs"].null_count() == 3


def test_a_bars_time_is_kept_as_utc_whatever_zone_the_client_wrote(bundles: list[Bundle]) -> None:
    abroad = datetime(2026, 3, 2, 10, 30, tzinfo=timezone(timedelta(hours=-5)))
    one = record(predictor(bundles[0]), 1, keys=[("AAA", abroad)])
    assert frame([line(one)], keep=True)["timestamp"].to_list() == [AT]


# -- the writer --------------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """A log over a store of its own, its metrics, and who stands in shadow."""

    root: Path
    metrics: Metrics
    log: PredictionLog
    shadow: Predictor | None = None


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    metrics = Metrics()
    log = PredictionLog(tmp_path, OPTIONS, metrics, lambda _: made.shadow)
    made = Kept(tmp_path, metrics, log)
    return made


def test_what_waits_is_written_at_shutdown(kept: Kept, bundles: list[Bundle]) -> None:
    by = predictor(bundles[0])
    kept.log.start()
    for number in range(100):
        kept.log.put(record(by, 3, f"{number:03}"))
    kept.log.close()
    rows = logged(kept.root)
    assert rows["signal"].to_list() == [f"{number:03}.{row}" for number in range(100) for row in range(3)]
    assert rows["prediction"].to_list() == record(by, 3).values.tolist() * 100
    assert metric(kept.metrics, "tenor_log_rows_total", role="champion") == 300
    assert metric(kept.metrics, "tenor_log_waiting_rows") == 0


def test_a_full_queue_drops_and_counts_and_never_waits(kept: Kept, bundles: list[Bundle]) -> None:
    one = record(predictor(bundles[0]), 3)
    for _ in range(400):  # nobody takes any out: the writer has not started
        kept.log.put(one)
    assert metric(kept.metrics, "tenor_log_dropped_total") == 1200 - 999
    assert metric(kept.metrics, "tenor_log_waiting_rows") == 999
    kept.log.start()
    kept.log.close()
    assert logged(kept.root).height == 999


def test_a_table_that_cannot_be_written_keeps_its_rows_for_the_next_time(
    kept: Kept, bundles: list[Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    folder = kept.root / "lake"
    folder.write_text("a file where the folder should be")
    kept.log.start()
    kept.log.put(record(predictor(bundles[0]), 2))
    eventually(lambda: metric(kept.metrics, "tenor_log_failures_total") >= 2)
    assert "cannot be written" in (kept.log.problem or "")
    folder.unlink()
    eventually(lambda: metric(kept.metrics, "tenor_log_waiting_rows") == 0)
    kept.log.close()
    assert logged(kept.root)["signal"].to_list() == ["r.0", "r.1"]
    assert kept.log.problem is None
    assert "2 answers" not in caplog.text


def test_what_can_never_be_written_is_told_at_shutdown(
    kept: Kept, bundles: list[Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    (kept.root / "lake").write_text("a file where the folder should be")
    kept.log.start()
    kept.log.put(record(predictor(bundles[0]), 2))
    kept.log.close()
    assert "2 answers are not in the prediction log" in caplog.text


def test_a_record_that_no_table_can_hold_costs_itself_alone(kept: Kept, bundles: list[Bundle]) -> None:
    by = predictor(bundles[0])
    kept.log.start()
    kept.log.put(record(by, 1, "good"))
    kept.log.put(record(by, 1, "bad", keys=[("lone \ud800 surrogate", None)]))
    for end, hours in ((datetime.max, -20), (datetime.min, 14)):
        kept.log.put(record(by, 1, "far", keys=[("AAA", end.replace(tzinfo=timezone(timedelta(hours=hours))))]))
    kept.log.put(record(by, 1, "fine"))
    kept.log.close()
    assert logged(kept.root)["signal"].to_list() == ["fine.0", "good.0"]
    assert metric(kept.metrics, "tenor_log_dropped_total") == 3
    assert metric(kept.metrics, "tenor_log_waiting_rows") == 0


def test_writers_of_many_instances_lose_nothing_of_one_table(bundles: list[Bundle], tmp_path: Path) -> None:
    by = predictor(bundles[0])
    each, batches = 4, 12

    def write(writer: int) -> None:
        lake = Lake(f"{tmp_path}/lake")
        for number in range(batches):
            one = record(by, 2, f"{writer}-{number:02}")
            lake.append(table("5m"), frame([line(one)], keep=True), {"format": "predictions-2"})

    with ThreadPoolExecutor(each) as pool:
        list(pool.map(write, range(each)))
    rows, lake = logged(tmp_path), Lake(f"{tmp_path}/lake")
    expected = {f"{writer}-{number:02}.{row}" for writer in range(each) for number in range(batches) for row in (0, 1)}
    assert sorted(rows["signal"]) == sorted(expected)
    assert lake.compact(table("5m"), "2026-03-02") == 0  # the day that still grows
    assert lake.compact(table("5m"), "2026-03-03") == each * batches
    assert logged(tmp_path).equals(rows)
    assert lake.compact(table("5m"), "2026-03-03") == 0


# -- shadow and canary ------------------------------------------------------------------------------------------------


def test_the_challenger_scores_the_same_rows_for_the_log_alone(kept: Kept, bundles: list[Bundle]) -> None:
    kept.shadow = predictor(bundles[1], "canary")
    champion = predictor(bundles[0])
    kept.shadow = replace(kept.shadow, entry=champion.entry)
    kept.log.start()
    kept.log.put(record(champion, 5, "asked"))
    kept.log.put(record(kept.shadow, 5, "canary"))  # what the canary answered itself needs no shadow
    kept.log.close()
    rows = logged(kept.root)
    X = record(champion, 5).X
    by_role = {role: rows.filter(role=role) for role in ("champion", "shadow", "canary")}
    oracle = lgb.Booster(model_str=bundles[1].text).predict(bundles[1].preprocess.apply(X))
    assert by_role["shadow"]["prediction"].to_numpy() == pytest.approx(oracle, rel=1e-9)
    assert by_role["shadow"]["bundle"].unique().to_list() == [bundles[1].id]
    assert by_role["shadow"]["seconds"].null_count() == 5
    assert by_role["shadow"]["signal"].equals(by_role["champion"]["signal"])
    assert by_role["shadow"]["inputs_hash"].equals(by_role["champion"]["inputs_hash"])
    assert by_role["canary"].height == 5


def test_the_challenger_of_another_champion_scores_nothing(kept: Kept, bundles: list[Bundle]) -> None:
    kept.shadow = predictor(bundles[1], "canary")  # stands beside an entry of its own
    kept.log.start()
    kept.log.put(record(predictor(bundles[0]), 5))
    kept.log.close()
    assert logged(kept.root)["role"].unique().to_list() == ["champion"]


def test_a_challenger_that_fails_is_counted_and_the_answer_is_kept(
    kept: Kept, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = predictor(bundles[0])
    one = record(champion, 5)
    kept.shadow = replace(predictor(bundles[1], "canary"), entry=champion.entry)
    monkeypatch.setattr(Bundle, "predict_rows", lambda *_: 1 / 0)
    kept.log.start()
    kept.log.put(one)
    kept.log.close()
    assert logged(kept.root)["role"].to_list() == ["champion"] * 5
    assert metric(kept.metrics, "tenor_shadow_failures_total") == 5


def test_a_challenger_with_other_inputs_is_told_what_differs(
    bundles: list[Bundle], bars: pl.DataFrame, train_bundle: Callable[..., Bundle], registry: Registry,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    champion = bundles[0].recipe
    assert differs(champion, bundles[1].recipe) is None
    other = train_bundle(bars, {"momentum": "momentum", "trend_rank": "trend"}, ())
    assert "(factors)" in (differs(champion, other.recipe) or "")
    turned = replace(champion, factors=dict(reversed(champion.factors.items())))
    assert "(order of factors)" in (differs(champion, turned) or "")
    assert "(symbols)" in (differs(champion, replace(champion, symbols=("AAA",))) or "")
    # It stands beside nobody, and is not read from the disk again and again to find that out.
    registry.write(other, {})
    loads: list[str] = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda horizon, id: (loads.append(id), load(horizon, id))[1])
    beside = Beside(shadow=True, canary=0.9)
    prover = Prover(registry, lambda: None)
    challengers = Challengers(registry, SystemClock(), Evaluators(tmp_path), beside, prover, timedelta(0))
    for _ in range(3):
        challengers.look("5m", predictor(bundles[0]))
    known = challengers.known("5m")
    assert known is not None
    assert (known.id, set(loads), len(loads)) == (other.id, {other.id}, 2)  # its recipe, then its proof
    assert "it reads other inputs than the champion (factors)" in (known.problem or "")
    assert [challengers.canary("5m") for _ in range(20)] == [None] * 20
    assert challengers.in_shadow("5m") is None


def test_a_declared_share_of_requests_is_answered_by_the_canary_and_the_rest_is_shadowed(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    champion, challenger = bundles
    golden = champion.golden.drop("prediction").head(3)
    X = np.ascontiguousarray(golden.select(champion.factors).to_numpy())
    expected = {bundle.id: bundle.predict_rows(X).tolist() for bundle in bundles}
    asked = 200
    beside = Beside(shadow=True, canary=0.3)
    with serve(tmp_path, follow_seconds=0.05, beside=beside, log=OPTIONS) as url, Inference(url) as inference:
        inference.wait_ready(30)
        eventually(lambda: inference.models()[0]["challenger"] is not None)
        assert inference.models()[0]["challenger"] == {
            "bundle": challenger.id, "status": "canary", "share": 0.3, "problem": None,
        }  # fmt: skip
        answers = [inference.predict_rows("5m", golden) for _ in range(asked)]
        assert inference.models()[0]["bundle"] == champion.id
    for answer in answers:
        assert answer.frame["prediction"].to_list() == expected[answer.bundle]
    canaried = sum(answer.bundle == challenger.id for answer in answers)
    spread = math.sqrt(asked * 0.3 * 0.7)
    assert abs(canaried - asked * 0.3) < 5 * spread  # fails once in two million runs
    counts = dict(logged(tmp_path).group_by("role").len().iter_rows())
    told = (asked - canaried) * 3
    assert counts == {"champion": told, "shadow": told, "canary": canaried * 3}


def test_a_broken_challenger_is_refused_and_the_champion_answers_everything(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    (registry.path("5m", bundles[1].id) / "model.txt").write_text("no model")
    with (
        serve(tmp_path, follow_seconds=0.05, beside=Beside(shadow=True, canary=0.9)) as url,
        Inference(url) as inference,
    ):
        inference.wait_ready(30)
        eventually(lambda: inference.models()[0]["challenger"] is not None)
        told = inference.models()[0]["challenger"]
        assert (told["status"], told["share"]) == ("refused", 0.0)
        assert "model.txt is damaged" in told["problem"]
        golden = bundles[0].golden.drop("prediction")
        assert {inference.predict_rows("5m", golden).bundle for _ in range(20)} == {bundles[0].id}
        assert inference.health()["status"] == "serving"


def test_a_promoted_challenger_is_the_champion_and_no_challenger_any_more(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    with serve(tmp_path, follow_seconds=0.05) as url, Inference(url) as inference:
        inference.wait_ready(30)
        eventually(lambda: inference.models()[0]["challenger"] is not None)
        assert inference.models()[0]["challenger"]["status"] == "shadow"
        registry.promote("5m", bundles[1].id, "better")
        assert inference.load("5m")["bundle"] == bundles[1].id
        assert inference.models()[0]["challenger"] is None


def test_every_answer_given_until_the_last_moment_is_in_the_log_after_the_stop(
    registry: Registry, tmp_path: Path, serve: Serve
) -> None:
    answered: list[str] = []

    def ask(url: str, body: Any) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while True:
                try:
                    reply = client.post("/predict", json=body)
                except httpx.TransportError:
                    return  # the service has stopped
                if reply.status_code == 200:
                    answered.extend(one["signal"] for one in reply.json()["predictions"])

    slow = OPTIONS.model_copy(update={"flush_seconds": 3600.0, "rows": 100_000})
    with serve(tmp_path, log=slow) as url:
        with Inference(url) as inference:
            inference.wait_ready(30)
        body = httpx.get(f"{url}/models/5m/example").json()
        askers = [threading.Thread(target=ask, args=(url, body)) for _ in range(3)]
        for asker in askers:
            asker.start()
        time.sleep(0.5)
    for asker in askers:
        asker.join()
    assert len(answered) > 10
    assert set(answered) <= set(logged(tmp_path).filter(role="champion")["signal"])
