"""Bilinear upsampling of scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnseg.geometry import Layer


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) float weights of a bilinear upsampling: a tent around the middle, as in Berkeley's surgery.py.

    Caffe's own filler gives the same at size 2f - f % 2 for a factor f, but at 63 it lies half a pixel off.
    """
    factor = (size + 1) // 2
    centre = (size - 1) / 2
    ramp = 1 - (torch.arange(size, dtype=torch.float32) - centre).abs() / factor
    return ramp[:, None] * ramp[None, :]


def upsampled(scores: Tensor, layer: Layer, start: tuple[int, int], size: tuple[int, int], fade: bool) -> Tensor:
    """Part of what the bilinear transposed convolution `layer` makes of (N, C, h, w) scores: (N, C, *size).

    It is an interpolation of the scores, or, where it fades to zero, of the scores with zeros around them: several
    times faster than the transposed convolution, and of no more than the part needs.

    Args:
        start: row and column of the layer's output from which on it is wanted; below 0 beyond its edge.
        fade: to zero beyond the outermost scores, as the reference's deconvolutions; else these are repeated, also
            beyond the layer's last row and column.
    """
    if any(isinstance(n, torch.SymInt) for n in (*scores.shape, *size)):
        rows, columns = (_Needed.of_any(layer, first, fade) for first in start)
    else:
        axes = zip(scores.shape[-2:], start, size, strict=True)
        rows, columns = (_Needed.of(layer, samples, first, length, fade) for samples, first, length in axes)
    scores = F.pad(scores, (*columns.pad, *rows.pad))
    if layer.kernel % 2 == 0:
        x = F.interpolate(scores, scale_factor=layer.stride, mode="bilinear", align_corners=False)
    else:
        height, width = (layer.stride * (n - 1) + 1 for n in scores.shape[-2:])
        x = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=True)
    if isinstance(x.shape[-1], torch.SymInt) or isinstance(x.shape[-2], torch.SymInt):
        # Whether they end beyond the interpolation is not known either; it is within a stride.
        x, margin = F.pad(x, [layer.stride] * 4, mode="replicate"), layer.stride
        return x[..., rows.first + margin :, columns.first + margin :][..., : size[0], : size[1]]
    return _cut(x, rows.first, columns.first, size)


def sources(layer: Layer, samples: int, start: int, length: int, fade: bool) -> tuple[int, int]:
    """Along one axis, the first and the end of those of `samples` scores that part of `upsampled` comes from."""
    before, after = _Needed.of(layer, samples, start, length, fade).pad
    first, end = max(-before, 0), samples + min(after, 0)
    return min(first, samples - 1), max(end, 1)


@dataclass(frozen=True)
class _Needed:
    """Along one axis: the scores that a part of their interpolation comes from.

    Attributes:
        pad: zeros to put before and after the scores; below 0, scores to leave out.
        first: the part's first pixel in the interpolation of these scores; below 0 where it begins before it.
    """

    pad: tuple[int, int]
    first: int

    @classmethod
    def of(cls, layer: Layer, samples: int, start: int, length: int, fade: bool) -> "_Needed":
        stride, even, first = layer.stride, layer.kernel % 2 == 0, cls._begin(layer, start)
        shift = stride - 1 if even else 0  # twice the pixels from an interpolation's begin to its first sample
        before, after = ((2 * pixel - shift) // (2 * stride) for pixel in (first, first + length - 1))
        least, most = (-1, samples) if fade else (0, samples - 1)
        before, after = min(max(before, least), most), min(max(after + 1, least), most)
        return cls((-before, after + 1 - samples), first - stride * before)

    @classmethod
    def of_any(cls, layer: Layer, start: int, fade: bool) -> "_Needed":
        """For a number of scores and pixels that is not known: all of the scores."""
        return cls((int(fade), int(fade)), cls._begin(layer, start) + layer.stride * fade)

    @staticmethod
    def _begin(layer: Layer, start: int) -> int:
        """The first pixel in the interpolation of all scores."""
        return start + layer.padding - (layer.stride // 2 if layer.kernel % 2 == 0 else layer.stride - 1)


def _cut(x: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """(H, W) = `size` pixels from (top, left) on; the outermost ones are repeated beyond the edges."""
    beyond = (-left, left + size[1] - x.shape[-1], -top, top + size[0] - x.shape[-2])
    if any(pixels > 0 for pixels in beyond):
        x = F.pad(x, [max(pixels, 0) for pixels in beyond], mode="replicate")
    top, left = max(top, 0), max(left, 0)
    return x[..., top : top + size[0], left : left + size[1]]


def resample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) logits, bilinearly at (N, C, H, W) for `size` = (H, W)."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def at_own_sizes(
    logits: Tensor, sizes: Sequence[tuple[int, int]], shown: Sequence[tuple[int, int]] | None = None
) -> Iterator[Tensor]:
    """(N, C, h, w) logits as (1, C, H, W) for each size (H, W), one after the other: together they may be gigabytes.

    Args:
        logits: of images that may be padded.
        sizes: of what the images show.
        shown: the (height, width) of the beginning of each that shows it; all of each by default.
    """
    whole = (logits.shape[-2], logits.shape[-1])
    for one, size, (height, width) in zip(logits.split(1), sizes, shown or [whole] * len(logits), strict=True):
        yield resample(one[..., :height, :width], size)


def segmented(
    logits: Tensor, sizes: Sequence[tuple[int, int]], shown: Sequence[tuple[int, int]] | None = None
) -> list[Tensor]:
    """(N, C, h, w) logits to N int64 masks of the sizes (H, W), by the likeliest class at that size.

    Args:
        sizes, shown: see `at_own_sizes`.
    """
    return [likeliest(one)[0] for one in at_own_sizes(logits, sizes, shown)]


def resampled_rows(
    part: Callable[[int, int], Tensor], before: tuple[int, int], after: tuple[int, int], start: int, stop: int
) -> Tensor:
    """Rows `start` to `stop` of what `resample` makes of logits: (N, C, stop - start, W).

    Args:
        part: gives (N, C, last - first, w) rows of the logits, of first and last.
        before, after: (h, w) of the logits and (H, W) of what they are resampled to.
    """
    places = ((torch.arange(start, stop, dtype=torch.float64) + 0.5) * (before[0] / after[0]) - 0.5).clamp(min=0)
    upper = places.floor().long().clamp(max=before[0] - 1)
    lower = (upper + 1).clamp(max=before[0] - 1)
    first, last = int(upper[0]), int(lower[-1]) + 1
    rows = part(first, last)
    weights = (places - upper).to(rows)[:, None]
    rows = torch.lerp(
        rows[..., (upper - first).to(rows.device), :], rows[..., (lower - first).to(rows.device), :], weights
    )
    return resample(rows, (stop - start, after[1]))


def likeliest(logits: Tensor) -> Tensor:
    """(N, C, H, W) logits to (N, H, W) int64 classes; the first of equals."""
    return logits.max(dim=1).indices  # argmax takes 15 times as long on a CPU where memory is not channels-last
