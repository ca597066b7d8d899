"""What a reader sees of an evaluation: the table, the confusion picture, the best and worst examples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnseg.atomic import replacing
from fcnseg.evaluation.metrics import Scores, as_counts
from fcnseg.inference.overlay import add_legend, colourise
from fcnseg.labels import IGNORE_INDEX, LabelSpace
from fcnseg.silence import is_silent

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.text import Text

WRONG = (230, 25, 25)
UNSCORED = (25, 25, 25)
GAP = 12
BAR_WIDTH = 12
MANY = 40  # classes, of which a confusion matrix shows no numbers


@dataclass(frozen=True, eq=False)
class Example:
    """One evaluated image.

    Attributes:
        name: what to call it, its file name for instance.
        image: (H, W, 3) uint8.
        label: (H, W) uint8 class indices, 255 where ignored.
        prediction: (H, W) uint8 class indices.
        mean_iou: its mean IoU, 0 to 1, nan where it has none.

    Raises:
        ValueError: when the three pictures differ in size.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    mean_iou: float

    def __post_init__(self) -> None:
        if not self.image.shape[:2] == self.label.shape == self.prediction.shape:
            raise ValueError(
                f"{self.name}: image {self.image.shape}, label {self.label.shape} and prediction "
                f"{self.prediction.shape} differ in size"
            )


def print_table(
    scores: Scores,
    label_space: LabelSpace,
    console: Console | None = None,
    title: str = "",
    means: Mapping[str, float] | None = None,
) -> None:
    """Print the scores in percent, a row per class, then the four that sum them up.

    Classes that are not reported are dim, and `means` are mean IoUs by their names, in the place of the one. `pixels`
    is a class's share of the label pixels. Colours appear only where the console shows them; in a file or a pipe the
    table is plain text.

    Raises:
        ValueError: when the label space has another number of classes than the scores.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(quiet=is_silent())
    coloured = console.color_system is not None and not console.no_color
    heading = Text(title, style="bold") if title else None
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left")
    if coloured:
        table.add_column(width=2)
    table.add_column("class")
    table.add_column("IoU %", justify="right", no_wrap=True)
    table.add_column(width=BAR_WIDTH, no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    table.add_column("pixels %", justify="right", no_wrap=True)

    def add_row(name: str, iou: str, bar: float, accuracy: str, pixels: str, style: str, swatch: str) -> None:
        lead = [Text("  ", style=swatch)] if coloured else []
        table.add_row(*lead, Text(name), iou, _bar(bar, console), accuracy, pixels, style=style)

    total = sum(scores.pixels)
    per_class = (label_space.classes, label_space.palette, scores.iou, scores.accuracy, scores.pixels)
    reported = range(len(scores.iou)) if scores.reported is None else scores.reported
    for index, (name, (red, green, blue), iou, accuracy, pixels) in enumerate(zip(*per_class, strict=True)):
        absent = math.isnan(iou)
        shown, style = ("absent", "dim") if absent else (_percent(iou), "" if index in reported else "dim")
        name = name if index in reported else f"{name} (not reported)"
        swatch = f"on rgb({red},{green},{blue})"
        add_row(name, shown, iou, _percent(accuracy), _share(pixels, total), style, swatch)
    table.add_section()
    weighted = scores.frequency_weighted_iou
    for name, mean in (means or {"mean IoU": scores.mean_iou}).items():
        add_row(name, _percent(mean), mean, "", "", "bold", "")
    add_row("frequency-weighted IoU", _percent(weighted), weighted, "", "", "bold", "")
    add_row("mean accuracy", "", math.nan, _percent(scores.mean_accuracy), "", "bold", "")
    add_row("pixel accuracy", "", math.nan, _percent(scores.pixel_accuracy), "", "bold", "")
    console.print(table)


def save_confusion(confusion: torch.Tensor | np.ndarray, label_space: LabelSpace, path: Path | str) -> None:
    """Draw `confusion_figure` into a .png, .pdf or .svg file.

    Raises:
        ValueError: when the label space has another number of classes than the matrix.
    """
    figure, path = confusion_figure(confusion, label_space), Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png")


def confusion_figure(confusion: torch.Tensor | np.ndarray, label_space: LabelSpace) -> Figure:
    """A (C, C) matrix of counts, rows = labels, as the percentages of each row.

    A class without label pixels has a hatched row. Percentages below one half are left out, and all of them where there
    are more than 40 classes, whose cells are too small.

    Args:
        confusion: counts, as `fcnseg.evaluation.metrics.scores` takes them.
        label_space: names on both axes, with their colours.

    Raises:
        ValueError: when the label space has another number of classes than the matrix.
    """
    from matplotlib.figure import Figure

    counts = as_counts(confusion)
    if len(counts) != label_space.num_classes:
        raise ValueError(f"{len(counts)} rows for {label_space.num_classes} classes of {label_space.name}")
    labelled = counts.sum(1, keepdims=True)
    shares = np.divide(counts, labelled, out=np.zeros_like(counts), where=labelled > 0)

    side = 2.2 + (0.5 if len(counts) <= 16 else 0.38 if len(counts) <= MANY else 0.13) * len(counts)
    figure = Figure(figsize=(side, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_cells(axes, shares, labelled[:, 0] > 0)
    _name_axes(axes, label_space)
    return figure


def save_examples(
    worst: Sequence[Example],
    best: Sequence[Example],
    label_space: LabelSpace,
    path: Path | str,
) -> None:
    """Draw examples as rows of image, label, prediction and error, the worst first, with a legend below.

    In the error column correct pixels are the grey image, wrong ones red, ignored ones dark.

    Raises:
        ValueError: when there is no example at all.
    """
    examples = [*worst, *best]
    if not examples:
        raise ValueError("save_examples needs at least one example")
    width = min(max(max(e.image.shape[1] for e in examples), 240), 480)
    parts = [_line(["image", "label", "prediction", "error: wrong is red, ignored dark"], width)]
    for section, members in (("worst", worst), ("best", best)):
        if members:
            parts.append(_line([section], width, scale=1.5))
        parts += [_row(example, label_space, width) for example in members]
    sheet = Image.fromarray(np.concatenate(parts))
    present = np.unique(np.concatenate([m.ravel() for e in examples for m in (e.label, e.prediction)]))
    with replacing(path) as temporary:
        add_legend(sheet, label_space, present).save(temporary)


def write_json(path: Path | str, data: Any) -> None:
    """Write JSON that appears whole or not at all; nan is no JSON and is refused.

    Raises:
        ValueError: when the data hold nan or infinity.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _share(pixels: int, total: int) -> str:
    """Per cent of all label pixels; a rare class must not look like an absent one."""
    if pixels == 0:
        return "-"
    return f"{100 * pixels / total:.1f}" if pixels >= 0.0005 * total else "<0.1"


