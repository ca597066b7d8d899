"""The report of one run: report.html in its folder, made of what else is there."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcnseg.errors import InputError
from fcnseg.evaluation import load_matrices, scores
from fcnseg.labels import LabelSpace
from fcnseg.reports.charts import Chart, chart
from fcnseg.reports.files import Curve, RunFiles, flatten, read_run
from fcnseg.reports.gallery import PANELS, load_gallery, within
from fcnseg.reports.tables import class_rows, confusions, css_colour, data_uri, pairs
from fcnseg.reports.writing import PICTURE_BYTES, as_yaml, duration, number, setting, write

FILE = "report.html"
IMAGES = 24
"""Images of a report, where nothing else is said."""

MEANS = {
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
}

SETTINGS = {
    "checkpoint": "checkpoint",
    "protocol.name": "protocol",
    "model.name": "network",
    "model.width": "width",
    "model.weights": "weights",
    "data.root": "data",
    "data.size": "size",
    "data.batch_size": "batch",
    "data.mixing": "mixing",
    "loss._target_": "loss",
    "optimizer._target_": "optimizer",
    "optimizer.lr": "rate",
    "scheduler._target_": "schedule",
    "precision": "precision",
    "trainer.precision": "precision",
    "trainer.max_epochs": "epochs",
    "trainer.max_steps": "steps at most",
    "seed": "seed",
}
"""What is told of the settings before all of them, and how it is called."""


def write_page(folder: Path, path: Path | None = None, images: int = IMAGES) -> Path:
    """Write the report of a training or an evaluation, finished or not; returns its path.

    Args:
        folder: of the run.
        path: of the page; by default report.html in the folder.
        images: how many to show at most, out of those that are kept; fewer where the page would grow too large.

    Raises:
        InputError: when the folder holds no run, or one of its files is damaged.
    """
    run = read_run(folder)
    return write("run.html", path or folder / FILE, **page_of(run, images))


def page_of(run: RunFiles, images: int) -> dict[str, Any]:
    """What the template is told of a run."""
    space = run.label_space() if run.classes else None
    kept = matrices_of(run)
    matrices = kept and kept[1]
    found = {} if space is None else _scores(run, matrices, space)
    gallery = gallery_of(run.scored, images)
    return found | {
        "name": str(run.config.get("name") or run.folder.absolute().name),
        "kind": "training" if run.trained else "evaluation",
        "metrics": run.metrics,
        "means": {label: run.metrics.get(key) for key, label in MEANS.items()},
        "folder": str(run.folder.absolute()),
        "sessions": run.sessions,
        "facts": [*_settings(run.config), *_totals(run)],
        "config": as_yaml(run.config) if run.config else "",
        "domains": list(_domains(run)),
        "charts": [*charts_of(run.curves), *_of_images(matrices)],
        "calibration": run.calibration,
        "reliability": _reliability(run.calibration),
        "gallery": gallery,
        "examples": _examples(run.scored / "examples.png") if images and gallery is None else "",
    }


def matrices_of(run: RunFiles) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Names and (images, C, C) confusion matrices of the validation images; None where there are none."""
    path = run.scored / "confusions.npz"
    if not path.is_file():
        return None
    names, matrices = load_matrices(path)
    if run.classes and matrices.shape[1] != len(run.classes):
        raise InputError(f"{path}: of {matrices.shape[1]} classes; metrics.json has {len(run.classes)}")
    return names, matrices


def charts_of(curves: dict[str, list[Curve]]) -> Iterator[Chart]:
    """Every column of metrics.csv in one of a few charts."""
    left = dict(curves)

    def taken(*names: str, prefix: str = "") -> dict[str, list[Curve]]:
        chosen = [name for name in left if name in names or (prefix and name.startswith(prefix))]
        return {name: left.pop(name) for name in sorted(chosen)}

    scored = taken(*(f"val/{key}" for key in MEANS))
    groups = {
        "Loss": taken("train/loss", "train/loss_adaptation", "val/loss"),
        "Loss of each domain": taken(prefix="train/loss_"),
        "Scores on the validation images, %": {name: in_percent(parts) for name, parts in scored.items()},
        "Learning rates": taken(prefix="lr-"),
        "Gradients of the domains: norms": taken(prefix="gradient/norm"),
        "Gradients of the domains: cosines": taken(prefix="gradient/"),
        "What else was logged": left,
    }
    yield from filter(None, (chart(title, group) for title, group in groups.items()))


def in_percent(parts: list[Curve]) -> list[Curve]:
    return [(steps, 100 * values) for steps, values in parts]


