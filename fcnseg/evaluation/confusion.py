"""The confusion matrix of predictions and labels, counted on the device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fcnseg.labels import IGNORE_INDEX


def confusion_matrices(predictions: Sequence[Tensor], labels: Sequence[Tensor], classes: int) -> Tensor:
    """(N, classes, classes) int64 pixel counts of N images, rows = labels, columns = predictions, on their device.

    Ignored pixels do not count. It is one count of integers for all of them, exact and the same with
    `deterministic=true`, where torchmetrics compares every pixel with every cell of the matrix instead and needs
    gigabytes for one mask.

    Args:
        predictions: of any shapes, values from 0 to classes - 1.
        labels: of the same shapes, values from 0 to classes - 1, or 255 where ignored.
    """
    cells = classes * classes + 1  # the last is for ignored pixels
    found = [
        (torch.where(label == IGNORE_INDEX, cells - 1, label.long() * classes + prediction) + number * cells).flatten()
        for number, (prediction, label) in enumerate(zip(predictions, labels, strict=True))
    ]
    counts = torch.bincount(torch.cat(found), minlength=cells * len(found)).view(len(found), cells)
    return counts[:, :-1].unflatten(1, (classes, classes))


class ConfusionMatrix(Metric):
    """`confusion_matrices` added up over images, updates and processes, as a metric of torchmetrics."""

    full_state_update = False
    counts: Tensor

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, matrices: Tensor) -> None:
        """Add (N, classes, classes) counts of N images, as `confusion_matrices` gives them."""
        self.counts += matrices.sum(dim=0)

    def compute(self) -> Tensor:
        return self.counts
