"""All live horizons at once: what the models that serve need of bars and states, read from the disk and warmed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from conf.options import Live
from quant.grid import Grid
from quant.panel import Instants
from quant.recipe import Recipe
from serving.live_feed import members_of
from serving.live_horizon import LiveHorizon, Spec, opened, others_of, spec_of
from serving.live_load import Store
from serving.live_state import LiveState
from serving.predictor import Predictor


@dataclass
class World:
    """Horizons by name."""

    horizons: dict[str, LiveHorizon]
    _keys: dict[str, str] = field(default_factory=dict)  # of bundles' recipes

    def covers(self, specs: Mapping[str, Spec]) -> bool:
        """Whether it holds all of this."""
        return all(name in self.horizons and self.horizons[name].spec.covers(spec) for name, spec in specs.items())

    def has(self, predictor: Predictor) -> bool:
        """Whether there is a state for a model."""
        horizon = self.horizons.get(predictor.bundle.horizon)
        return horizon is not None and self._key(predictor) in horizon.states

    def state_of(self, predictor: Predictor) -> LiveState:
        """The state for a model that `has` one."""
        return self.horizons[predictor.bundle.horizon].states[self._key(predictor)]

    def _key(self, predictor: Predictor) -> str:
        id = predictor.bundle.id
        if id not in self._keys:
            self._keys[id] = key_of(predictor.bundle.recipe)
        return self._keys[id]

    def derived(self, finer: str) -> list[LiveHorizon]:
        """The horizons whose bars are made of those of a finer one."""
        return [one for one in self.horizons.values() if one.finer == finer]

    def readers(self, name: str) -> list[tuple[LiveHorizon, LiveState]]:
        """The states that read a horizon's bars, its own among them."""
        return [
            (one, state)
            for one in self.horizons.values()
            for state in one.states.values()
            if one.name == name or name in state.recipe.reads
        ]


def key_of(recipe: Recipe) -> str:
    """What tells recipes apart: equal ones share a state."""
    return hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def needs(store: Store, predictors: Sequence[Predictor], options: Live, now: datetime) -> dict[str, Spec]:
    """What models need of each horizon, of the finer ones too that their bars are made of; champions come first."""
    found: dict[str, Spec] = {}

    def add(name: str, spec: Spec) -> None:
        found[name] = found[name].with_(spec) if name in found else spec

    for predictor in predictors:
        add(predictor.bundle.horizon, spec_of(predictor.bundle, options.keep))
    for predictor in predictors:
        name, recipe = predictor.bundle.horizon, predictor.bundle.recipe
        window = _window(recipe.grid, store.newest(name) or now, recipe.lookback + options.keep)
        for other, spec in others_of(recipe, window, options.keep).items():
            add(other, spec)
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        layout = store.layout(name)
        finer = None if layout is None or layout["bars"] == "source" else str(layout["bars"])
        grid = store.grid(finer) if finer else None
        if finer and grid:
            day = grid.session_dates(np.array([np.datetime64((store.newest(finer) or now).replace(tzinfo=None), "us")]))
            sessions = len(grid.slots(grid.back(day[0].item(), 1), day[0].item()))
            if finer not in found:
                waiting.append(finer)
            add(finer, Spec(grid, found[name].symbols, (), options.keep + sessions))
    return found


def build(
    store: Store, predictors: Sequence[Predictor], specs: Mapping[str, Spec], options: Live, now: datetime
) -> World:
    """Read every horizon and warm the state of every model. Blocking: seconds for years of look-back."""
    deadline = timedelta(seconds=options.deadline_seconds)
    horizons = {name: opened(store, name, spec, options.keep, deadline) for name, spec in specs.items()}
    for horizon in horizons.values():
        there = horizon.bars.time[horizon.bars.any_present()]
        horizon.feed.begin(there, now)
    for predictor in predictors:
        recipe, horizon = predictor.bundle.recipe, horizons[predictor.bundle.horizon]
        state = LiveState(recipe, horizon.bars, {other: horizons[other].bars for other in recipe.reads}, options.keep)
        if horizon.feed.closed is not None:
            state.advance(horizon.feed.closed)
            state.remember()
        horizon.states[key_of(recipe)] = state
    return World(horizons)


def follow(horizon: LiveHorizon, predictor: Predictor) -> None:
    """Await the members of a model's universe, and hold pushed bars to its rules."""
    recipe = predictor.bundle.recipe
    horizon.feed.members = members_of(horizon.bars.place, recipe.membership, recipe.symbols, recipe.grid)
    spec = spec_of(predictor.bundle, 0)
    horizon.rules = replace(horizon.rules, needed=spec.needed, max_jump=spec.max_jump)


def _window(grid: Grid, newest: datetime, slots: int) -> Instants:
    stamp = np.datetime64(newest.replace(tzinfo=None), "us")
    day = grid.session_dates(np.array([stamp]))[0].item()
    found = grid.slots(grid.back(day, slots), day)
    return found[found <= stamp][-slots - 1 :]
