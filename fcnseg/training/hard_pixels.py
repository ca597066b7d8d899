"""Cross-entropies that look to the pixels a network finds hard."""

from typing import Any

import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.training.losses import CrossEntropy, require_number


class Focal(CrossEntropy):
    """Cross-entropy in which a pixel counts by (1 - p) ** gamma, p being the probability of its own class.

    Lin et al., "Focal loss for dense object detection" (ICCV 2017), with softmax in the place of their sigmoid. It is
    divided by what cross-entropy is divided by, so that gamma 0 is cross-entropy.

    Args:
        gamma: from 0 on; the paper's is 2.
        options: those of `CrossEntropy`, but for `label_smoothing`.

    Raises:
        InputError: for another gamma, and as `CrossEntropy` does.
    """

    def __init__(self, gamma: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        require_number("gamma", gamma, 0)
        _refuse_smoothing(self)
        self.gamma = gamma

    def per_pixel(self, logits: Tensor, mask: Tensor) -> Tensor:
        weighted = super().per_pixel(logits, mask)
        missing = 1 - own_probability(logits, mask)
        return weighted * missing.clamp(min=1e-6) ** self.gamma  # 0 has no gradient for a gamma below 1


class HardPixels(CrossEntropy):
    """Cross-entropy over the pixels of each image that cost most: online hard example mining.

    Of each image's n labelled pixels the ceil(share n) that cost most count, and the others not at all (Shrivastava
    et al., CVPR 2016; for segmentation Wu, Shen and van den Hengel, "Bootstrapping very deep FCNs", arXiv 1605.06885,
    who take the hardest pixels of an image as well). The number is fixed by the labels, and the choice made within an
    image, so that the mean over a batch is the same on any number of processes. What costs most is ranked before class
    weights; with these the sum is divided by that share of the weights of all labelled pixels. At share 1 it is
    cross-entropy.

    Args:
        share: of an image's labelled pixels, above 0 up to 1.
        options: those of `CrossEntropy`, but for `label_smoothing`.

    Raises:
        InputError: for another share, and as `CrossEntropy` does.
    """

    def __init__(self, share: float = 0.25, **options: Any) -> None:
        super().__init__(**options)
        require_number("share", share, 1e-6, 1)
        _refuse_smoothing(self)
        self.share = share

    def per_pixel(self, logits: Tensor, mask: Tensor) -> Tensor:
        weighted = super().per_pixel(logits, mask)
        with torch.no_grad():
            ease = own_probability(logits, mask).masked_fill(mask == IGNORE_INDEX, 2).flatten(1)
            order = ease.argsort(dim=1, stable=True)
            first = torch.arange(order.shape[1], device=order.device) < self._counted(mask)[:, None]
            hard = torch.zeros_like(first).scatter(1, order, first)
        return weighted * hard.view_as(mask)

    def weight_per_sample(self, mask: Tensor) -> Tensor:
        labelled, counted = (mask != IGNORE_INDEX).sum(dim=(1, 2)), self._counted(mask)
        if self.weights is None:
            return counted
        return super().weight_per_sample(mask) * counted / labelled.clamp(min=1)

    def _counted(self, mask: Tensor) -> Tensor:
        """(N,) how many pixels of each image count."""
        return ((mask != IGNORE_INDEX).sum(dim=(1, 2)).double() * self.share).ceil().long()


def own_probability(logits: Tensor, mask: Tensor) -> Tensor:
    """(N, H, W) the probability of each pixel's own class; that of class 0 where it is ignored."""
    own = torch.where(mask == IGNORE_INDEX, 0, mask.long())
    return logits.softmax(dim=1).gather(1, own[:, None])[:, 0]


def _refuse_smoothing(loss: CrossEntropy) -> None:
    if loss.label_smoothing:
        raise InputError(
            f"loss.label_smoothing={loss.label_smoothing}: goes with loss=cross_entropy; expected 0 here, where pixels "
            "count by the probability of their own class"
        )
