"""Which skip decides a pixel: the logits as the sums that they are, one part for each scored tap."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fcnseg.explain.receptive import score_layer
from fcnseg.explain.seen import Pixel, Seen
from fcnseg.models import FCN, likeliest
from fcnseg.models.tracing import evaluating

BAND_BYTES = 2**27
"""Of what is resampled at once, when maps are made in an image's own size."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """The logits of an image, taken apart.

    An FCN adds upsampled scores: it is linear from the score layers on, so that its logits are exactly the sum of one
    part for each scored tap, and of what the biases of the score layers give.

    Attributes:
        names: of the score layers, coarse to fine: score_fr, score_pool4, score_pool3, ...
        parts: (taps, classes, h, w) what each tap adds to the logits, by the weights of its score layer alone.
        biases: (classes, h, w) what the biases of all score layers add; the same everywhere, but where padding "caffe"
            fades scores out beyond their edge.
    """

    names: tuple[str, ...]
    parts: Tensor = field(repr=False)
    biases: Tensor = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """(classes, h, w): the sum."""
        return self.parts.sum(0) + self.biases

    @property
    def stacked(self) -> Tensor:
        """(taps + 1, classes, h, w): the parts, and the biases at the end."""
        return torch.cat([self.parts, self.biases[None]])


def contributions(model: FCN, images: Tensor) -> Contributions:
    """Take the logits of an image apart, tap by tap.

    Args:
        images: (1, C, h, w) normalised floats.
    """
    with torch.no_grad(), evaluating(model):
        scores = model.score(model.taps(images))
        size = (images.shape[-2], images.shape[-1])
        names = [score_layer(tap) for tap in ("fc7", *(str(fusion.tap) for fusion in model.fusions[:-1]))]
        biases = [_bias_of(model, name, x) for name, x in zip(names, scores, strict=True)]
        alone = [
            [
                x - bias if i == k else torch.zeros_like(x)
                for i, (x, bias) in enumerate(zip(scores, biases, strict=True))
            ]
            for k in range(len(scores))
        ]
        parts = [model.combine(each, size)[0] for each in alone]
        return Contributions(tuple(names), torch.stack(parts), model.combine(biases, size)[0])


def _bias_of(model: FCN, name: str, scores: Tensor) -> Tensor:
    """Scores of a layer whose weights see nothing."""
    return torch.zeros_like(scores) + model.get_parameter(f"{name}.bias")[:, None, None].to(scores)


def margins(stacked: Tensor) -> Tensor:
    """What each part adds to the lead of the likeliest class over the second likeliest.

    A class wins a pixel by the difference of two logits, which is the sum of the differences that the taps and the
    biases contribute; softmax knows of nothing else. A negative one speaks for the second class.

    Args:
        stacked: (parts, classes, ...) whose sum over the parts is the logits.

    Returns:
        (parts, ...), whose sum is the lead; zeros of a network of a single class.
    """
    if stacked.shape[1] < 2:
        return torch.zeros_like(stacked[:, 0])
    first, second = stacked.sum(0).topk(2, dim=0).indices
    chosen = [stacked.gather(1, winner.expand(len(stacked), 1, *winner.shape))[:, 0] for winner in (first, second)]
    return chosen[0] - chosen[1]


@dataclass(frozen=True, eq=False)
class SkipMaps:
    """What each tap decides, in an image's own size.

    Attributes:
        names: of the score layers, coarse to fine.
        mask: (H, W) uint8 classes of all taps together, the predictor's mask.
        deciding: (H, W) uint8 index in `names` of the tap that decides the pixel: the one with the largest part of
            the lead of the pixel's class over the second likeliest, see `margins`; the coarsest of equals.
        without: for each tap the (H, W) uint8 classes of the sum of all others and the biases.
    """

    names: tuple[str, ...]
    mask: np.ndarray = field(repr=False)
    deciding: np.ndarray = field(repr=False)
    without: tuple[np.ndarray, ...] = field(repr=False)

    def shares(self) -> dict[str, float]:
        """The share of the image that each tap decides, 0 to 1; together 1."""
        counts = np.bincount(self.deciding.ravel(), minlength=len(self.names)) / self.deciding.size
        return {name: float(share) for name, share in zip(self.names, counts, strict=True)}

    def changed(self) -> dict[str, float]:
        """The share of the image whose class is another without each tap, 0 to 1."""
        return {name: float((one != self.mask).mean()) for name, one in zip(self.names, self.without, strict=True)}


def skip_maps(found: Contributions, seen: Seen) -> SkipMaps:
    """Which tap decides each pixel of an image, and what its mask would be without each.

    Contributions are resampled to the image's size as logits are, which keeps their sum; in bands of bounded memory.
    """
    mask, deciding = np.empty(seen.size, np.uint8), np.empty(seen.size, np.uint8)
    without = tuple(np.empty(seen.size, np.uint8) for _ in found.names)
    for rows, stacked in _bands(found.stacked, seen):
        logits = stacked.sum(0)
        mask[rows] = _uint8(likeliest(logits[None])[0])
        deciding[rows] = _uint8(margins(stacked)[:-1].max(0).indices)
        for one, part in zip(without, stacked, strict=False):
            one[rows] = _uint8(likeliest((logits - part)[None])[0])
    return SkipMaps(found.names, mask, deciding, without)


def _bands(stacked: Tensor, seen: Seen) -> Iterator[tuple[slice, Tensor]]:
    height, width = seen.size
    step = max(BAND_BYTES // (4 * stacked.shape[0] * stacked.shape[1] * width), 1)
    for start in range(0, height, step):
        stop = min(start + step, height)
        yield slice(start, stop), seen.own_rows(stacked, start, stop)


def _uint8(classes: Tensor) -> np.ndarray:
    return classes.to(torch.uint8).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Decision:
    """How a single pixel comes to its class.

    Attributes:
        names: of the score layers, coarse to fine.
        parts: (taps, classes) what each adds to the logits.
        biases: (classes,) what the biases add.
    """

    names: tuple[str, ...]
    parts: np.ndarray
    biases: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """(classes,)"""
        return self.parts.sum(0) + self.biases

    @property
    def ranking(self) -> list[int]:
        """All classes, the likeliest first."""
        return np.argsort(-self.logits, kind="stable").tolist()

    @property
    def lead(self) -> np.ndarray:
        """(taps + 1,) parts of the lead of the likeliest class over the second, the biases' at the end; `margins`."""
        return margins(torch.from_numpy(np.vstack([self.parts, self.biases]))).numpy()

    @property
    def deciding(self) -> str:
        """The tap with the largest part of the lead, by its score layer."""
        return self.names[int(self.lead[:-1].argmax())]

    @property
    def without(self) -> list[int]:
        """The class that the pixel would have without each tap."""
        return (self.logits - self.parts).argmax(1).tolist()


def decision(found: Contributions, seen: Seen, pixel: Pixel) -> Decision:
    """How one of an image's own pixels comes to its class, as `skip_maps` has it for all."""
    values = seen.own_rows(found.stacked, pixel[0], pixel[0] + 1)[:, :, 0, pixel[1]].cpu().double().numpy()
    return Decision(found.names, values[:-1], values[-1])
