"""Segmentation scores, all derived from one confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnseg.labels import LabelSpace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scores:
    """The four scores of Long, Shelhamer and Darrell (CVPR 2015, section 5), and each class's own.

    All scores lie in 0 to 1. With n_ij the pixels of class i predicted as class j and t_i those of class i:

    Attributes:
        pixel_accuracy: sum n_ii / sum t_i.
        mean_accuracy: the mean of `accuracy` over the classes that have label pixels.
        mean_iou: the mean of `iou` over the classes that occur in the label or in the prediction.
        frequency_weighted_iou: sum t_i iou_i / sum t_i.
        iou: n_ii / (t_i + sum_j n_ji - n_ii) per class. It is 0 for a class that is predicted but never
            labelled, which counts in the mean, and nan for one that occurs in neither, which does not.
        accuracy: n_ii / t_i per class; nan for a class without label pixels.
        pixels: t_i, the label pixels of each class.
        reported: the classes i that the four scores are sums and means over; None: all of them. `iou` and `accuracy`
            are those of every class, and predictions of classes that are not reported are errors, see `scores`.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    pixels: tuple[int, ...]
    reported: tuple[int, ...] | None = None


def scores(confusion: torch.Tensor | np.ndarray, reported: Sequence[int] | None = None) -> Scores:
    """Compute the scores of a (C, C) matrix of pixel counts; rows are labels, columns predictions.

    The means follow the reference's score.py, which takes nanmean over the classes with a union. A matrix
    without any pixel gives nan everywhere.

    Args:
        confusion: the matrix.
        reported: indices of the classes that the four scores are over; None: all. Every class's own scores are of the
            whole matrix: a pixel of a reported class that is predicted as another one is missed, and one of another
            class that is predicted as a reported one is a false alarm, as where tables report 16 of 19 classes.

    Raises:
        ValueError: when the matrix is not square or has a negative entry, or no such class is there to report.
    """
    counts = as_counts(confusion)
    hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = divide(hits, labelled + predicted - hits)
    accuracy = divide(hits, labelled)
    if reported is not None and (not reported or not 0 <= min(reported) <= max(reported) < len(counts)):
        raise ValueError(f"reported classes {list(reported)}: expected indices from 0 to {len(counts) - 1}")
    shown = np.arange(len(counts)) if reported is None else np.array(sorted(set(reported)))
    total = labelled[shown].sum()
    # A class without label pixels weighs nothing, and its IoU may be nan.
    weighted = np.nansum((labelled * iou)[shown])
    return Scores(
        pixel_accuracy=float(divide(hits[shown].sum(), total)),
        mean_accuracy=_mean_of_present(accuracy[shown]),
        mean_iou=_mean_of_present(iou[shown]),
        frequency_weighted_iou=float(divide(weighted, total)),
        iou=tuple(iou.tolist()),
        accuracy=tuple(accuracy.tolist()),
        pixels=tuple(int(n) for n in labelled),
        reported=None if reported is None else tuple(shown.tolist()),
    )


def as_counts(confusion: torch.Tensor | np.ndarray) -> np.ndarray:
    """A (C, C) confusion matrix from any device as float64.

    Raises:
        ValueError: when the matrix is not square or has a negative entry.
    """
    on_cpu = confusion.cpu() if hasattr(confusion, "cpu") else confusion
    counts = np.asarray(on_cpu, dtype=np.float64)
    if counts.ndim == 0:
        # torchmetrics squeezes the matrix of a single class to a scalar.
        counts = counts.reshape(1, 1)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is (C, C); got shape {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"a confusion matrix holds counts; got {counts.min():g}")
    return counts


def to_dict(scores: Scores, label_space: LabelSpace) -> dict[str, Any]:
    """Scores with class names, fit for JSON: nan becomes None.

    Raises:
        ValueError: when the label space has another number of classes than the scores.
    """
    classes = zip(label_space.classes, scores.iou, scores.accuracy, scores.pixels, strict=True)
    reported = None if scores.reported is None else [label_space.classes[i] for i in scores.reported]
    return {
        "pixel_accuracy": _or_none(scores.pixel_accuracy),
        "mean_accuracy": _or_none(scores.mean_accuracy),
        "mean_iou": _or_none(scores.mean_iou),
        "frequency_weighted_iou": _or_none(scores.frequency_weighted_iou),
        "classes": {
            name: {"iou": _or_none(iou), "accuracy": _or_none(accuracy), "pixels": pixels}
            for name, iou, accuracy, pixels in classes
        },
    } | ({} if reported is None else {"reported": reported})


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is 0, without a warning."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _mean_of_present(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
