"""What an operator is: its name, what it takes, the slots it reads and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_WINDOW = 10_000


@dataclass(frozen=True)
class Number:
    """A number that an operator takes after its series, a constant; low and high are both allowed."""

    name: str
    default: float | None = None
    low: float = 1
    high: float = LONGEST_WINDOW
    whole: bool = True


@dataclass(frozen=True)
class Operator:
    """An operator computed by Python code.

    compute: series and numbers to a series; where `rolling`, `Windows` over series and numbers to a series; across
    the section, MLX arrays [rows, symbols] and numbers to such an array. reads: numbers to the first and last slot
    it reads, relative to its own.
    """

    name: str
    series: tuple[str, ...]
    numbers: tuple[Number, ...]
    compute: Callable[..., Any]
    reads: Callable[..., tuple[int, int]]
    summary: str
    rolling: bool = False
    crosses: bool = False  # mixes the symbols of a section
    source: str = ""  # who defined it, where that is not common knowledge

    @property
    def parameters(self) -> dict[str, float | None]:
        """Name to default, None where there is none."""
        return dict.fromkeys(self.series) | {number.name: number.default for number in self.numbers}

    @property
    def signature(self) -> str:
        return _signature(self.name, self.parameters)


@dataclass(frozen=True)
class Composite:
    """An operator written in the language itself; parameters: name to default, None where there is none."""

    name: str
    parameters: dict[str, float | None]
    text: str
    summary: str
    source: str

    @property
    def signature(self) -> str:
        return _signature(self.name, self.parameters)


def _signature(name: str, parameters: dict[str, float | None]) -> str:
    parts = (part if default is None else f"{part}={default:g}" for part, default in parameters.items())
    return f"{name}({', '.join(parts)})"
