"""Bilinear upsampling of scores, and the cropping that lines them up with a finer grid or the image."""

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


def transposed(scores: Tensor, layer: Layer) -> Tensor:
    """Bilinear upsampling with zeros beyond the edges, as the reference's deconvolutions do it."""
    channels = scores.shape[1]
    kernel = bilinear_kernel(layer.kernel).to(scores).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(scores, kernel, stride=layer.stride, groups=channels)


def interpolated(scores: Tensor, layer: Layer) -> Tensor:
    """Bilinear upsampling with the outermost samples repeated beyond the edges; begins where `layer` does."""
    if layer.kernel % 2 == 0:
        x = F.interpolate(scores, scale_factor=layer.stride, mode="bilinear", align_corners=False)
        cut = layer.padding - layer.stride // 2  # pixels from where this begins to where the layer does
    else:
        height, width = (layer.stride * (n - 1) + 1 for n in scores.shape[-2:])
        x = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=True)
        cut = layer.padding - (layer.stride - 1)
    return F.pad(x, (-cut, 0, -cut, 0), mode="replicate") if cut < 0 else x[..., cut:, cut:]


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Cut `x` to the height and width of `like`, from `offset` on; the last sample fills what is missing."""
    height, width = like.shape[-2:]
    x = x[..., offset : offset + height, offset : offset + width]
    missing = (height - x.shape[-2], width - x.shape[-1])
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def resample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) logits, bilinearly at (N, C, H, W) for `size` = (H, W)."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
