"""What a run may change: value overrides, stored with the run and editable in the Dagster UI."""

import os
import shlex

import dagster as dg
from pydantic import Field, PrivateAttr

from conf.compose import check_value_only, compose
from conf.schema import Horizon

OVERRIDES_VARIABLE = "TENOR_OVERRIDES"


def structural_overrides() -> list[str]:
    """Overrides that shape the graph, as the code location got them (shell words in TENOR_OVERRIDES)."""
    return shlex.split(os.environ.get(OVERRIDES_VARIABLE, ""))


class Settings(dg.ConfigurableResource):
    """Value overrides in Hydra's grammar, e.g. `model.num_leaves=63`; they live for one run."""

    overrides: list[str] = Field(default_factory=list)

    # The steps of a run share what it was resolved to: composing takes half a second, and a run has one config.
    _resolved: dict[str, Horizon] = PrivateAttr(default_factory=dict)

    def horizon(self, name: str) -> Horizon:
        """The resolved config of one horizon under this run's overrides; ConfigError on a structural one."""
        if name not in self._resolved:
            self._resolved[name] = self._composed(name)
        return self._resolved[name]

    def _composed(self, name: str) -> Horizon:
        check_value_only(self.overrides)
        words = [*structural_overrides(), *self.overrides]
        if any(word.startswith("horizon=") for word in words):
            return compose(words)[name]
        found = compose([f"horizon={name}", *words])[name]
        if not found.at:
            return found
        # In the code location every horizon is asked for, so the overrides shape the ones that this one reads too.
        return compose([f"horizon={','.join([name, *found.at])}", *words])[name]
