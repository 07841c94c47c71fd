"""Mistakes on the command line: each ends in one message that says which, where, and what was meant."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from conf.compose import ConfigError, compose
from conf.learning import Booster, Model

Mistake = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        # a misspelt key, here, at the top, or without its group
        ("model.num_leavs=63", "model.num_leavs (63) & model.num_leaves?"),
        ("num_leaves=63", "num_leaves (63) & model.num_leaves?"),
        ("modle.num_leaves=63", "modle & model?"),
        ("sorce=parquet", "sorce (parquet) & source?"),
        ("horizn=5m", "horizn (5m) & horizon?"),
        ("bars.form=1m", "bars.form (1m) & bars.from?"),
        ("~model.num_leavs", "~model.num_leavs & model.num_leaves?"),
        ("label.bar=6", "label.bar is 6 & bars?"),
        # an unknown choice
        ("source=parqet", "source is parqet & parquet? & csv, parquet, synthetic & conf/source/parqet.yaml"),
        ("features=[technical,volum]", "features is volum & volume?"),
        ("calendar=24/7", "calendar is 24/7 & 24x7?"),
        ("horizon=5", "horizon is 5 & 5m? & 1m, 5m, 15m, 1h, 1d"),
        ("horizon=5m,1hour", "horizon is 1hour"),
        ("horizon=", 'horizon is ""'),
        ("features=[]", "features=[] chooses nothing"),
        ("source.kind=parqet", "source.kind is parqet & parquet?"),
        ("drift.method=wassersten", "drift.method is wassersten & wasserstein?"),
        ("partition=month_", "partition is month_ & month? & day, month, year"),
        # a key of another source
        ("source.path=x.csv", "source.path (x.csv) & source synthetic & source=parquet and source=csv"),
        # a wrong type
        ("model.num_leaves=many", "model.num_leaves is many & whole number"),
        ("model.num_leaves=31.5", "model.num_leaves is 31.5 & whole number"),
        ("model.num_leaves=true", "model.num_leaves is true & whole number"),
        ("model.num_leaves=null", "model.num_leaves is null & whole number"),
        ("model.learning_rate='0.1'", "model.learning_rate is 0.1 & must be a number"),
        ("model.extra_trees=1", "model.extra_trees is 1 & true or false"),
        ("model.num_leaves.deep=3", "model.num_leaves is & whole number"),
        ("universe.symbols=AAPL", "universe.symbols is AAPL & a list"),
        ("universe.symbols=[AAPL,5]", "universe.symbols.1 is 5 & in quotes"),
        ("bars=1m", "bars is 1m & mapping"),
        ("label.bars=six", "label.bars is six & a number"),
        ("source.start=2020-13-01", "source.start is 2020-13-01 & a date such as 2024-01-31"),
        ("features.technical.x=3", "features.technical.x is 3 & an expression"),
        ("features.technical.x={exp: a}", "features.technical.x is & an expression"),
        # out of range
        ("label.bars=-6", "label.bars is -6 & at least 1"),
        ("drift.window_sessions=-5", "drift.window_sessions is -5 & at least 1"),
        ("model.num_leaves=1", "model.num_leaves is 1 & at least 2"),
        ("model.learning_rate=nan", "model.learning_rate is NaN & greater than 0"),
        ("model.feature_fraction=1.5", "model.feature_fraction is 1.5 & at most 1"),
        ("model.test_share=0.9", "model.test_share is 0.9 & valid_share, 0.15"),
        ("source.gap_rate=1", "source.gap_rate is 1 & less than 1"),
        ("serving.port=99999", "serving.port is 99999 & at most 65535"),
        ("serving.instances=[foo]", "serving.instances.0 is foo; it must be the address of a service"),
        (
            "serving.ui_url=tenor.example.com",
            "serving.ui_url is tenor.example.com; it must be the address of a service",
        ),
        ("store.root=''", 'store.root is "" & must not be empty'),
        (f"vectors.columns=[{','.join('abcdefghijklm' * 5)}]", "vectors.columns & at most 64, and holds 65"),
        ("vectors.index=hsnw", "vectors.index is hsnw & did you mean hnsw?"),
        ("novelty.neighbours=600", "novelty.neighbours is 600 & at most a quarter of novelty.sample, 2048"),
        ("novelty.abstain_above=1.2", "novelty.abstain_above is 1.2 & less than 1"),
        # intervals, calendars, zones
        ("interval=5min", "interval is 5min & 5m, 1h or 1d"),
        ("interval=0m", "interval is 0m"),
        ("interval=24h", "interval is 24h & 1d"),
        ("interval=5", "interval is 5; & 5m, 1h or 1d"),
        ("calendar.name=XNYSE", "calendar.name is XNYSE & XNYS?"),
        ("calendar.open=09:30", "calendar.open is 09:30 & a calendar named template"),
        # resampling
        ("bars.from=2m", "bars.from is 2m & source, 1m, 5m, 15m, 1h, 1d"),
        ("bars.from=1h", "bars.from is 1h & 1h bars do not make up 5m bars"),
        # grammar
        ("model.num_leaves=31,63", "model.num_leaves=31,63 is a sweep & Only horizon"),
        ("model.num_leaves", "model.num_leaves cannot be read & key=value"),
        ("source.path=(", "source.path=( cannot be read & quotes"),
        ("model=[a,b]", "model=[a,b] is not a choice"),
        ("+source=parquet", "+source=parquet & source=choice"),
        ("~model", "~model & model=choice"),
        ("~horizon", "~horizon"),
        ("horizon=[5m,1h]", "horizon=[5m,1h] & horizon=5m,15m"),
        ("model@other=lightgbm", "model@other=lightgbm"),
        ("=3", "=3 cannot be done"),
        ("bars=[1m]", 'bars is ["1m"]; it must be a mapping of keys to values'),
        ("hydra.run.dir=x", "hydra.run.dir=x"),
        ("name=mine", "name (mine) & file's name"),
        ("source.symbols=${nope}", "source.symbols & nope"),
    ],
)
def test_one_message_names_the_word_and_what_was_meant(mistake: Mistake, words: str, told: str) -> None:
    message = mistake(words)
    assert message.startswith("command line: ")
    for part in told.split(" & "):
        assert part in message


def test_a_message_about_a_key_that_was_typed_names_it_even_where_the_choice_was_typed_too(
    mistake: Mistake,
) -> None:
    message = mistake("source=csv", "source.path=x", "source.timezone=America/NewYork")
    assert message.startswith("command line: source.timezone is America/NewYork")
    assert "did you mean America/New_York?" in message


def test_a_file_source_without_a_path_asks_for_it(mistake: Mistake) -> None:
    message = mistake("source=parquet")
    assert message.startswith("conf/source/parquet.yaml:3: source.path is required")
    assert "source.path=..." in message


def test_a_mapped_column_must_be_one_of_ours(mistake: Mistake) -> None:
    message = mistake("source=csv", "source.path=x", "source.columns={clos: last}")
    assert "source.columns" in message
    assert "did you mean close?" in message
    assert "source.volume" in mistake("source=csv", "source.path=x", "source.columns={volume: v}")


def test_the_first_day_does_not_follow_the_last(mistake: Mistake) -> None:
    words = ["source=csv", "source.path=x", "source.start=2024-02-01", "source.end=2024-01-01"]
    assert "source.end is 2024-01-01; it lies before source.start, 2024-02-01" in mistake(*words)


def test_horizon_is_given_once(mistake: Mistake) -> None:
    assert "horizon=5m,15m" in mistake("horizon=5m", "horizon=1h")


def test_bars_that_do_not_divide_evenly_are_refused(mistake: Mistake) -> None:
    message = mistake("horizon=1h", "interval=50m", "bars.from=15m")
    assert "15m bars do not make up 50m bars" in message


@pytest.mark.parametrize("word", ["store.database_url=postgres://me:s3cret@db/x", "store.database_url='a,s3cret'"])
def test_a_secret_is_refused_and_not_repeated(mistake: Mistake, word: str) -> None:
    message = mistake(word)
    assert "TENOR_DATABASE_URL" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("word", ["store.database_url=a,s3cret", "store.database_url=(s3cret", "x.database_url"])
def test_a_secret_is_not_repeated_where_its_word_cannot_be_read(mistake: Mistake, word: str) -> None:
    assert "s3cret" not in mistake(word)


KEYS = sorted(Model.model_fields)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([key for key in KEYS if len(key) > 5]), st.data())
def test_a_key_with_one_letter_lost_is_recognised(folder: Path, key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    typo = key[:at] + key[at + 1 :]
    assume(typo not in KEYS and typo.isidentifier())
    meant = "lambda_l[12]" if key.startswith("lambda_l") else key
    with pytest.raises(ConfigError, match=rf"model\.{typo} \(1\) .* did you mean model\.{meant}\?"):
        compose([f"model.{typo}=1"], folder)


def test_every_parameter_of_the_model_is_one_that_lightgbm_knows() -> None:
    from lightgbm.basic import _ConfigAliases

    known = _ConfigAliases._get_all_param_aliases()
    names = set(known) | {alias for aliases in known.values() for alias in aliases}
    assert set(Booster.model_fields) <= names
