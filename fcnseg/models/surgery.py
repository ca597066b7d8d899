"""Tensors from one network made to fit another: other channels, other classes, classifiers as convolutions."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fcnseg.models.upsampling import bilinear_kernel

SCORES = ("auto", "expand", "reset")


def adapt_first(weight: Tensor, channels: int) -> Tensor:
    """Filters over 3 image channels, (out, 3, k, k), as (out, channels, k, k).

    The first three channels keep their filters, in their order; further ones get the mean of the three. With fewer
    than three, every channel gets the mean. All are scaled by 3 / channels, so that an image whose channels are all
    equal gives exactly what it gives as a grey image of 3 channels.

    Raises:
        ValueError: for filters over other than 3 channels.
    """
    if weight.shape[1] != 3:
        raise ValueError(f"filters over {weight.shape[1]} channels; only those over 3 fit another number of channels")
    mean = weight.mean(dim=1, keepdim=True)
    kept = weight if channels >= 3 else weight[:, :0]
    added = mean.expand(-1, channels - kept.shape[1], -1, -1)
    return torch.cat([kept, added], dim=1) * (3 / channels)


def adapt_scores(values: Tensor, like: Tensor, scores: str) -> tuple[Tensor, str]:
    """The weight or bias of a score layer for `like`'s number of classes, and what was done; "" for a plain copy.

    Args:
        values: (k, ...), a row per class of the source.
        like: (n, ...), a row per class of the model.
        scores: "auto" takes all rows or none, "expand" the first min(k, n), "reset" none. Rows that are not taken
            are zero, as in a new model.
    """
    if scores != "reset" and values.shape == like.shape:
        return values, ""
    out = torch.zeros(like.shape, dtype=values.dtype)
    if scores != "expand" or values.shape[1:] != like.shape[1:]:
        return out, "starts at zero again"
    kept = min(len(values), len(like))
    out[:kept] = values[:kept]
    return out, f"the first {kept} classes" + (", further ones zero" if kept < len(like) else "")


def without_leading_ones(values: Tensor, dims: int) -> Tensor:
    """Caffe's old format gives four dimensions to everything: a bias is (1, 1, 1, out)."""
    while values.dim() > dims and values.shape[0] == 1:
        values = values[0]
    return values


def as_convolution(values: Tensor, like: Tensor) -> Tensor:
    """A fully connected layer's weight, (out, in * k * k) in any shape, as the convolution (out, in, k, k).

    Raises:
        ValueError: for another number of weights.
    """
    if values.numel() != like.numel():
        raise ValueError(f"{values.numel()} weights, {like.numel()} expected")
    return values.reshape(like.shape)


def fewer_units(layers: Mapping[str, Tensor], units: int, fewer: int) -> dict[str, Tensor]:
    """fc6, fc7 and the scores of a network of `units` units for one that has fewer.

    The first are taken: the order of a layer's units means nothing, so that they are as good as drawn, and the same in
    the layer before and the one after. fc7 and the scores then add up fewer of them, and are scaled up for their sums
    to keep their means, as with dropout. So DeepLab came from VGG-16's 4096 units to 1024 (Chen et al., ICLR 2015,
    section 4.1).

    Args:
        layers: weights and biases in any shape, by the names "fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias" and
            "score_fr.weight", as many as there are.

    Returns:
        The same by their names: (fewer, inputs * k * k), (fewer,), (fewer, fewer, 1, 1), (classes, fewer, 1, 1).

    Raises:
        RuntimeError: for a number of weights that no such layer has.
    """
    scale = units / fewer
    cut: dict[str, Callable[[Tensor], Tensor]] = {
        "fc6.weight": lambda values: values.reshape(units, -1)[:fewer],
        "fc6.bias": lambda values: values.reshape(units)[:fewer],
        "fc7.weight": lambda values: values.reshape(units, units, 1, 1)[:fewer, :fewer] * scale,
        "fc7.bias": lambda values: values.reshape(units)[:fewer],
        "score_fr.weight": lambda values: values.reshape(-1, units, 1, 1)[:, :fewer] * scale,
    }
    return {name: cut[name](values) for name, values in layers.items()}


def upsampling_difference(weight: Tensor) -> float:
    """How far a deconvolution's (C, C, k, k) or (C, 1, k, k) weight is from the fixed bilinear one, at its furthest.

    Infinite for a shape that is neither, and for a tensor that claims more values than any such layer has.
    """
    if weight.dim() != 4 or weight.shape[1] not in (1, weight.shape[0]) or weight.shape[2] != weight.shape[3]:
        return float("inf")
    if weight.numel() > 2**28:
        return float("inf")
    channels, inputs, size, _ = weight.shape
    diagonal = torch.ones(channels, 1) if inputs == 1 else torch.eye(channels)
    expected = diagonal[:, :, None, None] * bilinear_kernel(size)
    return float((weight.detach().cpu().float() - expected).abs().max())


def checked(values: Tensor, like: Tensor) -> Tensor:
    """`values` in the type of `like`.

    Raises:
        ValueError: for whole numbers in the place of weights, and values that are not finite.
    """
    if like.is_floating_point() != values.is_floating_point():
        raise ValueError(f"it holds {values.dtype}, {like.dtype} expected")
    values = values.detach().to(like.dtype)
    if like.is_floating_point() and not values.isfinite().all():
        raise ValueError("it holds values that are not finite")
    return values
