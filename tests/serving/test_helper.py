"""The process beside the service writes the log and proves bundles; its end costs what it held, and is told."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import psutil
import pytest

from conf.options import Log
from quant.bundle import Bundle, BundleError
from resources.registry import Registry
from serving import prediction_log
from serving.helper import FLUSH, Helper
from serving.log_rows import encode
from serving.log_writer import Tally
from serving.metrics import Metrics
from serving.prediction_log import BUSY, PredictionLog
from serving.predictor import Predictor
from serving.proofs import Prover
from tests.serving.test_prediction_log import eventually, logged, metric, predictor, record

OPTIONS = Log(predictions=True, inputs=True, flush_seconds=0.3, rows=100_000)


@pytest.fixture(scope="module")
def store(bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("helped")
    for bundle in bundles:
        Registry(root).write(bundle, {})
    Registry(root).promote("5m", bundles[0].id, "first")
    return root


@pytest.fixture(scope="module")
def helper(store: Path) -> Iterator[Helper]:
    made = Helper(store, inputs=True)
    yield made
    if psutil.pid_exists(made.pid):
        os.kill(made.pid, signal.SIGKILL)
    made.wait(5)


def tell(helper: Helper, word: bytes, *lines: bytes) -> Tally:
    if lines:
        helper.give(msgspec.msgpack.encode(lines))
    helper.tell(word)
    assert helper.log.poll(60)
    return msgspec.msgpack.decode(helper.log.recv_bytes(), type=Tally)


# -- the writer ----------------------------------------------------------------------------------------------------


def test_the_helper_appends_what_it_is_sent_and_scores_it_in_shadow(
    helper: Helper, store: Path, bundles: list[Bundle]
) -> None:
    sent = record(predictor(bundles[0]), 5, "sent")
    tally = tell(helper, FLUSH, encode(sent, bundles[1].id), encode(sent._replace(request_id="alone"), None))
    assert (tally.gone, tally.written, tally.problem) == (10, {"champion": 10, "shadow": 5}, None)
    rows = logged(store)
    oracle = lgb.Booster(model_str=bundles[1].text).predict(bundles[1].preprocess.apply(sent.X))
    assert rows.filter(role="shadow")["prediction"].to_numpy() == pytest.approx(oracle, rel=1e-9)
    assert rows.filter(request="alone")["prediction"].to_list() == sent.values.tolist()


def test_a_challenger_that_cannot_be_read_costs_its_shadow_alone(helper: Helper, bundles: list[Bundle]) -> None:
    tally = tell(helper, FLUSH, encode(record(predictor(bundles[0]), 3, "unread"), "0123456789abcdef"))
    assert (tally.gone, tally.shadow_failures, tally.written) == (3, 3, {"champion": 3})


def test_a_shadow_that_was_scored_elsewhere_is_a_row_like_any_other(
    helper: Helper, store: Path, bundles: list[Bundle]
) -> None:
    sent = record(replace(predictor(bundles[1]), role="shadow"), 2, "elsewhere")
    assert tell(helper, FLUSH, encode(sent, None)).written == {"shadow": 2}
    rows = logged(store).filter(request="elsewhere")
    assert (rows["role"].to_list(), rows["seconds"].null_count()) == (["shadow"] * 2, 2)


# -- proofs --------------------------------------------------------------------------------------------------------


def no_verify(*_: object) -> None:
    raise AssertionError("the service proved it itself")


def test_until_the_helper_is_warm_the_service_proves_itself(store: Path, bundles: list[Bundle]) -> None:
    starting = Helper(store, inputs=True)
    try:
        assert not starting.ready()
        proved = Prover(Registry(store), lambda: starting).proved("5m", bundles[1].id, None)
        assert proved.id == bundles[1].id
    finally:
        os.kill(starting.pid, signal.SIGKILL)
        starting.wait(5)


def test_a_bundle_is_proved_in_the_helper_and_shares_what_is_compiled(
    helper: Helper, store: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(helper.ready, 60)
    monkeypatch.setattr(Bundle, "verify", no_verify)
    serving = Registry(store).load("5m", bundles[0].id)
    proved = Prover(Registry(store), lambda: helper).proved("5m", bundles[1].id, serving)
    assert proved.id == bundles[1].id
    assert proved.recipe is serving.recipe
    X = np.ascontiguousarray(proved.golden.select(proved.factors).to_numpy())
    assert proved.predict_rows(X).tobytes() == bundles[1].predict_rows(X).tobytes()


def test_what_the_helper_refuses_is_refused_with_its_words(
    helper: Helper, store: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "verify", no_verify)
    prover = Prover(Registry(store), lambda: helper)
    with pytest.raises(BundleError, match="no bundle 'ffffffffffffffff'"):
        prover.proved("5m", "ffffffffffffffff", None)
    file = store / "registry" / "5m" / "bundles" / bundles[1].id / "model.txt"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    try:
        with pytest.raises(BundleError, match=r"model\.txt is damaged"):
            prover.proved("5m", bundles[1].id, None)
    finally:
        file.write_bytes(whole)


def test_a_bundle_that_changes_after_its_proof_is_refused(
    helper: Helper, store: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(store)
    told = {**bundles[1].manifest, "label": {"name": "another"}}
    monkeypatch.setattr(registry, "load", lambda *_: replace(bundles[1], manifest=told))
    with pytest.raises(BundleError, match="changed while it was being proved"):
        Prover(registry, lambda: helper).proved("5m", bundles[1].id, None)


# -- its end: the last test that uses the shared one ---------------------------------------------------------------


def test_a_stop_signal_does_not_end_it_but_the_end_of_the_service_does_and_writes_all(
    helper: Helper, store: Path, bundles: list[Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(helper.pid, number)
    by = predictor(bundles[0])
    for number in range(400):  # more than it has read when the service ends
        helper.give(msgspec.msgpack.encode([encode(record(by, 4, f"orphan{number}"), None)]))
    helper.leave()  # as a kill -9 of the service does
    until = time.monotonic() + 30
    while helper._process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert helper._process.returncode == 0
    assert logged(store)["request"].str.starts_with("orphan").sum() == 1600
    # A proof that it does not answer any more is made here.
    proved = Prover(Registry(store), lambda: helper).proved("5m", bundles[1].id, bundles[0])
    assert proved.id == bundles[1].id
    assert "is proved in the service itself" in caplog.text


def fill(log: PredictionLog, by: Predictor, name: str, rows: int = BUSY + 1000) -> int:
    for number in range(rows // 10):
        log.put(record(by, 10, f"{name}{number:04}"))
    return rows // 10 * 10


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_helper_that_dies_or_hangs_costs_what_it_held_is_told_and_another_takes_over(
    bundles: list[Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: signal.Signals,
) -> None:
    monkeypatch.setattr(prediction_log, "RETRY", 0.0)
    monkeypatch.setattr(prediction_log, "PATIENCE", 8)  # more than it takes to start
    metrics, by = Metrics(), predictor(bundles[0])
    log = PredictionLog(tmp_path, OPTIONS.model_copy(update={"flush_seconds": 3600.0}), metrics, lambda _: None)
    log.start()
    first = put = fill(log, by, "first")
    eventually(lambda: log.helper is not None and log._there == first)
    assert log.helper is not None
    killed = log.helper.pid
    assert metric(metrics, "tenor_helper_memory_bytes") > 2**20
    os.kill(killed, end)
    if end == signal.SIGSTOP:  # nobody can tell it from a busy one until it was asked to write
        put += fill(log, by, "hung", 40_000)
    eventually(lambda: metric(metrics, "tenor_log_dropped_total") >= first, 60)
    assert "answers are not in the prediction log" in caplog.text
    put += fill(log, by, "second")
    eventually(lambda: log.helper is not None and log.helper.pid != killed and not log._queue, 60)
    assert log.helper is not None
    last = log.helper.pid
    log.close()
    assert not psutil.pid_exists(last)
    written = logged(tmp_path)
    assert not written["request"].str.starts_with("first").any()
    assert written["request"].str.starts_with("second").sum() == BUSY + 1000
    assert written.height == metric(metrics, "tenor_log_rows_total", role="champion")
    assert written.height + metric(metrics, "tenor_log_dropped_total") == put
    assert metric(metrics, "tenor_log_waiting_rows") == 0


@pytest.mark.slow
def test_an_idle_helper_is_ended_and_the_service_writes_itself_again(
    bundles: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "IDLE", 0.5)
    metrics, by = Metrics(), predictor(bundles[0])
    log = PredictionLog(tmp_path, OPTIONS, metrics, lambda _: None)
    log.start()
    rows = fill(log, by, "busy")
    eventually(lambda: metric(metrics, "tenor_log_rows_total", role="champion") == rows)
    eventually(lambda: log.helper is None)
    log.put(record(by, 3, "quiet"))
    eventually(lambda: metric(metrics, "tenor_log_rows_total", role="champion") == rows + 3)
    assert log.helper is None
    log.close()
    assert logged(tmp_path).height == rows + 3
    assert metric(metrics, "tenor_log_dropped_total") == 0
