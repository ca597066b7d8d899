"""Figures of receptive fields, skips and Grad-CAM over the image, as PIL pictures."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fcnseg.explain.receptive import IN_THE_FIELD, ReceptiveField, Span, effective_size
from fcnseg.explain.seen import Pixel, Seen
from fcnseg.explain.skips import Decision, SkipMaps
from fcnseg.geometry import Grid
from fcnseg.inference.overlay import blend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TAP_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e6ab02")
"""Of the score layers, coarse to fine, told apart by colour-blind eyes too (Okabe and Ito)."""

_BIASES, _RANKED, _LISTED, _DENSEST, _WIDE = "#9a9a9a", 4, 12, 6, 4.2

_NOTE = {"facecolor": "#dddddd", "edgecolor": "none", "pad": 1.0}


def field_figure(seen: Seen, field: ReceptiveField, pixel: Pixel, effective: np.ndarray | None = None) -> Image.Image:
    """The theoretical receptive field of a pixel on the image, its samples close up, and the effective field.

    Args:
        field: of the network's pixel that `pixel` lies on.
        pixel: row and column of the image.
        effective: (h, w) as `effective_field` gives it; None leaves the panel out.
    """
    panels = 2 if effective is None else 3
    figure = _figure(panels * _WIDE, _WIDE * 0.95 + 0.22 * len(field.taps) + 0.5)
    axes = figure.subplots(1, panels)
    _show(axes[0], seen.picture)
    handles = [_draw_tap(axes, seen, tap, colour) for tap, colour in zip(field.taps, TAP_COLOURS, strict=False)]
    axes[0].set_title("what the pixel may depend on", fontsize=10)
    _draw_close_up(axes[1], seen, field, pixel)
    _around(axes[0], seen, field.box)
    if effective is not None:
        handles.append(_draw_effective(axes[2], seen, field, effective))
    for panel in axes:
        _mark(panel, pixel)
    if seen.shown != seen.covered:
        handles.append(_remark("sizes and offsets in pixels as the network sees the image, {}x{}".format(*seen.shown)))
    figure.legend(handles=handles, loc="outside lower left", fontsize=9, frameon=False)
    return _picture(figure)


def _remark(text: str) -> Any:
    """A line of a legend without a colour."""
    from matplotlib.patches import Patch

    return Patch(color="none", label=text)


def _draw_tap(axes: Sequence["Axes"], seen: Seen, tap: Any, colour: str) -> Any:
    """The field of a tap in the first panel, its samples in the second; returns the line of the legend."""
    from matplotlib.patches import Patch, Rectangle

    top, bottom, left, right = _edges(seen, tap.box)
    axes[0].add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linewidth=1.8))
    rows, columns = tap.centres
    places = [seen.own_place((row, column)) for row in rows for column in columns]
    _scatter(axes[1], places, min(16 + 7 * float(tap.grid.stride), 70), colour, 1.2)
    height, width = (end - first for first, end in tap.box)
    offset = ", ".join(f"{float(n):+g}" for n in tap.offset)
    said = f"{tap.name}: sees {height}x{width} pixels, stride {tap.grid.stride}; nearest sample at offset ({offset})"
    return Patch(color=colour, label=said)


def _draw_close_up(axes: "Axes", seen: Seen, field: ReceptiveField, pixel: Pixel) -> None:
    """The image's pixels around the explained one, under all samples of all taps."""
    _show(axes, seen.picture)
    reach = 1.3 * max(float(tap.grid.stride) for tap in field.taps)
    for tap, colour in zip(field.taps, TAP_COLOURS, strict=False):
        if float(tap.grid.stride) < reach / _DENSEST:
            continue
        lines = [_lattice(tap.grid, count, n, reach) for count, n in zip(tap.count, field.pixel, strict=True)]
        places = [seen.own_place((row, column)) for row in lines[0] for column in lines[1]]
        _scatter(axes, places, 14, colour, 0.5)
    (top, left), (bottom, right) = (
        seen.own_place((field.pixel[0] + way * reach, field.pixel[1] + way * reach)) for way in (-1, 1)
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_title("close up: the samples it is made of", fontsize=10)


def _lattice(grid: Grid, count: int, around: int, reach: float) -> list[float]:
    """The centres of those of a grid's first `count` samples that lie within reach of a pixel, along one axis."""
    origin, stride = float(grid.origin), float(grid.stride)
    first = int(np.ceil((around - reach - origin) / stride))
    last = int(np.floor((around + reach - origin) / stride))
    return [origin + i * stride for i in range(max(first, 0), min(last + 1, count))]


def _draw_effective(axes: "Axes", seen: Seen, field: ReceptiveField, effective: np.ndarray) -> Any:
    """The effective field under the edges of the theoretical ones; returns the line of the legend."""
    from matplotlib.patches import Patch, Rectangle

    _show(axes, _faded(seen.picture))
    for tap, colour in zip(field.taps, TAP_COLOURS, strict=False):
        top, bottom, left, right = _edges(seen, tap.box)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, ls="--"))
    _draw_heat(axes, seen, effective**0.5)
    _limit_to_image(axes, seen)
    axes.set_title("what it does depend on", fontsize=10)
    said = (
        f"effective field: {effective_size(effective):.0f} pixels across, where gradients are above "
        f"{IN_THE_FIELD:.1%} of the largest (shown by their root)"
    )
    return Patch(color="#8a226a", label=said)