def _bar(value: float, console: Console) -> Text:
    from rich.text import Text

    filled = 0 if math.isnan(value) else round(BAR_WIDTH * value)
    return Text(("#" if console.options.ascii_only else "━") * filled, style="green")


def _draw_cells(axes: Axes, shares: np.ndarray, present: np.ndarray) -> None:
    """The (C, C) shares, 0 to 1, as colours and as numbers; `present` says which rows have any."""
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    n = len(shares)
    # The square root lets a confusion of a few percent be seen beside a diagonal near 100.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    for row, column in np.argwhere(shares >= 0.005) if n <= MANY else ():
        share = shares[row, column]
        colour = "white" if share > 0.3 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    for row in np.flatnonzero(~present):
        hatched = Rectangle((-0.5, row - 0.5), n, 1, fc="0.93", ec="0.7", hatch="////", linewidth=0)
        axes.add_patch(hatched)


def _name_axes(axes: Axes, label_space: LabelSpace) -> None:
    """Class names on both axes, each with a square of its colour between the name and the cells."""
    from matplotlib.transforms import offset_copy

    positions, small = range(label_space.num_classes), 0.6 if label_space.num_classes > MANY else 1.0
    axes.set_xticks(positions, label_space.classes, rotation=90)
    axes.set_yticks(positions, label_space.classes)
    axes.tick_params(which="major", pad=17 * small, labelsize=10 * small)
    axes.set_xlabel("prediction", fontsize=12)
    axes.set_ylabel("label", fontsize=12)
    axes.set_title("where the pixels of each class went, in percent", fontsize=12, loc="left", pad=10)
    figure = axes.get_figure(root=True)
    beside = offset_copy(axes.get_yaxis_transform(), figure, x=-10 * small, units="points")
    below = offset_copy(axes.get_xaxis_transform(), figure, y=-10 * small, units="points")
    zeros, colours = np.zeros(len(positions)), np.array(label_space.palette) / 255
    for x, y, transform in ((zeros, positions, beside), (positions, zeros, below)):
        axes.scatter(
            x, y, s=(8 * small) ** 2, c=colours, marker="s", edgecolors="0.4", transform=transform, clip_on=False
        )


def _row(example: Example, label_space: LabelSpace, width: int) -> np.ndarray:
    """One example: a line with its name and mean IoU, then its four panels of that width."""
    height = max(round(example.image.shape[0] * width / example.image.shape[1]), 1)
    caption = _line([f"{example.name}    mean IoU {_percent(example.mean_iou)} %"], width)
    panels = Image.new("RGB", (caption.shape[1], height + GAP), "white")
    label, prediction = (colourise(mask, label_space) for mask in (example.label, example.prediction))
    for column, panel in enumerate((example.image, label, prediction, error_picture(example))):
        # Colours of classes must not mix into colours of other classes, so only the image is smoothed.
        smooth = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
        resized = Image.fromarray(panel).resize((width, height), smooth)
        panels.paste(resized, (GAP + column * (width + GAP), 0))
    return np.concatenate([caption, np.asarray(panels)])


def error_picture(example: Example) -> np.ndarray:
    """(H, W, 3) uint8: the grey image, brightened, with wrong pixels red and ignored ones dark."""
    grey = np.asarray(Image.fromarray(example.image).convert("L"))
    picture = np.repeat((96 + grey // 2)[..., None], 3, axis=2)
    picture[example.prediction != example.label] = WRONG
    picture[example.label == IGNORE_INDEX] = UNSCORED
    return picture


def _line(texts: Sequence[str], width: int, scale: float = 1.0) -> np.ndarray:
    """A white line over the whole sheet with a text at the left of each column."""
    size = round(max(width // 24, 12) * scale)
    font = ImageFont.load_default(size)
    line = Image.new("RGB", (4 * width + 5 * GAP, round(size * 1.7)), "white")
    draw = ImageDraw.Draw(line)
    for column, text in enumerate(texts):
        at = (GAP + column * (width + GAP), line.height // 2)
        draw.text(at, text, fill=(20, 20, 20), font=font, anchor="lm")
    return np.asarray(line)
