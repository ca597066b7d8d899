"""Run a model over a validation set, and write what there is to know about it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation.comparison import save_matrices
from fcnseg.evaluation.confusion import confusion_matrices
from fcnseg.evaluation.metrics import scores, to_dict
from fcnseg.evaluation.protocol import Protocol
from fcnseg.evaluation.report import Example, print_table, save_confusion, save_examples, write_json
from fcnseg.evaluation.showing import score_table
from fcnseg.inference import Predictor
from fcnseg.inference.exported import Exported
from fcnseg.inference.predictor import label_space_of, numbered
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN
from fcnseg.silence import is_silent
from fcnseg.views import percent, view

UNLABELLED = "validation: no image has a labelled pixel, so there is nothing to score"

Scored = tuple[list[str], np.ndarray]
"""The names of a batch's images, and their confusion matrices."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        per_image: (images, C, C) int64 pixel counts, rows = labels, columns = predictions.
        names: of the images.
        label_space: of the classes, where it is known; it names them in notebooks.
    """

    per_image: np.ndarray
    names: tuple[str, ...]
    label_space: LabelSpace | None = None

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int64 pixel counts of all images together."""
        return self.per_image.sum(axis=0)

    @cached_property
    def mean_iou(self) -> np.ndarray:
        """(images,) mean IoU of each image, nan for one without labelled pixels."""
        return np.array([scores(matrix).mean_iou for matrix in self.per_image])

    def _repr_html_(self) -> str:
        """The table of scores, in notebooks."""
        space = self.label_space or numbered(self.per_image.shape[-1])
        found = to_dict(scores(self.confusion), space)
        title = f"mean IoU {percent(found['mean_iou'])} % on {len(self.names)} images"
        return view(title, score_table(found, space.palette))


def evaluate(model: FCN | Exported, loader: Iterable[dict[str, Any]]) -> Evaluation:
    """Score a model, with every mask in its own size.

    Args:
        model: on the device to use, or an exported one; put into evaluation mode for the time of the call.
        loader: `SegmentationData.validation_loader()`.

    Raises:
        InputError: when no image has a labelled pixel.
    """
    found = collected(score_batches(model, loader), length_hint(loader))
    return replace(found, label_space=label_space_of(model))


def collected(batches: Iterable[Scored], number: int = 0) -> Evaluation:
    """What `score_batches` has found of a validation set, together; shows a bar meanwhile.

    Args:
        batches: in order.
        number: of batches, where it is known; 0: not.

    Raises:
        InputError: when no image has a labelled pixel.
    """
    bar = track(batches, description="evaluating", total=number or None, transient=True, disable=is_silent())
    names, matrices = zip(*bar, strict=True)
    per_image = np.concatenate(matrices)
    if not per_image.any():
        raise InputError(UNLABELLED)
    return Evaluation(per_image, tuple(chain(*names)))


@torch.inference_mode()
def score_batches(model: FCN | Exported, loader: Iterable[dict[str, Any]]) -> Iterator[Scored]:
    """The names of each batch's images, and their (N, C, C) int64 confusion matrices; arguments as of `evaluate`."""
    device = model.device
    was_training = isinstance(model, FCN) and model.training
    if isinstance(model, FCN):
        model.eval()
    for batch in loader:
        masks = [mask.to(device) for mask in batch["mask"]]
        sizes = [mask.shape for mask in masks]
        predictions = model.segment_each(batch["image"].to(device), sizes, batch.get("shown"))
        yield list(batch["name"]), confusion_matrices(predictions, masks, model.spec.num_classes).cpu().numpy()
    if was_training:
        model.train()  # type: ignore[union-attr]


def write_report(
    evaluation: Evaluation,
    model: FCN | Exported,
    data: SegmentationData,
    folder: Path,
    facts: dict[str, Any],
    examples: int = 3,
    protocol: Protocol | None = None,
) -> None:
    """Print the table; write pictures (all confusions; the worst and best images), confusions.npz and metrics.json.

    Args:
        facts: further entries for metrics.json, such as the checkpoint.
        examples: how many of the worst and of the best images to show.
        protocol: which classes are reported; by default all.

    Raises:
        InputError: when the protocol is for other classes than the data's.
    """
    columns = {} if protocol is None else protocol.reported(data.label_space)
    found = scores(evaluation.confusion, next(iter(columns.values()), None))
    means = {name: scores(evaluation.confusion, classes).mean_iou for name, classes in columns.items()}
    title = f"{len(evaluation.names)} images" + (f", {protocol.name}" if protocol else "")
    print_table(found, data.label_space, title=title, means=means)
    if protocol is not None:
        told = {"name": protocol.name, "source": protocol.source}
        known = {name: None if math.isnan(mean) else mean for name, mean in means.items()}
        facts = facts | {"protocol": told | {"mean_iou": known}}
    save_confusion(evaluation.confusion, data.label_space, folder / "confusion.png")
    order = [int(i) for i in np.argsort(evaluation.mean_iou) if not np.isnan(evaluation.mean_iou[i])]
    half = (len(order) + 1) // 2
    worst, best = (spread(part, examples, len(order)) for part in (order[:half], order[half:][::-1]))
    if order:
        indices = sorted({*worst, *best})
        shown = dict(zip(indices, examples_of(indices, evaluation, model, data), strict=True))
        save_examples([shown[i] for i in worst], [shown[i] for i in best], data.label_space, folder / "examples.png")
    save_matrices(evaluation.names, evaluation.per_image, folder / "confusions.npz")
    # Last: a folder with metrics.json is a finished one.
    write_json(folder / "metrics.json", to_dict(found, data.label_space) | {"images": len(evaluation.names)} | facts)


def spread(order: Sequence[int], count: int, images: int) -> list[int]:
    """The first of an order of images that are no near neighbours, as frames of one scene are.

    Args:
        order: indices of images.
        count: how many, at most.
        images: how many there are in all; neighbours are nearer than a part of them, the smaller the more are wanted.
    """
    chosen: list[int] = []
    for index in order:
        if len(chosen) < count and all(abs(index - other) > images // (4 * count) for other in chosen):
            chosen.append(index)
    return chosen


def examples_of(
    indices: Iterable[int], evaluation: Evaluation, model: FCN | Exported, data: SegmentationData
) -> Iterator[Example]:
    """Images of the validation set with label, prediction and IoU, one after another, by their places in it."""
    predictor = Predictor(model, device=str(model.device))
    for index in indices:
        image, mask, name = data.val[index]
        found = predictor(image, scaled=True)
        yield Example(name, found.image, mask, found.mask, float(evaluation.mean_iou[index]))
