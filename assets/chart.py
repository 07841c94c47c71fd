"""Charts as SVG: axes, lines, bands and marks; colours are CSS classes, so that they follow light and dark."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

Format = Callable[[float], str]
Points = Sequence[float] | np.ndarray
MOST_POINTS = 1600  # of a line: more than there are pixels


class Plot:
    """One plot of a width and height in pixels; x and y are ranges of data, drawn inside the margins."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: int = 1000,
        height: int = 300,
        left: int = 64,
        right: int = 16,
        top: int = 14,
        bottom: int = 30,
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, width - right, top, height - bottom
        self._x, self._y = _range(*x), _range(*y)
        self._parts: list[str] = []

    def at_x(self, value: float) -> float:
        low, high = self._x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        low, high = self._y
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def add(self, part: str) -> None:
        self._parts.append(part)

    def y_axis(self, form: Format, count: int = 5) -> None:
        """Rules across the plot with figures at the left; zero is stronger."""
        for value in ticks(*self._y, count):
            y = self.at_y(value)
            zero = " zero" if value == 0 else ""
            self.add(f'<path class="rule{zero}" d="M{self.left} {y:.1f}H{self.right}"/>')
            self.text(self.left - 8, y + 4, form(value), anchor="end")

    def x_axis(self, form: Format, count: int = 7) -> None:
        """Figures under the plot at round values."""
        for value in ticks(*self._x, count):
            self.text(self.at_x(value), self.bottom + 19, form(value), anchor="middle")

    def upright(self, count: int = 5) -> None:
        """Upright rules with figures under the plot; zero is stronger."""
        for value in ticks(*self._x, count):
            x = self.at_x(value)
            zero = " zero" if value == 0 else ""
            self.add(f'<path class="rule{zero}" d="M{x:.1f} {self.top}V{self.bottom}"/>')
            self.text(x, self.bottom + 19, plain(value), anchor="middle")

    @property
    def x(self) -> tuple[float, float]:
        return self._x

    @property
    def y(self) -> tuple[float, float]:
        return self._y

    def x_labels(self, labels: Sequence[tuple[float, str]]) -> None:
        """Given texts under the plot, the outer ones kept inside."""
        for value, label in labels:
            x = self.at_x(value)
            anchor = "start" if x < self.left + 30 else "end" if x > self.right - 30 else "middle"
            self.text(x, self.bottom + 19, label, anchor=anchor)

    def line(self, x: Points, y: Points, look: str) -> None:
        """A line, broken where y is not finite."""
        points = thinned(np.asarray(x, float), np.asarray(y, float))
        drawn, pen = [], "M"
        for px, py in points:
            if not math.isfinite(py):
                pen = "M"
                continue
            drawn.append(f"{pen}{self.at_x(px):.1f} {self.at_y(py):.1f}")
            pen = "L"
        if drawn:
            self.add(f'<path class="line {look}" d="{"".join(drawn)}"/>')

    def band(self, x: Points, low: Points, high: Points, look: str) -> None:
        """The area between two lines without gaps."""
        upper, lower = (thinned(np.asarray(x, float), np.asarray(edge, float)) for edge in (high, low))
        if len(upper) < 2:
            return
        path = [f"{self.at_x(px):.1f} {self.at_y(py):.1f}" for px, py in [*upper, *lower[::-1]]]
        self.add(f'<path class="band {look}" d="M{"L".join(path)}Z"/>')

    def bar(self, x: float, width: float, value: float, look: str, title: str = "") -> None:
        """A bar from zero; width in data, a little is left free."""
        zero, top = self.at_y(0), self.at_y(value)
        left, right = self.at_x(x - width / 2), self.at_x(x + width / 2)
        self.rect(left, min(zero, top), right - left, max(abs(zero - top), 0.6), look, title)

    def rect(
        self, x: float, y: float, width: float, height: float, look: str, title: str = "", round: float = 0
    ) -> None:
        told = f"<title>{escape(title)}</title>" if title else ""
        corner = f' rx="{round}"' if round else ""
        self.add(
            f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"{corner}>'
            f"{told}</rect>"
        )

    def whisker(self, x: float, low: float, high: float, look: str = "whisker") -> None:
        """An upright error bar in data units."""
        at, bottom, top = self.at_x(x), self.at_y(low), self.at_y(high)
        self.add(
            f'<path class="{look}" d="M{at:.1f} {bottom:.1f}V{top:.1f}M{at - 4:.1f} {bottom:.1f}h8'
            f'M{at - 4:.1f} {top:.1f}h8"/>'
        )

    def dot(self, x: float, y: float, look: str, title: str = "", radius: float = 4) -> None:
        told = f"<title>{escape(title)}</title>" if title else ""
        self.add(f'<circle class="{look}" cx="{self.at_x(x):.1f}" cy="{self.at_y(y):.1f}" r="{radius}">{told}</circle>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", look: str = "") -> None:
        kind = f' class="{look}"' if look else ""
        self.add(f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self, label: str) -> str:
        """The whole picture; `label` is what a screen reader says."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
            f"{''.join(self._parts)}</svg>"
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between low and high: 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    found = [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return [0.0 if value == 0 else value for value in found]


def thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Points of a line, few enough to draw: of each run of points the first, lowest, highest and last."""
    if len(x) <= MOST_POINTS:
        return list(zip(x.tolist(), y.tolist(), strict=True))
    kept: list[int] = []
    for run in np.array_split(np.arange(len(x)), MOST_POINTS // 4):
        values = np.where(np.isfinite(y[run]), y[run], 0.0)
        kept += sorted({int(run[0]), int(run[values.argmin()]), int(run[values.argmax()]), int(run[-1])})
    return [(float(x[at]), float(y[at])) for at in kept]


def extent(*series: Points, zero: bool = True, pad: float = 0.06) -> tuple[float, float]:
    """The range of all finite values, with some room, and zero inside where asked."""
    values = np.concatenate([np.asarray(one, float).ravel() for one in series]) if series else np.zeros(0)
    values = values[np.isfinite(values)]
    if zero or not len(values):
        values = np.append(values, 0.0)
    low, high = float(values.min()), float(values.max())
    room = (high - low) * pad or 1e-9
    return (low - room if low < 0 or not zero else low), (high + room if high > 0 or not zero else high)


def time_labels(times: np.ndarray, count: int = 6) -> list[tuple[float, str]]:
    """(place, text) of evenly spaced sections, as days, or with minutes where all lie within three days."""
    if not len(times):
        return []
    places = np.unique(np.linspace(0, len(times) - 1, min(count, len(times))).astype(int))
    short = (times[-1] - times[0]) / np.timedelta64(1, "D") < 3
    return [(float(at), stamp(times[at], minutes=short)) for at in places]


def stamp(time: Any, *, minutes: bool = True) -> str:
    """A time as people read it."""
    text = str(np.datetime64(time, "m")).replace("T", " ")
    return text if minutes and not text.endswith("00:00") else text[:10]


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A key above a chart: (look, text) each."""
    items = "".join(f'<span><i class="key {look}"></i>{escape(text)}</span>' for look, text in entries)
    return f'<div class="legend">{items}</div>'


def percent(value: float) -> str:
    return f"{value * 100:.3g}%"


def plain(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)