def skips_figure(seen: Seen, maps: SkipMaps, chosen: Decision, pixel: Pixel) -> Image.Image:
    """The mask, which tap decides each pixel, the mask without each tap, and the sum that decides one pixel."""
    taps, changed = len(maps.names), maps.changed()
    columns = {1: 2, 2: 3, 3: 3}.get(taps, 4)
    rows = -(-(taps + 3) // columns)
    tall = rows * (_WIDE * 0.93 * seen.size[0] / seen.size[1] + 0.35)
    figure = _figure(columns * _WIDE * 0.95, tall + 2.6)
    parts: Any = figure.subfigures(2, 1, height_ratios=[tall, 2.6])
    above, below = parts
    axes = above.subplots(rows, columns).ravel()
    for panel in axes:
        panel.set_axis_off()
    _draw_mask(axes[0], seen, maps.mask, "prediction")
    _draw_deciding(axes[1], seen, maps)
    for panel, name, mask in zip(axes[2:], maps.names, maps.without, strict=False):
        _draw_mask(panel, seen, mask, f"without {name}: {changed[name]:.1%} change class")
    for panel in axes[: taps + 2]:
        _mark(panel, pixel)
    present = np.flatnonzero(np.bincount(np.concatenate([mask.ravel() for mask in (maps.mask, *maps.without)])))
    _draw_classes(axes[taps + 2], seen, present)
    _draw_sum(below.subplots(), seen, chosen, pixel)
    return _picture(figure)


def _draw_mask(axes: "Axes", seen: Seen, mask: np.ndarray, title: str) -> None:
    _show(axes, np.asarray(blend(seen.picture, mask, seen.label_space, 0.6)))
    axes.set_title(title, fontsize=10)


def _draw_classes(axes: "Axes", seen: Seen, present: np.ndarray) -> None:
    """A legend in a panel of its own."""
    from matplotlib.patches import Patch

    space = seen.label_space
    shown = present[: 2 * _LISTED]
    patches = [Patch(color=_hex(space.palette[i]), label=space.classes[i]) for i in shown]
    axes.legend(handles=patches, loc="center", fontsize=9, frameon=False, ncols=1 + (len(shown) > _LISTED))


def _draw_deciding(axes: "Axes", seen: Seen, maps: SkipMaps) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    colours = np.rint(np.array([to_rgb(c) for c in TAP_COLOURS]) * 255)
    painted = 0.35 * _faded(seen.picture) + 0.65 * colours[maps.deciding]
    _show(axes, np.rint(painted).astype(np.uint8))
    axes.set_title("which skip decides", fontsize=10)
    handles = [
        Patch(color=colour, label=f"{name}: {share:.0%}")
        for (name, share), colour in zip(maps.shares().items(), TAP_COLOURS, strict=False)
    ]
    axes.legend(handles=handles, loc="lower left", fontsize=7, framealpha=0.85)


def _draw_sum(axes: "Axes", seen: Seen, chosen: Decision, pixel: Pixel) -> None:
    """Bars of what each tap adds to the likeliest classes' logits."""
    ranked = chosen.ranking[:_RANKED]
    names, values = [*chosen.names, "biases"], np.vstack([chosen.parts, chosen.biases])
    for part, name, colour in zip(values, names, [*TAP_COLOURS[: len(chosen.names)], _BIASES], strict=True):
        before = values[: names.index(name)][:, ranked]
        same = np.where(np.sign(before) == np.sign(part[ranked]), before, 0).sum(0)
        axes.barh(range(len(ranked)), part[ranked], left=same, color=colour, label=name, height=0.62)
    axes.plot(chosen.logits[ranked], range(len(ranked)), "D", color="black", markersize=6, label="logit", ls="none")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(ranked)), [seen.label_space.classes[i] for i in ranked], fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"what decides row {pixel[0]}, column {pixel[1]}: parts of its logits", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def gradcam_figure(
    seen: Seen, rows: Mapping[str, Sequence[np.ndarray]], layers: Sequence[str], grids: Sequence[Grid], pixel: Pixel
) -> Image.Image:
    """Grad-CAM over the image: a row for each score, a column for each layer.

    Args:
        rows: by what they are of, the (h, w) maps of each layer, as `grad_cam` gives them.
        layers: their names.
        grids: where their samples lie on the image as the network sees it.
        pixel: that is marked.
    """
    ratio = seen.size[0] / seen.size[1]
    figure = _figure(len(layers) * _WIDE, len(rows) * (_WIDE * 0.97 * ratio + 0.3))
    axes = figure.subplots(len(rows), len(layers), squeeze=False)
    size = seen.images.shape[-2], seen.images.shape[-1]
    for line, (what, maps) in zip(axes, rows.items(), strict=True):
        for panel, values, layer, grid in zip(line, maps, layers, grids, strict=True):
            _show(panel, _faded(seen.picture))
            _draw_heat(panel, seen, on_image(values, grid, size))
            _limit_to_image(panel, seen)
            nothing = "" if values.any() else ", nothing"
            panel.set_title(f"{layer}: {what}{nothing}", fontsize=10)
            panel.set_axis_off()
            _mark(panel, pixel)
    return _picture(figure)


