"""Losses over masks with ignored pixels, and the class weights that go with them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX

CLASS_WEIGHTS = ("none", "median_frequency", "sqrt_median_frequency")
REDUCTIONS = ("mean", "sum")


class CrossEntropy(nn.Module):
    """Cross-entropy per pixel, averaged or summed over the pixels that are not ignored.

    The two differ by a factor: the gradient of the sum is that of the mean times the labelled pixels of the
    batch (with class weights, times the sum of their weights). Learning rates go the other way: the 1e-10 with
    which the reference trains on sums is at 500x500 labelled pixels what 2.5e-5 is on means.

    Args:
        class_weights: "none"; "median_frequency" (Eigen and Fergus, ICCV 2015, section 6.3.2: the median
            of the class frequencies over each class's own); or its square root, a milder balance.
        class_pixels: gives (num_classes, 2) pixels per class, and pixels of the images that show it;
            called only for weights other than "none".
        reduction: "mean", or "sum" over all pixels of the batch, as in the reference's heavy learning
            (Shelhamer, Long and Darrell, PAMI 2016, section 4.2; `normalize: false` in its networks).

    Raises:
        InputError: for an unknown weighting or reduction.
    """

    def __init__(
        self,
        class_weights: str = "none",
        class_pixels: Callable[[], np.ndarray] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if class_weights not in CLASS_WEIGHTS:
            raise InputError(f"class_weights {class_weights!r}: expected one of {', '.join(CLASS_WEIGHTS)}")
        if reduction not in REDUCTIONS:
            raise InputError(f"reduction {reduction!r}: expected one of {', '.join(REDUCTIONS)}")
        self.reduction = reduction
        weights = None
        if class_weights != "none":
            if class_pixels is None:
                raise InputError(f"class_weights {class_weights!r} needs class_pixels")
            balanced = median_frequency_weights(class_pixels())
            weights = balanced.sqrt() if class_weights.startswith("sqrt") else balanced
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W) logits and (N, H, W) int64 mask to a scalar; 0 where every pixel is ignored."""
        return self.sum(logits, mask) if self.reduction == "sum" else self.mean(logits, mask)

    def sum(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum over the pixels, whatever the reduction."""
        return F.cross_entropy(logits, mask, self.weights, ignore_index=IGNORE_INDEX, reduction="sum")

    def mean(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted mean over the pixels, whatever the reduction; comparable between images of any size."""
        # Everything stays on the device: reading the weight would make each step wait for the one before it.
        kept = mask != IGNORE_INDEX
        weight = kept.sum() if self.weights is None else (self.weights[mask * kept] * kept).sum()
        total = self.sum(logits, mask)
        return total / weight.to(total.dtype).clamp(min=1e-12)


def median_frequency_weights(class_pixels: np.ndarray) -> Tensor:
    """(num_classes, 2) pixel counts to (num_classes,) weights; 0 for a class that never appears."""
    frequency = class_pixels[:, 0] / np.maximum(class_pixels[:, 1], 1)
    present = frequency > 0
    if not present.any():
        raise InputError("class weights: no labelled pixel in the training data")
    weights = np.where(present, np.median(frequency[present]) / np.maximum(frequency, 1e-12), 0)
    return torch.tensor(weights, dtype=torch.float32)
