"""The picture of a speed ladder: images per second against mean IoU, with both spreads and a name at every point."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import Bbox

# Okabe and Ito's colours, which colour-blind readers tell apart, each with a marker of its own.
LOOKS = {
    "reference": ("#000000", "s", "the reference"),
    "network": ("#0072b2", "o", "another network"),
    "runtime": ("#d55e00", "D", "another runtime or precision"),
    "both": ("#009e73", "^", "both"),
}

DIRECTIONS = [(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]
DISTANCES = (7, 14, 24, 36, 50)
"""Of a name from its point, in points; the nearest place that is free is taken."""


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Rows of ladder.json; those without a time are left out."""
    rows = [row for row in rows if row["seconds"]]
    figure = Figure(figsize=(8.4, 5.4), layout="constrained")
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
    axes.legend(handles=handles, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(handles))


def name(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Every point's name in the nearest free place around it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()  # places are known from here on
    centres = [axes.transData.transform(place(row)) for row in rows]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres]
    for row in sorted(rows, key=place):
        text = axes.annotate(row["name"], place(row), fontsize=8.5, color=looks(row)[0], textcoords="offset points")
        for distance, (x, y) in product(DISTANCES, DIRECTIONS):
            text.set_position((x * distance, y * distance))
            text.set_horizontalalignment({1: "left", -1: "right", 0: "center"}[x])
            text.set_verticalalignment({1: "bottom", -1: "top", 0: "center"}[y])
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0
            if inside and box.y1 <= axes.bbox.y1 and not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())