def gallery_of(folder: Path, images: int) -> dict[str, Any] | None:
    """Pictures of a run as a template takes them; None where none are kept or wanted."""
    gallery = load_gallery(folder)
    chosen = within(gallery.pictures, images, PICTURE_BYTES) if gallery else []
    if gallery is None or not chosen:
        return None
    space, present = gallery.label_space, {index for picture in chosen for index in picture.classes}
    shown = [
        {
            "name": picture.name,
            "mean_iou": picture.mean_iou,
            "rank": picture.rank,
            "panels": {panel: data_uri(picture.panels[panel], kind) for panel, kind in PANELS.items()},
        }
        for picture in chosen
    ]
    legend = [(space.classes[i], css_colour(space.palette[i])) for i in range(space.num_classes) if i in present]
    return {"images": gallery.images, "classes": legend, "pictures": shown}


def _scores(run: RunFiles, matrices: np.ndarray | None, space: LabelSpace) -> dict[str, Any]:
    counts = None if matrices is None else matrices.sum(axis=0)
    return {
        "classes": class_rows(run.metrics, matrices, space),
        "confusions": [] if counts is None else confusions(counts),
        "pairs": [] if counts is None else pairs(counts, space.classes),
    }


def _domains(run: RunFiles) -> Iterator[dict[str, Any]]:
    """The training domains: how many images there are, how many were seen, and the last loss."""
    samples = {name: told for session in run.sessions for name, told in session.get("data", {}).items()}
    seen = run.metrics.get("images_seen", {})
    for name in dict.fromkeys([*samples, *seen]):
        if name == "val":
            continue
        losses = run.curves.get(f"train/loss_{name}") or []
        yield {
            "name": name,
            "samples": samples.get(name, {}).get("samples"),
            "seen": seen.get(name),
            "loss": float(losses[-1][1][-1]) if losses else None,
        }


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    flat = flatten(config)
    for key, name in SETTINGS.items():
        if (value := flat.get(key)) not in (None, -1):
            yield name, setting(value.rpartition(".")[2] if key.endswith("_target_") else value)


def _totals(run: RunFiles) -> Iterator[tuple[str, str]]:
    """How much was trained in what time and memory, as far as it is recorded."""
    metrics = run.metrics
    if "step" in metrics:
        yield "steps", number(metrics["step"])
    if seen := sum(metrics.get("images_seen", {}).values()):
        yield "images seen", number(seen)
    if seconds := metrics.get("train_seconds"):
        yield "time", duration(seconds)
        if seen and len(run.sessions) <= max(len(run.stages), 1):  # of the last session alone otherwise
            yield "images/s, with validation", f"{seen / seconds:.3g}"
    for where, size in metrics.get("peak_memory", {}).items():
        yield f"most memory, {where}, of one process", f"{size / 1e9:.2f} GB"


def _of_images(matrices: np.ndarray | None) -> Iterator[Chart]:
    """The IoU of all images in order: whether a mean is of alike images, or of good and bad ones."""
    if matrices is None:
        return
    found = np.sort([scores(matrix).mean_iou for matrix in matrices])
    found = found[~np.isnan(found)]
    if len(found) > 1:
        curve = (np.arange(1.0, len(found) + 1), 100 * found)
        yield from filter(None, [chart("Mean IoU of each image, %, from the worst on", {"images": [curve]}, x="image")])


def _reliability(calibration: dict[str, Any]) -> list[Chart]:
    if not calibration:
        return []
    accuracy, shares = {}, {}
    for key, name in (("bins_before", "before"), ("bins_after", f"T = {calibration['temperature']:.2f}")):
        bins = calibration[key]
        filled = [i for i, pixels in enumerate(bins["pixels"]) if pixels]
        confidence, right = (np.array([bins[what][i] for i in filled]) for what in ("confidence", "accuracy"))
        accuracy[name] = [(confidence, right)]
        pixels = np.array(bins["pixels"], float)
        shares[name] = [((np.arange(len(pixels)) + 0.5) / len(pixels), 100 * pixels / pixels.sum())]
    unit = (0.0, 1.0, 0.0, 1.0)
    drawn = chart("Accuracy over confidence", accuracy, x="confidence", bounds=unit, diagonal=True)
    spread = chart("Pixels, %, over confidence", shares, x="confidence")
    return [each for each in (drawn, spread) if each]


def _examples(path: Path) -> str:
    """examples.png as a data URI of a smaller JPEG, for a run that kept no gallery; empty without it."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            shrunk = picture.convert("RGB")
        shrunk.thumbnail((1600, 16000))
        shrunk.save(buffer, "jpeg", quality=85)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    return data_uri(buffer.getvalue(), "jpeg")
