"""The report of several runs: where their settings differ, their curves over one another, their scores side by side."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import InputError
from fcnseg.evaluation import Comparison, Interval, paired_bootstrap, scores
from fcnseg.reports.charts import Chart, chart
from fcnseg.reports.files import RunFiles, read_run
from fcnseg.reports.gallery import Picture, load_gallery
from fcnseg.reports.run_page import IMAGES, MEANS, in_percent, matrices_of
from fcnseg.reports.tables import css_colour, data_uri
from fcnseg.reports.writing import PICTURE_BYTES, setting, write

LISTED = 10
"""Images that are told of the largest wins, and of the largest losses."""

MOST_DOTS = 2000
"""Images in a picture of all; of more, so many are drawn, evenly in their order."""

PLACES = ("folder", "name", "report", "hydra")
"""Settings that say where a run lies and what it writes about itself, and not what it is."""

MISSING = object()
"""For the value of a setting that a run does not have."""


@dataclass(frozen=True, eq=False)
class Pairing:
    """Two runs on the same images.

    Attributes:
        names: (images,) of them.
        matrices: (2, images, C, C) confusion matrices, the first run's and the other's.
    """

    names: tuple[str, ...]
    matrices: np.ndarray

    def iou(self) -> np.ndarray:
        """(2, images) mean IoU, nan where an image has none."""
        return np.array([[scores(matrix).mean_iou for matrix in each] for each in self.matrices])


def write_comparison(folders: Sequence[Path], path: Path, images: int = IMAGES) -> Path:
    """Write a page about several runs, each compared with the first; returns its path.

    Args:
        folders: of two runs or more.
        path: of the page.
        images: of which the pictures are shown at most, where both runs have kept them.

    Raises:
        InputError: when a folder holds no run, a file is damaged, or a folder is named twice.
    """
    places = [folder.resolve() for folder in folders]
    if twice := [folder for number, folder in enumerate(folders) if places[number] in places[:number]]:
        raise InputError(f"{twice[0]}: named twice; expected the folders of different runs")
    runs = [read_run(folder) for folder in folders]
    return write("comparison.html", path, **page_of(runs, images))


def page_of(runs: Sequence[RunFiles], images: int) -> dict[str, Any]:
    """What the template is told of the runs."""
    labels = short_names([run.folder for run in runs])
    others = list(zip(labels[1:], runs[1:], strict=True))
    compared = [against(runs[0], run, label, images // max(len(others), 1)) for label, run in others]
    return {
        "labels": labels,
        "folders": [str(run.folder.absolute()) for run in runs],
        "commands": [run.sessions[0].get("command", "") if run.sessions else "" for run in runs],
        "totals": list(_totals(runs)),
        "settings": differing(runs),
        "charts": list(overlaid(runs, labels)),
        "classes": _classes(runs, compared),
        "compared": compared,
    }


def short_names(folders: Sequence[Path]) -> list[str]:
    """The runs by the parts of their paths that are not those of all."""
    absolute = [folder.absolute() for folder in folders]
    common = Path(os.path.commonpath(absolute))
    return [str(folder.relative_to(common)) if folder != common else folder.name for folder in absolute]


def differing(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Each setting that is not the same in all runs that tell theirs, and its value in each; a dash for none."""
    found = []
    for key, values in _different([run.config for run in runs if run.config]):
        left = iter(values)
        found.append((key, [_told(next(left)) if run.config else "-" for run in runs]))
    return found


def _different(values: Sequence[Any], key: str = "") -> Iterator[tuple[str, Sequence[Any]]]:
    """Dotted key and values of what differs; of mappings what differs in them, where all are some."""
    if values and all(isinstance(value, dict) for value in values):
        for name in dict.fromkeys(name for value in values for name in value):
            if key or name not in PLACES:
                yield from _different([value.get(name, MISSING) for value in values], f"{key}.{name}".lstrip("."))
    elif any(value != values[0] for value in values):
        yield key, values


def _told(value: Any) -> str:
    """A value in short: of what is built from a class, the class."""
    if value is MISSING:
        return "-"
    target = value.get("_target_") if isinstance(value, dict) else None
    return setting(value) if target is None else str(target).rpartition(".")[2]


def overlaid(runs: Sequence[RunFiles], labels: Sequence[str]) -> Iterator[Chart]:
    """A chart for each column of the logs that two runs have, with a line for each run."""
    columns = dict.fromkeys(column for run in runs for column in run.curves)
    shared = [column for column in columns if sum(column in run.curves for run in runs) > 1]
    order = ["val/mean_iou", "val/loss", "train/loss", *(f"val/{key}" for key in MEANS)]
    for column in sorted(shared, key=lambda name: (order.index(name) if name in order else len(order), name)):
        share = column.removeprefix("val/") in MEANS
        parts = [run.curves.get(column, []) for run in runs]
        curves = dict(zip(labels, map(in_percent, parts) if share else parts, strict=True))
        if drawn := chart(f"{column}, %" if share else column, curves):
            yield drawn


