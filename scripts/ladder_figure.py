"""The picture of a speed ladder: images per second against mean IoU, with both spreads and a name at every point."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import Bbox

# Okabe and Ito's colours, which colour-blind readers tell apart, each with a marker of its own.
LOOKS = {
    "reference": ("#000000", "s", "the reference"),
    "network": ("#0072b2", "o", "another network"),
    "runtime": ("#d55e00", "D", "another runtime or precision"),
    "both": ("#009e73", "^", "both"),
}

DIRECTIONS = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
DISTANCES = (4, 8, 14, 22, 32, 44)
"""Of a name from its point, in points."""

LED = 14
"""The distance from which on a line leads from the name to its point."""


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Rows of ladder.json; those without a time are left out."""
    rows = [row for row in rows if row["seconds"]]
    figure = Figure(figsize=(8.4, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        point(axes, row)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel("images per second")
    axes.set_ylabel("mean IoU on the validation images, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    front(axes, rows)
    legend(axes, rows)
    name(axes, rows)
    return figure


def looks(row: dict[str, Any]) -> tuple[str, str, str]:
    return LOOKS["reference" if row["name"] == "reference" else row["kind"]]


def place(row: dict[str, Any]) -> tuple[float, float]:
    return 1 / row["seconds"]["median"], 100 * row["mean_iou"]["value"]


def point(axes: Axes, row: dict[str, Any]) -> None:
    """With the quartiles of the speed and the interval of the score."""
    colour, marker, _ = looks(row)
    x, y = place(row)
    seconds, iou = row["seconds"], row["mean_iou"]
    across = [[max(0, x - 1 / seconds["high"])], [max(0, 1 / seconds["low"] - x)]]
    up = [[max(0, y - 100 * iou["low"])], [max(0, 100 * iou["high"] - y)]]
    axes.errorbar(x, y, yerr=up, xerr=across, color=colour, alpha=0.35, linewidth=1.1, zorder=2)
    axes.plot(x, y, marker, color=colour, markersize=7, mec="white", mew=0.8, zorder=4)


def front(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """A line through the rungs that no other one beats in both."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(map(place, rows), reverse=True):
        if not best or y > best[-1][1]:
            best.append((x, y))
    axes.plot(*zip(*best, strict=True), color="0.6", linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def legend(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    shown = list(dict.fromkeys(map(looks, rows)))
    handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=7, label=text) for c, m, text in shown]
    handles.append(Line2D([], [], color="0.6", linewidth=1, linestyle=(0, (4, 3)), label="none is better in both"))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=len(handles))


def name(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Every point's name in the place around it that is free, or where it covers the least."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # places are known from here on
    points = [box(axes, place(row), place(row), 7) for row in rows]
    bars = [bar for row in rows for bar in spreads(axes, row)]
    for row in sorted(rows, key=place):
        text = axes.annotate(
            row["name"], place(row), (0, 0), fontsize=8.5, color=looks(row)[0], textcoords="offset points", zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "0.55", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4},
        )  # fmt: skip
        text.set_in_layout(False)
        size = Text.get_window_extent(text).size
        pixels = figure.dpi / 72
        costs = {}
        for distance, (x, y) in product(DISTANCES, DIRECTIONS):
            offset = (distance * x, distance * y)
            covered = beside(axes.transData.transform(place(row)), (offset[0] * pixels, offset[1] * pixels), size)
            costs[offset] = (
                100 * sum(overlap(covered, other) for other in points)
                + sum(overlap(covered, bar) for bar in bars)
                + 100 * (area(covered) - overlap(covered, axes.bbox))
                + 6 * distance
            )
        x, y = best = min(costs, key=lambda offset: costs[offset])
        text.set_position(best)
        text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
        text.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")
        text.arrow_patch.set_visible(max(map(abs, best)) >= LED)
        points.append(beside(axes.transData.transform(place(row)), (x * pixels, y * pixels), size))


def beside(point: Sequence[float], offset: tuple[float, float], size: Sequence[float]) -> Bbox:
    """What a text of that size covers on the canvas, so far from its point, on the side that the offset leads to."""
    corners = [
        at + shift - (0 if shift > 0 else length if shift < 0 else length / 2)
        for at, shift, length in zip(point, offset, size, strict=True)
    ]
    return Bbox.from_bounds(*corners, *size)


def box(axes: Axes, low: tuple[float, float], high: tuple[float, float], margin: float) -> Bbox:
    """On the canvas, of two corners in the data's values."""
    (x0, y0), (x1, y1) = axes.transData.transform([low, high])
    return Bbox([[x0 - margin, y0 - margin], [x1 + margin, y1 + margin]])


def spreads(axes: Axes, row: dict[str, Any]) -> list[Bbox]:
    (x, y), seconds, iou = place(row), row["seconds"], row["mean_iou"]
    across = box(axes, (1 / seconds["high"], y), (1 / seconds["low"], y), 2)
    return [across, box(axes, (x, 100 * iou["low"]), (x, 100 * iou["high"]), 2)]


def overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else area(common)


def area(of: Bbox) -> float:
    return float(of.width * of.height)
