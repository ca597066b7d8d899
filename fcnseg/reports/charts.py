"""Curves as plain numbers, from which the templates draw SVG: axes, ticks, and lines of few points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fcnseg.reports.files import Curve

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 36
"""Margins around the axes, in units of the picture."""

MOST_POINTS = 400
"""Of a curve; longer ones are thinned."""

MARKED = 40
"""Points up to which each has a mark of its own."""

COLOURS = 8
"""How many the style sheet has; further lines take them again, dashed."""


@dataclass(frozen=True)
class Line:
    """A named line: parts, each of (x, y) in units of the picture, and the last value."""

    name: str
    parts: tuple[tuple[tuple[float, float], ...], ...]
    last: float
    number: int

    @property
    def look(self) -> str:
        """Its classes in the style sheet."""
        return f"c{self.number % COLOURS}" + (" dashed" if self.number // COLOURS % 2 else "")

    @property
    def marked(self) -> bool:
        return sum(map(len, self.parts)) <= MARKED


@dataclass(frozen=True)
class Chart:
    """Lines over one pair of axes, with (place, text) of the ticks; x is what the axis is called."""

    title: str
    lines: tuple[Line, ...]
    x: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    ranges: tuple[float, float, float, float]
    diagonal: bool = False


def chart(
    title: str,
    curves: Mapping[str, Sequence[Curve]],
    x: str = "step",
    bounds: tuple[float, float, float, float] | None = None,
    diagonal: bool = False,
) -> Chart | None:
    """Draw curves by their names; None where there is nothing to draw.

    Args:
        curves: in the order of their colours; one without points has its colour too.
        bounds: of the axes, as least and greatest x, least and greatest y; by default those of the curves.
        diagonal: whether to draw where both axes are the same.
    """
    numbers = {name: number for number, name in enumerate(curves)}
    known = {name: [part for part in parts if len(part[0])] for name, parts in curves.items()}
    known = {name: parts for name, parts in known.items() if parts}
    if not known:
        return None
    every = [np.concatenate([part[axis] for parts in known.values() for part in parts]) for axis in (0, 1)]
    least = [float(values.min()) for values in every]
    greatest = [float(values.max()) for values in every]
    x0, x1, y0, y1 = bounds or (_from_nought(least[0], greatest[0]), greatest[0], *_padded(least[1], greatest[1]))
    x1 = x1 if x1 > x0 else x0 + 1
    right, down = _scale(x0, x1, LEFT, WIDTH - RIGHT), _scale(y0, y1, HEIGHT - BOTTOM, TOP)
    lines = tuple(
        Line(name, tuple(_points(part, right, down) for part in parts), float(parts[-1][1][-1]), numbers[name])
        for name, parts in known.items()
    )
    ticks = [
        tuple((round(at(value), 1), f"{value:.6g}") for value in _ticks(low, high))
        for at, low, high in ((right, x0, x1), (down, y0, y1))
    ]
    return Chart(title, lines, x, ticks[0], ticks[1], (x0, x1, y0, y1), diagonal)


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """A curve of few points: of every stretch the least and the greatest value, so that no spike is lost."""
    steps, values = curve
    if len(steps) <= most:
        return curve
    kept = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(len(steps)), most // 2 - 1):
        kept |= {int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])}
    chosen = np.array(sorted(kept))
    return steps[chosen], values[chosen]


def _points(curve: Curve, right: "_Scale", down: "_Scale") -> tuple[tuple[float, float], ...]:
    steps, values = thinned(curve)
    return tuple((round(right(x), 1), round(down(y), 1)) for x, y in zip(steps.tolist(), values.tolist(), strict=True))


@dataclass(frozen=True)
class _Scale:
    offset: float
    factor: float

    def __call__(self, value: float) -> float:
        return self.offset + self.factor * value


def _scale(low: float, high: float, first: float, last: float) -> _Scale:
    """From a value to its place: `low` lies at `first`, `high` at `last`."""
    factor = (last - first) / (high - low)
    return _Scale(first - factor * low, factor)


def _padded(low: float, high: float) -> tuple[float, float]:
    """Room above, and down to nought where that is not far."""
    low = _from_nought(low, high)
    room = 0.04 * (high - low) or 0.5
    return (low if low == 0 else low - room), high + room


def _from_nought(low: float, high: float) -> float:
    """Where an axis begins: at nought where that is not far, or where there is one value only."""
    return 0.0 if 0 <= low <= 0.6 * high or 0 < low == high else low


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    slack = 1e-9 * (high - low)
    found = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in found if low - slack <= value <= high + slack]
