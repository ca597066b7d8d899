"""Averaging what a network says of several views of an image, and how sure it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.inference.network import Network
from fcnseg.models import FCN, resample


@dataclass(frozen=True)
class Averaging:
    """Over which views of an image class probabilities are averaged.

    Attributes:
        flip: the image and its mirror image.
        scales: factors on the size that the network sees; scores are brought back to one size.
        dropout: how many times units of fc6 and fc7 are dropped at random, as in training (Gal and Ghahramani 2016);
            0: not at all.
        temperature: what logits are divided by, as `fcnseg evaluate calibrate=true` fits it (Guo et al. 2017).

    Raises:
        InputError: for a value out of range.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    dropout: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.scales or not all(isfinite(scale) and 0 < scale <= 16 for scale in self.scales):
            raise InputError(f"scales={list(self.scales)}: expected factors above 0, up to 16")
        if self.dropout < 0:
            raise InputError(f"dropout={self.dropout}: expected a number of draws, 0 or more")
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"temperature={self.temperature}: expected a number above 0")

    @property
    def is_plain(self) -> bool:
        """Whether there is but one view."""
        return not self.flip and self.scales == (1.0,) and not self.dropout


def averaged_logits(network: Network, images: Tensor, averaging: Averaging) -> Tensor:
    """(N, C, h, w) images in file values to (N, num_classes, h, w) logits, whose softmax is the mean over the views.

    Raises:
        InputError: for draws of dropout from an exported network, which has none.
    """
    if averaging.is_plain:
        return network.logits(images) / averaging.temperature
    total, views = None, 0
    for logits in _views(network, images, averaging):
        probabilities = (logits / averaging.temperature).softmax(dim=1)
        total = probabilities if total is None else total.add_(probabilities)
        views += 1
    assert total is not None
    return (total / views).clamp_min(torch.finfo(total.dtype).tiny).log()


def _views(network: Network, images: Tensor, averaging: Averaging) -> Iterator[Tensor]:
    height, width = images.shape[-2:]
    for scale in averaging.scales:
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        seen = images if size == (height, width) else _resized(images, size)
        for mirrored in (False, True) if averaging.flip else (False,):
            for logits in _draws(network, seen.flip(-1) if mirrored else seen, averaging.dropout):
                yield resample(logits.flip(-1) if mirrored else logits, (height, width))


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """With averages where it shrinks, in the values of the file as floats."""
    return F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)


def _draws(network: Network, images: Tensor, draws: int) -> Iterator[Tensor]:
    """The trunk has no dropout, and is computed once."""
    if not draws:
        yield network.logits(images)
        return
    if not isinstance(network, FCN):
        raise InputError(
            f"dropout={draws}: an exported network has no dropout; expected a checkpoint or a model folder"
        )
    with torch.no_grad(), network.in_precision(images.device.type):
        taps = network.taps(network.normalise(images))
        network.dropout.training = True
        try:
            for draw in range(draws):
                with network.dropout.seeded([draw] * len(images), images.device):
                    yield network.combine(network.score(taps), (images.shape[-2], images.shape[-1]))
        finally:
            network.dropout.training = False


def entropy(probabilities: Tensor) -> Tensor:
    """(N, C, H, W) class probabilities to (N, H, W) entropies as shares of the greatest: 0 where sure, 1 where not."""
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=1) / log(max(probabilities.shape[1], 2))
