"""What shapes the graph and what may change from run to run; and what the shipped files promise."""

from pathlib import Path

import pytest
import yaml

import conf
from conf.compose import ConfigError, check_structural, check_value_only, compose, horizons, split
from conf.keys import is_structural
from conf.schema import Calendar, Horizon

STRUCTURAL = [
    "horizon=5m,1h",
    "source=parquet",
    "features=[technical,alpha158]",
    "model=lightgbm",
    "interval=10m",
    "bars.from=1m",
    "partition=month",
    "source.path=bars/*.parquet",
    "universe.symbols=[A,B]",
    "calendar.name=XLON",
    "features.technical.x='mean(close, 3)'",
    "~features.technical.rsi_14",
    "++factors.cross_section.x=1",
    "drift.window_sessions=3",
    "store.root=here",
]
VALUE = [
    "model.num_leaves=63",
    "label.bars=12",
    "costs.spread_bps=1",
    "drift.rate=0.05",
    "vectors.columns=[a]",
]


def test_overrides_split_by_what_they_touch() -> None:
    mixed = [word for pair in zip(STRUCTURAL, VALUE * 3, strict=True) for word in pair]
    assert split(mixed) == (STRUCTURAL, VALUE * 3)


def test_a_run_may_change_values() -> None:
    check_value_only(VALUE)


@pytest.mark.parametrize("word", STRUCTURAL)
def test_a_run_may_not_reshape_the_graph(word: str) -> None:
    with pytest.raises(ConfigError, match="shapes the graph") as error:
        check_value_only([*VALUE, word])
    assert word in str(error.value)


def test_what_starts_the_graph_takes_no_values() -> None:
    check_structural(STRUCTURAL)
    with pytest.raises(ConfigError, match=r"command line: model\.num_leaves=63 lives for one run"):
        check_structural(["source=parquet", "model.num_leaves=63"])


def test_a_refused_word_does_not_repeat_a_secret() -> None:
    with pytest.raises(ConfigError) as error:
        check_value_only(["store.database_url=s3cret"])
    assert "s3cret" not in str(error.value)


def test_everything_the_graph_is_drawn_from_is_structural() -> None:
    groups = {"automation", "source", "universe", "calendar", "features", "factors", "store", "serving", "alerts"}
    shapes = {key for key in Horizon.model_fields if is_structural([key])}
    assert shapes == {"interval", "bars", "partition", "at"} | groups


def test_a_horizon_cannot_be_changed(folder: Path) -> None:
    horizon = compose([], folder)["5m"]
    with pytest.raises(ValueError, match="frozen"):
        horizon.model.num_leaves = 3


def test_no_default_is_written_twice() -> None:
    """The schema's only default is None, absence: everything else is said in YAML."""

    def models(model: type) -> set[type]:
        from conf.keys import _models

        inner = {m for field in model.model_fields.values() for m in _models(field.annotation)}
        return {model}.union(*(models(m) for m in inner))

    for model in models(Horizon):
        for name, field in model.model_fields.items():
            assert field.is_required() or field.default is None, f"{model.__name__}.{name}"


def test_more_days_do_not_make_another_source(folder: Path) -> None:
    words = ("source.sessions=9", "source.sessions=90", "source.seed=1")
    few, many, other = (compose([word], folder)["5m"].source for word in words)
    assert few.identity == many.identity != other.identity
    assert compose(["source=csv", "source.path=a.csv"], folder)["5m"].source.identity == "csv:a.csv"


def test_the_parameters_for_lightgbm_are_its_own(folder: Path) -> None:
    params = compose([], folder)["5m"].model.params()
    assert params["num_leaves"] == 31
    assert not {"valid_share", "embargo", "min_coverage", "max_depth"} & set(params)


@pytest.mark.slow
def test_every_choice_of_every_group_composes(folder: Path) -> None:
    for file in sorted(folder.glob("*/*.yaml")):
        group, choice = file.parent.name, file.stem
        word = f"{group}=[{choice}]" if group in ("features", "factors") else f"{group}={choice}"
        needed = {"parquet": ["source.path=x"], "csv": ["source.path=x"], "cron": ["automation.cron='0 * * * *'"]}
        assert compose([word, *needed.get(choice, [])], folder)


def test_the_shipped_folder_composes_as_it_is() -> None:
    shipped = Path(conf.__file__).parent
    assert list(compose(["horizon=glob(*)"], shipped)) == horizons(shipped)


def test_every_shipped_file_says_first_what_it_is_for() -> None:
    for file in Path(conf.__file__).parent.glob("**/*.yaml"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
        assert lines[0].startswith("# "), file


def test_shipped_horizons_differ_only_in_what_they_are() -> None:
    for file in (Path(conf.__file__).parent / "horizon").glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text())) == {"defaults", "interval", "bars", "partition"}, file


def test_every_exchange_is_a_calendar() -> None:
    import exchange_calendars

    for name in exchange_calendars.get_calendar_names():
        assert Calendar(name=name).name == name
    for name in ("xnys", "XXXX", "UTILS", ""):
        with pytest.raises(ValueError, match="must be a calendar"):
            Calendar(name=name)


def test_the_grid_takes_every_shipped_calendar(folder: Path) -> None:
    from datetime import UTC, date, datetime

    from quant.grid import CalendarSpec, Grid

    for name in ("XNYS", "24x7", "us_index_cfd"):
        spec = CalendarSpec(**compose([f"calendar={name}"], folder)["5m"].calendar.spec())
        (monday,) = Grid(spec, "1h").sessions(date(2024, 3, 18), date(2024, 3, 18))
    assert monday.open == datetime(2024, 3, 17, 22, tzinfo=UTC)  # Sunday 18:00 in New York
    assert monday.close == datetime(2024, 3, 18, 21, tzinfo=UTC)
