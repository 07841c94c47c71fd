"""The journal of pushed bars: what was acknowledged is read again, whatever ended the process."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.arrivals import apart, settled
from resources.arrivals import Arrivals, Journal
from resources.journal import JournalError

AT = datetime(2026, 1, 5, 15, 0, 0, 250, tzinfo=UTC)
STAMP = 1_767_625_200_000_000


def columns(close: float, *symbols: str) -> dict[str, list]:
    return {
        "symbol": list(symbols),
        "timestamp": [STAMP] * len(symbols),
        **{name: [close] * len(symbols) for name in ("open", "high", "low", "close")},
        "volume": [None] * len(symbols),
    }


def test_rows_come_back_in_order_of_arrival_with_every_bit(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "5m")
    values = [0.1 + 0.2, 1e-308, 12345678.000000002]
    for number, value in enumerate(values):
        journal.append(AT + timedelta(seconds=number), columns(value, "AAA", "BBB")).result(10)
    journal.close()
    found = Arrivals(tmp_path).read("5m")
    assert found["close"].to_list() == [value for value in values for _ in range(2)]
    assert found["symbol"].to_list() == ["AAA", "BBB"] * 3
    assert found["known_at"].to_list() == [AT + timedelta(seconds=number) for number in range(3) for _ in range(2)]
    assert found["volume"].is_null().all()


def test_an_append_after_midnight_begins_the_file_of_its_day_and_days_can_be_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "5m")
    journal.append(AT, columns(1.0, "AAA")).result(10)
    journal.append(AT + timedelta(days=1), columns(2.0, "AAA")).result(10)
    journal.close()
    names = sorted(file.name[:10] for file in (tmp_path / "arrivals" / "5m").iterdir())
    assert names == ["2026-01-05", "2026-01-06"]
    assert Arrivals(tmp_path).read("5m", date(2026, 1, 6))["close"].to_list() == [2.0]


def test_two_instances_write_files_of_their_own(tmp_path: Path) -> None:
    one, two = Journal(tmp_path, "5m"), Journal(tmp_path, "5m")
    two.append(AT + timedelta(seconds=1), columns(2.0, "AAA")).result(10)
    one.append(AT, columns(1.0, "AAA")).result(10)
    one.close()
    two.close()
    assert len(list((tmp_path / "arrivals" / "5m").iterdir())) == 2
    assert Arrivals(tmp_path).read("5m")["close"].to_list() == [1.0, 2.0]


def test_concurrent_appends_share_their_syncs_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, real = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(file), real(file)))
    journal = Journal(tmp_path, "5m")
    gate = threading.Barrier(8)

    def push(number: int) -> None:
        gate.wait(10)
        for turn in range(25):
            journal.append(AT, columns(float(number * 25 + turn), "AAA")).result(10)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    journal.close()
    assert sorted(Arrivals(tmp_path).read("5m")["close"]) == [float(number) for number in range(200)]
    assert len(synced) < 200


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, "5m")
    for value in (1.0, 2.0):
        journal.append(AT, columns(value, "AAA")).result(10)
    journal.close()
    [file] = (tmp_path / "arrivals" / "5m").iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    assert Arrivals(tmp_path).read("5m")["close"].to_list() == [1.0]


def test_a_line_damaged_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "5m")
    for value in (1.0, 2.0, 3.0):
        journal.append(AT, columns(value, "AAA")).result(10)
    journal.close()
    [file] = (tmp_path / "arrivals" / "5m").iterdir()
    file.write_bytes(file.read_bytes().replace(b"2.0", b"2.5", 1))
    with pytest.raises(JournalError, match=rf"{file.name}, line 2 is damaged"):
        Arrivals(tmp_path).read("5m")


def test_a_disk_that_refuses_fails_the_append_and_a_later_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, "5m")
    journal.append(AT, columns(1.0, "AAA")).result(10)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(JournalError, match="No space left"):
            journal.append(AT, columns(2.0, "AAA")).result(10)
    journal.append(AT, columns(3.0, "AAA")).result(10)
    journal.close()
    assert Arrivals(tmp_path).read("5m")["close"].to_list()[-1] == 3.0


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from resources.arrivals import Journal
journal = Journal(Path(sys.argv[1]), "5m")
number = 0
while True:
    value = float(number)
    row = {"symbol": ["AAA"], "timestamp": [number], **dict.fromkeys(("open", "high", "low", "close"), [value])}
    journal.append(datetime.now(UTC), row).result()
    print(number, flush=True)
    number += 1
"""


def test_no_acknowledged_row_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout]
    found = Arrivals(tmp_path).read("5m")["close"].to_list()
    assert found[: len(told)] == [float(number) for number in told]
    assert len(told) <= len(found) <= len(told) + 1  # the last one may be written and not acknowledged


Came = list[tuple[str, float | None, bool]]


ROWS = st.tuples(st.sampled_from("AB"), st.sampled_from([1.0, 2.0, None]), st.booleans())


@given(st.lists(ROWS, min_size=1, max_size=30))
def test_settled_arrivals_are_the_last_values_taken_known_since_they_last_changed(came: Came) -> None:
    frame = pl.DataFrame(
        {
            "symbol": [symbol for symbol, *_ in came],
            "timestamp": [AT] * len(came),
            "close": pl.Series([value for _, value, _ in came], dtype=pl.Float64),
            "known_at": [AT + timedelta(seconds=number) for number in range(len(came))],
            "jump": [jump for *_, jump in came],
        }
    )
    assert set(apart(frame)["symbol"]) == {symbol for symbol, jump in {s: j for s, _, j in came}.items() if jump}
    expected: dict[str, tuple[float | None, datetime]] = {}
    for number, (symbol, value, jump) in enumerate(came):
        if jump:
            continue
        if symbol not in expected or expected[symbol][0] != value:
            expected[symbol] = (value, AT + timedelta(seconds=number))
    found = {row["symbol"]: (row["close"], row["known_at"]) for row in settled(frame).iter_rows(named=True)}
    assert found == expected