def on_image(values: np.ndarray, grid: Grid, size: tuple[int, int]) -> np.ndarray:
    """(h, w) values of a layer at every pixel of an image of `size` = (H, W), by linear interpolation: (H, W).

    Each sample lies where the geometry has it; beyond the outermost their values are repeated.
    """
    scale, offset = float(grid.map.scale), float(grid.map.offset)
    for axis in (0, 1):
        places = (np.arange(size[axis]) * scale + offset).clip(0, values.shape[axis] - 1)
        before = np.floor(places).astype(int)
        after = np.minimum(before + 1, values.shape[axis] - 1)
        part = np.expand_dims(places - before, 1 - axis)
        values = np.take(values, before, axis) * (1 - part) + np.take(values, after, axis) * part
    return values


def _draw_heat(axes: "Axes", seen: Seen, values: np.ndarray) -> None:
    """(h, w) values of the network's pixels over the image, clear where they are 0."""
    from matplotlib import colormaps

    top, bottom, left, right = _edges(seen, ((0, values.shape[0]), (0, values.shape[1])))
    unit = values / max(values.max(), 1e-30)
    painted = colormaps["inferno"](0.25 + 0.75 * unit)
    painted[..., 3] = np.minimum(unit * 2.5, 0.9)
    axes.imshow(painted, extent=(left, right, bottom, top), interpolation="nearest", zorder=2)


def _edges(seen: Seen, box: tuple[Span, Span]) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of some of the network's pixels, on the image."""
    (first, start), (end, stop) = ((box[0][i] - 0.5, box[1][i] - 0.5) for i in (0, 1))
    top, left = seen.own_place((first, start))
    bottom, right = seen.own_place((end, stop))
    return top, bottom, left, right


def _around(axes: "Axes", seen: Seen, box: tuple[Span, Span]) -> None:
    """Show the image and all of the field, also beyond it."""
    top, bottom, left, right = _edges(seen, box)
    height, width = seen.size
    margin = 0.02 * max(height, width)
    axes.set_xlim(min(left, -0.5) - margin, max(right, width - 0.5) + margin)
    axes.set_ylim(max(bottom, height - 0.5) + margin, min(top, -0.5) - margin)
    if min(top, left) < -0.5 or bottom > height - 0.5 or right > width - 0.5:
        axes.annotate(
            "beyond the image", (0.5, 0.04), xycoords="axes fraction", fontsize=8, color="#666666", ha="center"
        )


def _limit_to_image(axes: "Axes", seen: Seen) -> None:
    axes.set_xlim(-0.5, seen.size[1] - 0.5)
    axes.set_ylim(seen.size[0] - 0.5, -0.5)


def _mark(axes: "Axes", pixel: Pixel) -> None:
    """A cross on a pixel, seen on any ground; the panel keeps its limits."""
    limits = axes.get_xlim(), axes.get_ylim()
    for colour, width, size in (("black", 3.2, 11), ("white", 1.4, 10)):
        axes.plot(pixel[1], pixel[0], "+", color=colour, markersize=size, markeredgewidth=width, zorder=6)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _show(axes: "Axes", picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set_facecolor("#dddddd")
    axes.tick_params(labelsize=7)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _scatter(axes: "Axes", places: Sequence[tuple[float, float]], size: float, colour: str, edge: float) -> None:
    """Points at (row, column) places."""
    rows, columns = [row for row, _ in places], [column for _, column in places]
    axes.scatter(columns, rows, s=size, color=colour, edgecolors="white", linewidths=edge, zorder=3 + edge)


def _faded(picture: np.ndarray) -> np.ndarray:
    """In grey, half way to white."""
    grey = picture.mean(axis=2, keepdims=True)
    return np.rint(np.repeat(255 - (255 - grey) * 0.6, 3, axis=2)).astype(np.uint8)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _picture(figure: "Figure") -> Image.Image:
    """The figure with all that stands on it, titles and legends too."""
    file = BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.1)
    return Image.open(file).convert("RGB")
