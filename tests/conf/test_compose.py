"""Composing: the shipped horizons, new ones, and what wins over what."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from conf.compose import asked, compose, horizons, to_yaml
from conf.schema import FileSource, Horizon, SyntheticSource

SHIPPED = ["1m", "5m", "15m", "1h", "1d"]


def plain(horizon: Horizon) -> dict:
    return yaml.safe_load(to_yaml(horizon))


def test_the_shipped_horizons_are_listed_shortest_bars_first(folder: Path) -> None:
    assert horizons(folder) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_horizon_reads_its_bars_from_the_made_up_market(folder: Path, name: str) -> None:
    horizon = compose([f"horizon={name}"], folder)[name]
    assert horizon.name == horizon.interval == name
    assert horizon.bars.from_ == "source"
    assert isinstance(horizon.source, SyntheticSource)


def test_the_sizes_of_the_made_up_market_suit_each_horizon(folder: Path) -> None:
    built = compose([f"horizon={','.join(SHIPPED)}"], folder)
    sizes = {name: (h.source.symbols, h.source.sessions, h.partition) for name, h in built.items()}
    assert sizes == {
        "1m": (10, 10, "day"),
        "5m": (20, 60, "day"),
        "15m": (20, 60, "day"),
        "1h": (20, 500, "month"),
        "1d": (20, 1000, "year"),
    }


def test_without_a_horizon_the_one_of_config_yaml_is_composed(folder: Path) -> None:
    assert list(compose([], folder)) == ["5m"]


def test_a_sweep_of_horizons_gives_each_the_same_overrides(folder: Path) -> None:
    built = compose(["horizon=1h,5m", "model.num_leaves=63", "label.bars=12"], folder)
    assert list(built) == ["5m", "1h"]
    assert {h.model.num_leaves for h in built.values()} == {63}
    assert {h.label.params["bars"] for h in built.values()} == {12}


def test_a_glob_selects_every_horizon(folder: Path) -> None:
    assert list(compose(["horizon=glob(*)"], folder)) == SHIPPED


def test_a_new_yaml_file_is_a_new_horizon(folder: Path) -> None:
    text = (folder / "horizon" / "15m.yaml").read_text()
    (folder / "horizon" / "30m.yaml").write_text(text.replace("15m", "30m"))
    assert horizons(folder) == ["1m", "5m", "15m", "30m", "1h", "1d"]
    assert compose(["horizon=30m"], folder)["30m"].minutes == 30


def test_a_file_that_changes_is_read_again(folder: Path) -> None:
    assert compose([], folder)["5m"].costs.spread_bps == 2.0
    file = folder / "costs" / "default.yaml"
    file.write_text(file.read_text().replace("spread_bps: 2.0", "spread_bps: 9.0"))
    assert compose([], folder)["5m"].costs.spread_bps == 9.0


def test_the_folder_that_tenor_conf_names_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "horizon" / "2h.yaml").write_text((folder / "horizon" / "1h.yaml").read_text().replace("1h", "2h"))
    monkeypatch.setenv("TENOR_CONF", str(folder))
    assert "2h" in horizons()
    assert compose(["horizon=2h"])["2h"].minutes == 120


def test_a_folder_whose_name_has_a_space_works(folder: Path) -> None:
    moved = folder.rename(folder.with_name("my conf"))
    assert list(compose([], moved)) == ["5m"]


def test_several_sets_are_kept_apart_by_name(folder: Path) -> None:
    features = compose(["features=[technical,volume]"], folder)["5m"].features
    assert {name: sorted(entries) for name, entries in features.items()} == {
        "technical": ["ma_{n}", "rsi_14"],
        "volume": ["volume_ratio"],
    }


def test_an_expression_can_be_added_on_the_command_line(folder: Path) -> None:
    word = "features.technical.gap='open / lag(close, 1) - 1'"
    assert compose([word], folder)["5m"].features["technical"]["gap"] == "open / lag(close, 1) - 1"


def test_a_key_that_the_yaml_leaves_out_can_be_set_without_a_plus(folder: Path) -> None:
    assert "lambda_l1" not in (folder / "model" / "lightgbm.yaml").read_text()
    for word in ("model.lambda_l1=0.5", "+model.lambda_l1=0.5", "++model.lambda_l1=0.5"):
        assert compose([word], folder)["5m"].model.lambda_l1 == 0.5


def test_another_source_takes_nothing_from_the_one_before(folder: Path) -> None:
    words = ["horizon=1m,1h,1d", "source=parquet", "source.path=bars/*.parquet", "source.volume=null"]
    for horizon in compose(words, folder).values():
        assert isinstance(horizon.source, FileSource)
        assert horizon.source.path == "bars/*.parquet"
        assert horizon.source.volume is None


def test_csv_and_parquet_differ_only_in_their_kind(folder: Path) -> None:
    parquet, csv = (compose([f"source={kind}", "source.path=x"], folder)["5m"].source for kind in ("parquet", "csv"))
    assert parquet.model_dump(exclude={"kind"}) == csv.model_dump(exclude={"kind"})


def test_a_path_with_odd_characters_is_quoted(folder: Path) -> None:
    words = ["source=csv", "source.path='/my data/a (1), b=[2].csv'"]
    assert compose(words, folder)["5m"].source.path == "/my data/a (1), b=[2].csv"


def test_the_finer_horizon_comes_along_and_first(folder: Path) -> None:
    built = compose(["horizon=15m", "bars.from=1m"], folder)
    assert {name: h.bars.from_ for name, h in built.items()} == {"1m": "source", "15m": "1m"}
    assert list(built) == ["1m", "15m"]
    assert asked(["horizon=15m", "bars.from=1m"], folder) == ["15m"]


def test_what_a_horizon_is_does_not_change_in_the_finer_one_it_needs(folder: Path) -> None:
    built = compose(["horizon=5m", "bars.from=1m", "interval=10m", "partition=month", "source.seed=3"], folder)
    assert (built["1m"].interval, built["1m"].partition, built["1m"].bars.from_) == ("1m", "day", "source")
    assert (built["5m"].interval, built["5m"].partition) == ("10m", "month")
    assert built["1m"].source.seed == built["5m"].source.seed == 3


def test_a_horizon_among_those_resampled_from_it_keeps_its_own_bars(folder: Path) -> None:
    built = compose(["horizon=1m,5m,15m", "bars.from=1m"], folder)
    assert {name: h.bars.from_ for name, h in built.items()} == {"1m": "source", "5m": "1m", "15m": "1m"}


def test_a_chain_of_resampling_written_in_files_is_followed(folder: Path) -> None:
    for name, finer in {"15m": "5m", "5m": "1m"}.items():
        file = folder / "horizon" / f"{name}.yaml"
        file.write_text(file.read_text().replace("{from: source}", f"{{from: {finer}}}"))
    assert list(compose(["horizon=15m"], folder)) == ["1m", "5m", "15m"]


def test_days_may_be_made_of_any_bars_of_a_session(folder: Path) -> None:
    assert list(compose(["horizon=1d", "bars.from=1h"], folder)) == ["1h", "1d"]


def test_the_store_lies_where_tenor_home_says_unless_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose([], folder)["5m"].store.root == ".tenor"
    monkeypatch.setenv("TENOR_HOME", "/data/tenor")
    assert compose([], folder)["5m"].store.root == "/data/tenor"
    assert compose(["store.root=here"], folder)["5m"].store.root == "here"


def test_the_resolved_yaml_says_the_same_config(folder: Path) -> None:
    for words in ([], ["calendar=us_index_cfd"], ["source=csv", "source.path=x", "source.start=2020-01-31"]):
        horizon = compose(words, folder)["5m"]
        assert Horizon.model_validate(plain(horizon)) == horizon


def test_the_resolved_yaml_never_holds_a_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENOR_DATABASE_URL", "postgresql://me:s3cret@db/tenor")
    assert "s3cret" not in to_yaml(compose([], folder)["5m"])


def test_hydra_itself_composes_the_same(folder: Path) -> None:
    with hydra.initialize_config_dir(str(folder)):
        theirs = hydra.compose("config", ["horizon=1h", "model.num_leaves=63", "features=[volume]"])
    ours = plain(compose(["horizon=1h", "model.num_leaves=63", "features=[volume]"], folder)["1h"])

    def present(value: object) -> object:
        return {k: present(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    assert ours == {"name": "1h", **present(OmegaConf.to_container(theirs, resolve=True))}


def test_threads_compose_at_once(folder: Path) -> None:
    words = [[f"horizon={name}", f"source.seed={seed}"] for seed, name in enumerate(SHIPPED * 2)]
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda w: compose(w, folder), words))
    assert [next(iter(b.values())).source.seed for b in built] == list(range(10))


def test_a_program_that_runs_under_hydra_is_left_alone(folder: Path) -> None:
    with hydra.initialize_config_dir(str(folder)):
        compose(["horizon=1d"], folder)
        assert hydra.compose("config").interval == "5m"


def test_each_horizon_of_several_is_composed(folder: Path) -> None:
    assert [*compose([f"horizon={','.join(SHIPPED)}"], folder)] == SHIPPED
