"""What abstaining leaves, against sums by hand: rows kept, their error, and a book without the others."""

import numpy as np
import polars as pl
import pytest

from quant.abstaining import THRESHOLDS, abstained, coverage
from quant.classes import log_loss
from quant.portfolio import Terms, book, weigh
from quant.score import section_ic

TERMS = Terms(holding=1, cost_bps=1.0)


def frame(seed: int = 0, sections: int = 60, symbols: int = 8) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows = sections * symbols
    novelty = random.random(rows)
    prediction = random.normal(size=rows)
    noise = random.normal(size=rows) * np.where(novelty > 0.8, 5, 1)  # unfamiliar rows are predicted badly
    times = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 1) + pl.duration(days=sections - 1), "1d")
    return pl.DataFrame(
        {
            "time": pl.select(times)
            .to_series()
            .dt.replace_time_zone("UTC")
            .gather(np.repeat(np.arange(sections), symbols)),
            "symbol": [f"S{n % symbols}" for n in range(rows)],
            "prediction": prediction,
            "outcome": prediction + noise,
            "novelty": novelty.astype(np.float32),
            "crosses": False,
            "closes": False,
        }
    )


def test_each_threshold_s_figures_are_those_of_its_own_rows() -> None:
    rows = frame()
    for told in coverage(rows, TERMS, "regression"):
        kept = rows.filter(pl.col("novelty") <= np.float32(told["above"]))
        left = rows.filter(pl.col("novelty") > np.float32(told["above"]))
        assert told["rows"] == kept.height
        assert told["coverage"] == kept.height / rows.height
        apart = (kept["prediction"] - kept["outcome"]).to_numpy()
        assert told["error"] == pytest.approx(np.sqrt((apart**2).mean()))
        if left.height:
            assert told["error_left"] == pytest.approx(
                np.sqrt(((left["prediction"] - left["outcome"]).to_numpy() ** 2).mean())
            )
        assert told["rank_ic"] == pytest.approx(section_ic(kept, "spearman")["ic"].mean())


def test_error_rises_with_coverage_where_unfamiliar_rows_are_predicted_badly() -> None:
    told = coverage(frame(), TERMS, "regression", [1.0, 0.8])
    assert [row["above"] for row in told] == [1.0, 0.8]
    assert told[0]["error"] > 1.5 * told[1]["error"]
    assert told[0]["error_left"] is None
    assert told[1]["rank_ic"] > told[0]["rank_ic"]


def test_rows_left_out_have_no_weight_and_the_others_share_it() -> None:
    rows = frame()
    out = abstained(pl.col("novelty"), 0.7)
    traded = rows.with_columns(prediction=pl.when(~out).then("prediction").otherwise(np.nan))
    weight = weigh(traded, "prediction")
    assert (weight.filter(rows.select(out).to_series()) == 0).all()
    sizes = rows.with_columns(size=weight.abs()).group_by("time").agg(pl.col("size").sum())["size"]
    assert sizes.to_numpy() == pytest.approx(np.ones(60))
    [told] = coverage(rows, TERMS, "regression", [0.7])
    assert told["sharpe"] == pytest.approx(book(traded, "prediction", TERMS).summary()["sharpe"])


def test_a_class_has_log_loss_and_an_order_no_error() -> None:
    rows = frame().with_columns(prediction=1 / (1 + (-pl.col("prediction")).exp()))
    [told] = coverage(rows, TERMS, "binary", [0.5])
    kept = rows.filter(pl.col("novelty") <= 0.5)
    assert told["error"] == pytest.approx(log_loss(kept["prediction"].to_numpy(), (kept["outcome"] > 0).to_numpy()))
    [told] = coverage(frame(), TERMS, "ranking", [0.5])
    assert told["error"] is None
    assert told["rank_ic"] is not None


def test_a_row_whose_novelty_is_unknown_is_kept() -> None:
    rows = frame().with_columns(novelty=pl.lit(None, pl.Float32))
    assert [row["coverage"] for row in coverage(rows, TERMS, "regression")] == [1.0] * len(THRESHOLDS)


def test_abstaining_from_everything_leaves_nothing_to_score() -> None:
    rows = frame().with_columns(novelty=pl.lit(1.0, pl.Float32))
    [told] = coverage(rows, TERMS, "regression", [0.5])
    assert (told["rows"], told["error"], told["rank_ic"], told["sharpe"]) == (0, None, None, None)
