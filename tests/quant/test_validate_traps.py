"""Real files with real troubles: each is named and counted, and nothing good is lost."""

from pathlib import Path

import numpy as np
import polars as pl

from quant.grid import CalendarSpec, Grid
from quant.validate import Checked, validate

MINUTES = Grid(CalendarSpec("XNYS"), "1m")
DAYS = Grid(CalendarSpec("XNYS"), "1d")
FOREX = Grid(CalendarSpec("template", "America/New_York", "17:00", "17:00"), "1h")


def check(folder: Path, name: str, grid: Grid) -> tuple[pl.DataFrame, Checked]:
    frame = pl.read_parquet(folder / f"{name}.parquet").with_columns(source=pl.lit(name))
    checked = validate(frame, grid)
    assert checked.good.height + checked.rejected.height == frame.height
    return frame, checked


def test_unsorted_crypto_with_repeats_keeps_every_bar_once(market_data: Path) -> None:
    grid = Grid(CalendarSpec("24/7"), "30m")
    frame, checked = check(market_data, "traps/crypto_30m_unsorted_raw", grid)
    assert checked.counts == {"duplicate": 63}
    assert checked.notes == ("unsorted: time runs backwards at 9 places; bars were sorted",)
    assert checked.good.height == frame.select("symbol", "timestamp").unique().height == 175_516


def test_two_price_scales_under_one_key_keep_the_prices_that_were_traded(market_data: Path) -> None:
    eurex = Grid(CalendarSpec("template", "Europe/Berlin", "02:15", "22:05"), "1m")
    frame, checked = check(market_data, "traps/fesx_1m_duplicate_keys_two_price_scales", eurex)
    assert checked.counts == {"duplicate_key": 2528}
    assert checked.good.height == frame.select("symbol", "timestamp").unique().height == 3876
    # The future trades in whole points: the back-adjusted scale does not.
    assert (checked.good["close"] % 1 == 0).all()
    said = "\n".join(checked.notes)
    assert "FESX.EUREX_202406: 2528 bars came in two price scales" in said
    assert "0.991719" in said


def test_a_clock_four_hours_off_is_named_with_its_dates(market_data: Path) -> None:
    _, checked = check(market_data, "traps/fx_1h_timezone_break_2009", FOREX)
    (note,) = checked.notes
    assert note.startswith("EURUSD.FXCM: 60 of 1791 bars from 2009-06-07 to 2009-09-18 are off the grid")
    assert "moved by +4 h" in note
    # The other series of the file keeps the right time, and the note does not name it.
    assert not any("OANDA" in line for line in checked.notes)
    assert checked.counts == {"off_grid": 65}


def test_a_good_forex_file_raises_no_alarm_about_its_clock(market_data: Path) -> None:
    _, checked = check(market_data, "dev_fx_1h_lean_oanda", FOREX)
    assert checked.notes == ()
    assert checked.counts == {"off_grid": 57}


def test_a_shift_put_into_good_bars_is_found_again() -> None:
    slots = FOREX.slots(np.datetime64("2014-01-06").item(), np.datetime64("2014-06-27").item())
    wrong = (slots >= np.datetime64("2014-03-02")) & (slots < np.datetime64("2014-05-04"))
    moved = slots - wrong * np.timedelta64(2, "h")
    stamps = pl.Series("timestamp", moved).dt.replace_time_zone("UTC")
    prices = {name: pl.lit(1.3) for name in ("open", "high", "low", "close")}
    frame = stamps.to_frame().with_columns(symbol=pl.lit("EURUSD"), source=pl.lit("test"), **prices)
    checked = validate(frame, FOREX)
    (note,) = checked.notes
    assert "from 2014-03-02 to 2014-05-02" in note
    assert "moved by +2 h" in note


def test_daily_stocks_lose_only_rows_that_are_no_bars(market_data: Path) -> None:
    # Counted in the file: 7 rows with a missing price and 7 whose high or low is not the extreme.
    frame, checked = check(market_data, "dev_eq_us_1d_sp500", DAYS)
    assert frame.height == 309_312
    assert checked.counts == {"null_price": 7, "ohlc_order": 7}
    prices = frame.select("open", "high", "low", "close")
    assert prices.filter(pl.any_horizontal(pl.all().is_null())).height == 7
    assert checked.notes == ()


def test_extended_hours_are_kept_apart_and_counted(market_data: Path) -> None:
    frame, checked = check(market_data, "dev_eq_us_1m_2024", MINUTES)
    local = frame["timestamp"].dt.convert_time_zone("America/New_York")
    minute = local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute()
    half = local.dt.date().cast(pl.String) == "2024-07-03"
    close = pl.select(pl.when(half).then(780).otherwise(960)).to_series()
    regular = ((minute >= 570) & (minute < close)).sum()
    assert checked.good.height == regular
    assert checked.counts == {"off_grid": frame.height - regular}
