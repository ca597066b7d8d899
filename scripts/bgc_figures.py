"""The figures of a study by scripts/bgc_study.py; scripts/bgc_report.py puts them into its report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hydra.errors import InstantiationException
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image, ImageDraw, ImageFont

from fcnseg import Predictor
from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.inference.overlay import add_legend, colourise
from fcnseg.runs.building import build_data

if TYPE_CHECKING:
    from bgc_runs import Run, Study

# Okabe and Ito's colours, which colour-blind readers tell apart, each with a marker of its own.
LOOKS = {
    "real": ("#000000", "o"),
    "synthetic": ("#8a8a8a", "s"),
    "mixed": ("#e69f00", "^"),
    "finetune": ("#0072b2", "D"),
    "bgc": ("#d55e00", "v"),
    "bgc_then_real": ("#cc79a7", "P"),
}
SPARE = (("#009e73", "X"), ("#56b4e9", "*"), ("#f0e442", "h"))
EXAMPLES = 4
PANEL = 240  # pixels wide


@dataclass(frozen=True)
class Drawn:
    """A figure of the report: the name of its file, and what is said of it."""

    name: str
    heading: str
    caption: str


def draw(study: Study, folder: Path) -> list[Drawn]:
    """Write what can be drawn."""
    drawn = []
    for figure, name, heading, caption in (
        (scores_by_share, "mean_iou", "By amount", "Mean over seeds and one standard deviation."),
        (
            curves,
            "curves",
            "Learning curves",
            "Mean over seeds and one standard deviation, over all phases.",
        ),
        (classes, "classes", "By class", "Bold where the 95 % interval of the difference excludes zero."),
        (examples, "examples", "Examples", "Validation images at even distances, of the first seed with most regimes."),
    ):
        picture = figure(study)
        if picture is not None:
            with replacing(folder / f"{name}.png") as temporary:
                picture.savefig(temporary, dpi=150) if isinstance(picture, Figure) else picture.save(temporary)
            drawn.append(Drawn(f"{name}.png", heading, caption))
    return drawn


def look(study: Study, regime: str) -> tuple[str, str]:
    others = [r for r in study.regimes if r not in LOOKS]
    return LOOKS[regime] if regime in LOOKS else SPARE[others.index(regime) % len(SPARE)]


def scores_by_share(study: Study) -> Figure:
    """A line for each regime; without real images a level one."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for place, regime in enumerate(study.regimes):
        colour, marker = look(study, regime)
        found = [(s, [100 * run.metrics["mean_iou"] for run in study.of(s, regime)]) for s in study.shares]
        found = [(share, values) for share, values in found if values]
        if not found:
            continue
        if regime == "synthetic":
            level(axes, found[0][1], regime, colour)
            continue
        shift = 1.02 ** (place - (len(study.regimes) - 1) / 2)  # bars must not hide each other
        x, means = [100 * share * shift for share, _ in found], [statistics.mean(values) for _, values in found]
        errors = [statistics.stdev(values) if len(values) > 1 else 0 for _, values in found]
        axes.errorbar(
            x, means, errors, color=colour, marker=marker, capsize=3, markersize=6, label=regime, linewidth=1.6
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([100 * share for share in study.shares], [f"{100 * share:g}" for share in study.shares])
    axes.minorticks_off()
    axes.set_xlabel("share of the real training images, %")
    axes.set_ylabel("mean IoU on the validation images, %")
    tidy(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def level(axes: Axes, values: Sequence[float], label: str, colour: str) -> None:
    """What does not depend on the share: mean and deviation over the whole width."""
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0
    axes.axhline(mean, color=colour, linestyle="--", linewidth=1.6, label=label)
    axes.axhspan(mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)


def curves(study: Study) -> Figure:
    shares = list(dict.fromkeys((study.focus, study.shares[0])))
    figure = Figure(figsize=(4.6 * len(shares) + 1.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for axes, share in zip(panels, shares, strict=True):
        for regime in study.regimes:
            curve(axes, study.of(share, regime), regime, *look(study, regime))
        axes.set_title(f"{100 * share:g} % of the real images", fontsize=11, loc="left")
        axes.set_xlabel("optimiser steps")
        axes.set_xlim(left=0)
        tidy(axes)
    panels[0].set_ylabel("mean IoU on the validation images, %")
    handles = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, frameon=False, loc="outside right center")
    return figure


def curve(axes: Axes, runs: Sequence[Run], regime: str, colour: str, marker: str) -> None:
    """Mean and deviation at the steps that all runs have."""
    found = [run.curve() for run in runs]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    if not steps:
        return
    values = 100 * np.array([[points[step] for step in steps] for points in found])
    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1) if len(runs) > 1 else 0
    style = "--" if regime == "synthetic" else "-"
    axes.plot(steps, mean, style, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=regime)
    axes.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.13, linewidth=0)


def classes(study: Study) -> Figure | None:
    """Differences to the real images alone, a row for each regime and a column for each class."""
    found = {r: d[1] for (s, r, against), d in study.differences.items() if (s, against) == (study.focus, "real")}
    if not found:
        return None
    names = ["mean", *study.classes]
    cells = [[d.mean_iou, *d.iou] for d in found.values()]
    values = 100 * np.array([[interval.value for interval in row] for row in cells])
    limit = max(1.0, float(np.nanmax(np.abs(values)))) if not np.isnan(values).all() else 1.0
    figure = Figure(figsize=(1.9 + 0.68 * len(names), 1.9 + 0.42 * len(cells)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            sure = cells[y][x].low > 0 or cells[y][x].high < 0
            colour = "white" if abs(value) > 0.6 * limit else "black"
            weight = "bold" if sure else "normal"
            axes.text(x, y, f"{value:+.1f}", ha="center", va="center", fontsize=8.5, color=colour, weight=weight)
    axes.axvline(0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(found)), list(found))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"IoU less that of `real`, {100 * study.focus:g} % of the real images", fontsize=11, loc="left")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("points of IoU")
    bar.outline.set_visible(False)
    return figure


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def examples(study: Study) -> Image.Image | None:
    """Image, label and what each regime makes of it, a row for each of a few validation images."""
    runs = runs_of_one_seed(study)
    try:
        dataset = build_data(OmegaConf.load(runs[0].phases[-1] / "config.yaml"), train=False).val
        predictors = [Predictor.from_pretrained(run.phases[-1] / "checkpoints" / "last.ckpt") for run in runs]
    except (InputError, InstantiationException) as error:  # a report may be written where the data are not
        print(f"no pictures of examples: {error.__cause__ or error}")
        return None
    space = dataset.label_space
    chosen = [int((i + 0.5) * len(dataset) / EXAMPLES) for i in range(min(EXAMPLES, len(dataset)))]
    rows = []
    for image, mask, _ in (dataset[i] for i in chosen):
        masks = [predictor(image, scaled=True).mask for predictor in predictors]
        rows.append([image, colourise(mask, space), *(colourise(found, space) for found in masks)])
    return add_legend(grid(["image", "label", *(run.regime for run in runs)], rows), space)


def runs_of_one_seed(study: Study) -> list[Run]:
    """Of the seed that has most regimes at the share in focus, the first where several have."""
    at = {
        seed: [run for r in study.regimes for run in study.of(study.focus, r) if run.seed == seed]
        for seed in study.facts["seeds"]
    }
    return max(at.values(), key=len)


def grid(headings: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """(H, W, 3) uint8 pictures in rows, with a heading over each column."""
    height = round(PANEL * rows[0][0].shape[0] / rows[0][0].shape[1])
    gap, top = 6, 28
    sheet = Image.new("RGB", (len(headings) * (PANEL + gap) - gap, top + len(rows) * (height + gap)), "white")
    for column, heading in enumerate(headings):
        at = (column * (PANEL + gap) + 2, top // 2)
        ImageDraw.Draw(sheet).text(at, heading, fill=(20, 20, 20), font=ImageFont.load_default(16), anchor="lm")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            smooth = Image.Resampling.LANCZOS if x == 0 else Image.Resampling.NEAREST
            panel = Image.fromarray(picture).resize((PANEL, height), smooth)
            sheet.paste(panel, (x * (PANEL + gap), top + y * (height + gap)))
    return sheet
