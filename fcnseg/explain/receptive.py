"""Where a logit looks: the receptive field that the geometry gives, and the one that gradients show."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.explain.seen import Pixel
from fcnseg.geometry import Grid, path_size
from fcnseg.models import FCN
from fcnseg.models.tracing import evaluating

IN_THE_FIELD = 1 - 0.9545
"""The share of the largest gradient above which a pixel counts to the effective field; of Luo et al., section 3."""

Span = tuple[int, int]
"""First and end, along one axis."""


@dataclass(frozen=True)
class TapField:
    """What a logit sees through one tap.

    Attributes:
        name: of its score layer.
        grid: of its samples on the image.
        count: (height, width) of the tap's map, in samples.
        samples: rows and columns of those that are interpolated to the logit, on the tap's own grid.
        box: rows and columns of the image that these see, also beyond it.
        offset: rows and columns from the logit's pixel to the centre of the nearest of these samples, in pixels.
    """

    name: str
    grid: Grid
    count: tuple[int, int]
    samples: tuple[Span, Span]
    box: tuple[Span, Span]
    offset: tuple[Fraction, Fraction]

    @property
    def centres(self) -> tuple[list[float], list[float]]:
        """Rows and columns of the image on which the centres of the samples lie."""
        rows, columns = (
            [float(self.grid.origin + i * self.grid.stride) for i in range(*axis)] for axis in self.samples
        )
        return rows, columns


@dataclass(frozen=True)
class ReceptiveField:
    """What a logit sees; all in pixels of the image as the network sees it.

    Attributes:
        pixel: row and column of the logit.
        taps: through which it sees, coarse to fine.
        box: rows and columns of the image that it depends on, also beyond it.
        local: False of a network that averages over the whole image besides, which its box leaves out.
    """

    pixel: Pixel
    taps: tuple[TapField, ...]
    box: tuple[Span, Span]
    local: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.box[0][1] - self.box[0][0], self.box[1][1] - self.box[1][0]


def score_layer(tap: str) -> str:
    """The layer that scores fc7 or a tap."""
    return "score_fr" if tap == "fc7" else f"score_{tap}"


def receptive_field(model: FCN, pixel: Pixel, size: tuple[int, int]) -> ReceptiveField:
    """The theoretical receptive field of the logits at a pixel, tap by tap, from the geometry alone.

    Every image pixel whose value may change these logits lies within its box; with positive weights, and averages for
    maxima, each pixel of the image within it does change them, but for the last few that strides leave out. Where the
    network interpolates between samples of a tap, the field is that of all of these; beyond the outermost samples it is
    that of the outermost.

    Args:
        pixel: row and column, in an image of `size`.
        size: (height, width) of the image as the network sees it.
    """
    paths = dict(zip(["fc7", *(str(fusion.tap) for fusion in model.fusions[:-1])], model.paths, strict=True))
    covered = model.covered_size(size)
    axes = [model.samples(n, n + 1) for n in pixel]
    taps = []
    for tap, path in paths.items():
        grid = model.grids()[tap]
        count = path_size(path, covered[0]), path_size(path, covered[1])
        samples = [_within(axis[tap], number) for axis, number in zip(axes, count, strict=True)]
        nearest = [_nearest(grid, span, n) for span, n in zip(samples, pixel, strict=True)]
        taps.append(
            TapField(
                score_layer(tap),
                grid,
                count,
                (samples[0], samples[1]),
                (grid.seen(*samples[0]), grid.seen(*samples[1])),
                (nearest[0] - pixel[0], nearest[1] - pixel[1]),
            )
        )
    boxes = [[tap.box[axis] for tap in taps] for axis in (0, 1)]
    rows, columns = ((min(first for first, _ in spans), max(end for _, end in spans)) for spans in boxes)
    return ReceptiveField(pixel, tuple(taps), (rows, columns), model.tiling() is not None)


def _within(span: Span, samples: int) -> Span:
    """Those of the samples that there are; the outermost stands for those beyond it."""
    first = min(max(span[0], 0), samples - 1)
    return first, max(min(span[1], samples), first + 1)


def _nearest(grid: Grid, samples: Span, pixel: int) -> Fraction:
    """The centre on the image, among those of samples, that lies nearest to a pixel; the first of equals."""
    return min((grid.origin + i * grid.stride for i in range(*samples)), key=lambda centre: abs(centre - pixel))


def effective_field(model: FCN, images: Iterable[Tensor], pixel: Pixel, class_index: int | None = None) -> np.ndarray:
    """The effective receptive field: how much a logit changes with each pixel, (h, w) floats whose sum is 1.

    The absolute gradient of the logit by the normalised image, summed over channels and averaged over images, after
    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks" (NeurIPS 2016),
    who average the gradients of the centre of a network's output. It lies within the theoretical field. All zeros
    where nothing changes the logit, as in a network that was not trained yet, whose scores are zero.

    Args:
        images: (1, C, h, w) normalised images, all of one size.
        pixel: row and column of the logit.
        class_index: of the logit; the likeliest class there, in each image, by default.

    Raises:
        InputError: for images of several sizes, or none.
    """
    total, count = None, 0
    with evaluating(model):
        for each in images:
            gradient = _gradient(model, each, pixel, class_index)
            if total is not None and total.shape != gradient.shape:
                sizes = " and ".join(f"{h}x{w}" for h, w in (total.shape, gradient.shape))
                raise InputError(f"images for the effective field are seen in {sizes} pixels; expected one size")
            total, count = gradient if total is None else total + gradient, count + 1
    if total is None:
        raise InputError("no images for the effective field; expected one or more")
    return (total / total.sum() if total.any() else total).numpy()


def _gradient(model: FCN, images: Tensor, pixel: Pixel, class_index: int | None) -> Tensor:
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        logits = model(images)[0, :, pixel[0], pixel[1]]
        logit = logits[int(logits.argmax()) if class_index is None else class_index]
        (gradient,) = torch.autograd.grad(logit, images)
    return gradient[0].abs().sum(0).cpu().double()


def effective_size(effective: np.ndarray) -> float:
    """The side in pixels of a square as large as an effective field, as Luo et al. measure it; 0 of an empty one.

    It is the square root of the number of pixels that change the logit by more than `IN_THE_FIELD` of what the most
    influential one does. (They compare with the centre, which here need not be the most influential.)
    """
    return float(np.sqrt((effective > IN_THE_FIELD * effective.max()).sum()))
