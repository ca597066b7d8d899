"""The confusion matrix of predictions and labels, counted on the device."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fcnseg.labels import IGNORE_INDEX


def confusion_matrix(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64 pixel counts, rows = labels, columns = predictions; ignored pixels do not count.

    One count of integers, exact and the same with `deterministic=true`, where torchmetrics compares every pixel with
    every cell of the matrix instead and needs gigabytes for one mask.

    Args:
        prediction: of any shape, values from 0 to classes - 1.
        label: of the same shape, values from 0 to classes - 1, or 255 where ignored.
    """
    cell = torch.where(label == IGNORE_INDEX, classes * classes, label.long() * classes + prediction)
    counts = torch.bincount(cell.flatten(), minlength=classes * classes + 1)
    return counts[:-1].view(classes, classes)


class ConfusionMatrix(Metric):
    """`confusion_matrix` added up over updates and processes, as a metric of torchmetrics."""

    full_state_update = False
    counts: Tensor

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, label: Tensor) -> None:
        self.counts += confusion_matrix(prediction, label, self.classes)

    def compute(self) -> Tensor:
        return self.counts
