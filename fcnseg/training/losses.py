"""Losses over masks with ignored pixels, and the class weights that go with them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.training.processes import all_reduce_sum

CLASS_WEIGHTS = ("none", "median_frequency", "sqrt_median_frequency")
REDUCTIONS = ("mean", "sum")


class SegmentationLoss(nn.Module, ABC):
    """A loss that is a weighted mean or sum over samples: what training needs to know of one.

    From its parts training computes the mean over the batches of all processes together, each domain's own, and that
    of each validation image. `loss=` takes any other module of (logits, mask) as well: its value is then taken as it
    is, and averaged over processes and images.

    A subclass is made by `loss=` with its settings and two more keywords: `class_pixels`, which when called gives
    (num_classes, 2) pixels of each class and pixels of the images that show it, and `domains`, the names of the
    training domains in the order of a batch's "domain".

    Attributes:
        domains: the names, or none.
        domain_weights: (domains,) weight of each domain's own mean in what is minimised; None: one mean over all.
        reduction: "mean", or "sum" over all samples of the batch.
    """

    domain_weights: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.domains: tuple[str, ...] = ()
        self.reduction = "mean"
        self.register_buffer("domain_weights", None, persistent=False)

    @abstractmethod
    def per_sample(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W) logits and (N, H, W) int64 mask to the (N,) weighted losses, 0 where every pixel is ignored."""

    @abstractmethod
    def weight_per_sample(self, mask: Tensor) -> Tensor:
        """The weight of each sample in a mean, which its labels alone decide: (N,), 0 where every pixel is ignored."""

    def weigh_domains(self, weights: Mapping[str, float] | None, domains: Sequence[str]) -> None:
        """Take the names of the domains, and the weight of each one's own mean, if there are any.

        Raises:
            InputError: when the weights do not fit the domains or the reduction.
        """
        self.domains = tuple(domains)
        by_name = None if weights is None else _in_order(weights, self.domains, self.reduction)
        self.register_buffer("domain_weights", by_name, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W) logits and (N, H, W) int64 mask to a scalar; 0 where every pixel is ignored."""
        return self.sum(logits, mask) if self.reduction == "sum" else self.mean(logits, mask)

    def sum(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum over the samples, whatever the reduction."""
        return self.per_sample(logits, mask).sum()

    def weight(self, mask: Tensor) -> Tensor:
        """What the sum is divided by to give the mean: a scalar, of whole numbers where every pixel weighs 1."""
        # Everything stays on the device: reading the weight would make each step wait for the one before it.
        return self.weight_per_sample(mask).sum()

    def mean(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted mean over the samples, whatever the reduction; comparable between images of any size."""
        total = self.sum(logits, mask)
        return total / self.weight(mask).to(total.dtype).clamp(min=1e-12)

    def per_domain_means(self, logits: Tensor, mask: Tensor, domain: Tensor) -> Tensor:
        """What these samples contribute to each domain's mean over the samples of all processes: (domains,).

        The contributions of all processes together are the means, those of a process that has no sample of a domain
        are 0. Every process must call this.

        Args:
            logits, mask: as in `forward`.
            domain: (N,) position of each sample's domain.
        """
        return self.means_of_domains(self.per_sample(logits, mask), self.weight_per_sample(mask), domain)

    def means_of_domains(self, sums: Tensor, weights: Tensor, domain: Tensor, whole: Tensor | None = None) -> Tensor:
        """`per_domain_means` of what `per_sample` and `weight_per_sample` gave.

        These samples may be a part of those that the means are over: `whole` is then `weight_of_domains` of all.
        """
        weight = self.weight_of_domains(weights.to(sums.dtype), domain) if whole is None else whole.to(sums.dtype)
        return self._belongs(domain).to(sums.dtype) @ sums / weight.clamp(min=1e-12)

    def weight_of_domains(self, weights: Tensor, domain: Tensor) -> Tensor:
        """(domains,) what these samples of all processes weigh; (N,) floating weights. Every process must call this."""
        return all_reduce_sum(self._belongs(domain).to(weights.dtype) @ weights)

    def _belongs(self, domain: Tensor) -> Tensor:
        return torch.arange(len(self.domains), device=domain.device)[:, None] == domain


class PixelLoss(SegmentationLoss):
    """A weighted mean or sum over labelled pixels."""

    @abstractmethod
    def per_pixel(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W) logits and (N, H, W) int64 mask to the (N, H, W) weighted losses, 0 where ignored."""

    @abstractmethod
    def pixel_weights(self, mask: Tensor) -> Tensor:
        """(N, H, W) weight of each pixel in a mean, 0 where ignored."""

    def per_sample(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum over each sample's pixels: (N,)."""
        # Not torch's own reduction, whose order is left to chance on GPUs and refused with deterministic=true.
        return self.per_pixel(logits, mask).sum(dim=(1, 2))

    def weight_per_sample(self, mask: Tensor) -> Tensor:
        """The weight of each sample's pixels together: (N,), whole numbers where every pixel weighs 1."""
        return self.pixel_weights(mask).sum(dim=(1, 2))


class CrossEntropy(PixelLoss):
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
        domain_weights: weight of each domain's own mean in what is minimised, such as {"real": 0.6, "synthetic": 0.4};
            None: one mean over all pixels, in which a domain counts by its labelled pixels. Either goes with the
            batches of Ros et al. (arXiv 1604.01545), whose ratio fixes how many images a domain gives; weights of
            that ratio give each domain its share of the loss however many of its pixels are ignored.
        domains: the names, in the order of a batch's "domain".
        label_smoothing: share of a pixel's label that all classes divide between them (Szegedy et al., "Rethinking the
            Inception architecture", CVPR 2016, section 7), as in `torch.nn.functional.cross_entropy`.

    Raises:
        InputError: for an unknown weighting or reduction, another share, or weights that do not fit the domains.
    """

    def __init__(
        self,
        class_weights: str = "none",
        class_pixels: Callable[[], np.ndarray] | None = None,
        reduction: str = "mean",
        domain_weights: Mapping[str, float] | None = None,
        domains: Sequence[str] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        require_number("label_smoothing", label_smoothing, 0, 1)
        self.label_smoothing = label_smoothing
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
        self.weigh_domains(domain_weights, domains)

    def per_pixel(self, logits: Tensor, mask: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, mask.long(), self.weights, ignore_index=IGNORE_INDEX, reduction="none",
            label_smoothing=self.label_smoothing,
        )  # fmt: skip

    def pixel_weights(self, mask: Tensor) -> Tensor:
        kept = mask != IGNORE_INDEX
        return kept if self.weights is None else self.weights[mask.long() * kept] * kept


def require_number(name: str, value: object, least: float, most: float = float("inf")) -> None:
    """Refuse what is no number in a range.

    Raises:
        InputError: naming the setting of the loss.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        span = f"from {least:g} to {most:g}" if most < float("inf") else f"from {least:g} on"
        raise InputError(f"loss.{name}={value!r}: expected a number {span}")


def _in_order(weights: Mapping[str, float], domains: Sequence[str], reduction: str) -> Tensor:
    shown = f"domain_weights {dict(weights)}"
    if reduction != "mean":
        raise InputError(f"{shown}: weigh the domains' means, and go with reduction=mean alone, not {reduction}")
    if set(weights) != set(domains):
        raise InputError(f"{shown}: expected a weight for each of the domains {', '.join(domains)}")
    if any(not isinstance(w, int | float) or not 0 <= w < float("inf") for w in weights.values()) or not any(
        weights.values()
    ):
        raise InputError(f"{shown}: expected numbers from 0 on, one of them above 0")
    return torch.tensor([weights[name] for name in domains], dtype=torch.float32)


def median_frequency_weights(class_pixels: np.ndarray) -> Tensor:
    """(num_classes, 2) pixel counts to (num_classes,) weights; 0 for a class that never appears."""
    frequency = class_pixels[:, 0] / np.maximum(class_pixels[:, 1], 1)
    present = frequency > 0
    if not present.any():
        raise InputError("class weights: no labelled pixel in the training data")
    weights = np.where(present, np.median(frequency[present]) / np.maximum(frequency, 1e-12), 0)
    return torch.tensor(weights, dtype=torch.float32)