def pair(one: RunFiles, other: RunFiles) -> Pairing | str:
    """Bring the images of two runs together, or say why that is not possible."""
    kept, others_kept = matrices_of(one), matrices_of(other)
    if kept is None or others_kept is None:
        return "one of the two has no confusions.npz"
    if one.classes != other.classes:
        return "they are of other classes"
    (names, first), (others, second) = kept, others_kept
    if names != others:
        if len(set(names)) < len(names) or len(set(others)) < len(others):
            return "they are of other images, of which some have one name"
        places = {name: place for place, name in enumerate(others)}
        common = [place for place, name in enumerate(names) if name in places]
        second = second[[places[names[place]] for place in common]]
        first, names = first[common], tuple(names[place] for place in common)
    if not names:
        return "they have no image in common"
    if not np.array_equal(first.sum(axis=2), second.sum(axis=2)):
        return "the labels of their images differ"
    return Pairing(names, np.stack([first, second]))


def against(base: RunFiles, run: RunFiles, label: str, images: int) -> dict[str, Any]:
    """What there is to say of a run beside the first: differences with intervals, and image by image."""
    found = pair(base, run)
    if isinstance(found, str):
        return {"label": label, "reason": found, "difference": None}
    difference = paired_bootstrap(found.matrices[0][None], found.matrices[1][None])
    iou = found.iou()
    known = np.flatnonzero(~np.isnan(iou).any(axis=0))
    gain = iou[1, known] - iou[0, known]
    order = [int(known[i]) for i in np.argsort(-gain, kind="stable")]
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    lines = [{"name": found.names[i], "before": iou[0, i], "after": iou[1, i]} for i in order]
    return {
        "label": label,
        "reason": "",
        "difference": difference,
        "images": len(found.names),
        "wins": wins,
        "losses": losses,
        "ties": len(order) - wins - losses,
        "won": lines[: min(LISTED, wins)],
        "lost": lines[::-1][: min(LISTED, losses)],
        "dots": list(_dots(found.names, iou, known)),
        "pictures": list(_pictures(base, run, dict(zip(found.names, iou.T.tolist(), strict=True)), images)),
    }


def _dots(names: Sequence[str], iou: np.ndarray, known: np.ndarray) -> Iterator[tuple[float, float, str]]:
    """(x, y, what it is) of images in a square of 300 units: the first run's IoU over x, the other's over y."""
    for i in known[:: -(-len(known) // MOST_DOTS) or 1]:
        first, second = iou[:, i].tolist()
        yield (
            round(40 + 300 * first, 1),
            round(310 - 300 * second, 1),
            f"{names[i]}: {100 * first:.1f} %, {100 * second:.1f} %",
        )


def _pictures(base: RunFiles, run: RunFiles, iou: dict[str, list[float]], images: int) -> Iterator[dict[str, Any]]:
    """Images that both runs have kept pictures of, those first whose IoU differs most."""
    galleries = [load_gallery(each.scored) for each in (base, run)]
    kept: list[dict[str, Picture]] = [{p.name: p for p in gallery.pictures} if gallery else {} for gallery in galleries]
    shared = [name for name in kept[0] if name in kept[1] and name in iou]
    shared.sort(key=lambda name: -abs(iou[name][1] - iou[name][0]))
    left = PICTURE_BYTES
    for name in shared[:images]:
        one, other = kept[0][name].panels, kept[1][name].panels
        panels = {"image": ("jpeg", one["image"]), "label": ("png", one["label"])}
        panels |= {"first run": ("png", one["prediction"]), "this run": ("png", other["prediction"])}
        if (left := left - sum(len(content) for _, content in panels.values())) < 0:
            return
        before, after = iou[name]
        uris = {panel: data_uri(content, kind) for panel, (kind, content) in panels.items()}
        yield {"name": name, "before": before, "after": after, "panels": uris}


def _totals(runs: Sequence[RunFiles]) -> Iterator[tuple[str, list[float | None], str]]:
    """(what, each run's, the filter that shows it), as far as a run has it."""
    for key, label in MEANS.items():
        yield f"{label} %", [run.metrics.get(key) for run in runs], "percent"
    for key, label in {"images": "images", "step": "steps", "train_seconds": "training time"}.items():
        values = [run.metrics.get(key) for run in runs]
        if any(value is not None for value in values):
            yield label, values, "duration" if key == "train_seconds" else "number"


def _classes(runs: Sequence[RunFiles], compared: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each class of any run: its colour, IoU in each run, and the interval of each difference."""
    names = dict.fromkeys(name for run in runs for name in run.classes)
    spaces = [run.label_space() for run in runs if run.classes]
    colours = {name: css_colour(c) for s in reversed(spaces) for name, c in zip(s.classes, s.palette, strict=True)}
    return [
        {
            "name": name,
            "colour": colours[name],
            "iou": [run.metrics.get("classes", {}).get(name, {}).get("iou") for run in runs],
            "differences": [_of_class(each["difference"], runs[0].classes, name) for each in compared],
        }
        for name in names
    ]


def _of_class(difference: Comparison | None, classes: Sequence[str], name: str) -> Interval | None:
    return None if difference is None or name not in classes else difference.iou[classes.index(name)]
