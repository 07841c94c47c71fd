"""The space of parameters that tuning searches: of each a range, or the values to choose from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = int | float | bool | str | None


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both ends are. Either `log` or `step`, or none."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def holds(self, value: Value) -> bool:
        """Whether a trial could draw the value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.whole and value != int(value):
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)


Space = Mapping[str, Range | Sequence[Value]]  # by LightGBM's name of the parameter


def distributions(space: Space) -> dict[str, Any]:
    """Optuna's form of the space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, choice in space.items():
        if not isinstance(choice, Range):
            found[name] = CategoricalDistribution(tuple(choice))
        elif choice.whole:
            step = 1 if choice.step is None else int(choice.step)
            found[name] = IntDistribution(int(choice.low), int(choice.high), log=choice.log, step=step)
        else:
            found[name] = FloatDistribution(float(choice.low), float(choice.high), log=choice.log, step=choice.step)
    return found


def inside(space: Space, params: Mapping[str, Value]) -> bool:
    """Whether `params` gives every parameter of the space a value that it holds."""
    return all(
        name in params and (choice.holds(params[name]) if isinstance(choice, Range) else params[name] in choice)
        for name, choice in space.items()
    )
