"""Losses of how regions overlap, which are no sums over pixels: Dice and Lovász-Softmax."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.training.losses import CrossEntropy, SegmentationLoss, require_number


class RegionLoss(SegmentationLoss):
    """A loss of each image, averaged over the images that have labels: the same on any number of processes.

    It is 1 minus an overlap of each class, averaged over the classes that an image's labels show; ignored pixels are
    left out. A class that is not there has no overlap: what is taken for it counts against the classes that it is taken
    from.

    Args:
        cross_entropy: weight of the image's own mean cross-entropy beside the overlap; 0: the overlap alone.
        class_weights, class_pixels: of the cross-entropy, see `CrossEntropy`; in the overlap classes count alike.
        domain_weights: weight of the mean over each domain's images, see `CrossEntropy`.
        domains: the names, in the order of a batch's "domain".

    Raises:
        InputError: for class weights without a cross-entropy that they could weigh, another weight, or as
            `CrossEntropy` does.
    """

    def __init__(
        self,
        cross_entropy: float = 1.0,
        class_weights: str = "none",
        class_pixels: Callable[[], np.ndarray] | None = None,
        domain_weights: Mapping[str, float] | None = None,
        domains: Sequence[str] = (),
    ) -> None:
        super().__init__()
        require_number("cross_entropy", cross_entropy, 0)
        if class_weights != "none" and not cross_entropy:
            raise InputError(
                f"loss.class_weights={class_weights}: weighs the pixels of a cross-entropy, and loss.cross_entropy=0 "
                "leaves it out; expected none, or a weight above 0"
            )
        self.cross_entropy = cross_entropy
        self.pixels = CrossEntropy(class_weights, class_pixels)
        self.weigh_domains(domain_weights, domains)

    @abstractmethod
    def per_class(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Of each class in each image 1 minus its overlap: (N, C).

        Args:
            probabilities: (N, C, H, W), 0 where ignored.
            labels: (N, C, H, W) bool, which class each pixel has; none where it is ignored.
        """

    def per_sample(self, logits: Tensor, mask: Tensor) -> Tensor:
        classes = torch.arange(logits.shape[1], device=mask.device).view(1, -1, 1, 1)
        labels = mask[:, None] == classes
        probabilities = logits.softmax(dim=1) * (mask != IGNORE_INDEX)[:, None]
        present = labels.any(dim=(2, 3))
        missed = (self.per_class(probabilities, labels) * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        if not self.cross_entropy:
            return missed
        weights = self.pixels.weight_per_sample(mask).to(logits.dtype).clamp(min=1e-12)
        return missed + self.cross_entropy * self.pixels.per_sample(logits, mask) / weights

    def weight_per_sample(self, mask: Tensor) -> Tensor:
        return (mask != IGNORE_INDEX).any(dim=2).any(dim=1).long()


class Dice(RegionLoss):
    """1 minus the soft Dice coefficient, (2 sum p y + smooth) / (sum p + sum y + smooth), with cross-entropy.

    After Milletari, Navab and Ahmadi, "V-Net" (3DV 2016, section 3), with sums in the place of sums of squares.

    Args:
        smooth: pixels, from 0 on.
        options: those of `RegionLoss`.

    Raises:
        InputError: as `RegionLoss` does.
    """

    def __init__(self, smooth: float = 1.0, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        require_number("smooth", smooth, 0)
        self.smooth = smooth

    def per_class(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        hits = (probabilities * labels).sum(dim=(2, 3))
        both = probabilities.sum(dim=(2, 3)) + labels.sum(dim=(2, 3))
        return 1 - (2 * hits + self.smooth) / (both + self.smooth).clamp(min=1e-12)


class Lovasz(RegionLoss):
    """The Lovász extension of 1 minus the intersection over union, at the errors of a softmax, with cross-entropy.

    Berman, Triki and Blaschko, "The Lovász-Softmax loss" (CVPR 2018, algorithm 1), image by image, over the classes
    that are present. The errors of every class are sorted, which on a processor takes time.
    """

    def per_class(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        present = labels.any(dim=(2, 3))
        y = labels[present].flatten(1)
        # Ignored pixels, where y and the probability are 0, make no error, and those without one no part of the sum.
        errors, order = (y.to(probabilities.dtype) - probabilities[present].flatten(1)).abs().sort(1, descending=True)
        steps = _steps_of_jaccard(y.gather(1, order)).to(errors.dtype)
        return torch.zeros_like(present, dtype=errors.dtype).masked_scatter(present, (errors * steps).sum(dim=1))


def _steps_of_jaccard(y: Tensor) -> Tensor:
    """(R, P) bool labels in the order of their errors to the (R, P) gradient of the extension, in float64."""
    total, hits = y.sum(dim=1, keepdim=True), y.cumsum(dim=1)
    union = total + (~y).cumsum(dim=1)
    missed = 1 - (total - hits).double() / union
    return torch.cat([missed[:, :1], missed.diff(dim=1)], dim=1)
