"""The model zoo's names: `create_model` builds by name, `list_models` finds names by pattern."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any

from fcnseg.errors import InputError
from fcnseg.models.backbones import BACKBONES, create_backbone
from fcnseg.models.fcn import FCN
from fcnseg.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec

STRIDES = (32, 16, 8)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern such as "*vgg16*", sorted."""
    names = (f"fcn{stride}s_{backbone}" for stride in STRIDES for backbone in BACKBONES)
    return sorted(name for name in names if fnmatch(name, pattern))


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    padding: str = "same",
    weights: None = None,
    width: float = 1.0,
    dropout: float = 0.5,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str = "rgb",
    input_size: Sequence[int] | None = None,
    label_space: Mapping[str, Any] | None = None,
) -> FCN:
    """Build an FCN by name.

    Args:
        name: `fcn{32,16,8}s_{backbone}`, see `list_models()`.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        padding: "same", or "caffe" for the reference's geometry.
        weights: None: He initialisation, to train from scratch.
        width: factor on the channel counts of backbone, fc6 and fc7; 0.25 trains on a laptop.
        dropout: probability after fc6 and fc7.
        mean, std: per channel, in image values; ImageNet's for three channels, their averages otherwise.
        channel_order: "rgb", or "bgr" where the network sees blue first, as Caffe's do.
        input_size: (height, width) that images are resized to before the model; None keeps their size.
        label_space: `LabelSpace.to_dict()`, kept with the weights.

    Returns:
        The model: (N, in_channels, H, W) floats to (N, num_classes, H, W) logits, for any H and W.

    Raises:
        InputError: for an unknown name (with the nearest ones) or a value out of range.
    """
    if name not in list_models():
        near = get_close_matches(name, list_models(), n=3) or list_models()
        raise InputError(f"unknown model {name!r}; expected one like {', '.join(near)}")
    if weights is not None:
        raise InputError(f"weights={weights!r}: expected null; models start from He initialisation")
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes}: expected at least 1")
    if not 0 <= dropout <= 1:
        raise InputError(f"dropout={dropout}: expected a probability, from 0 to 1")
    if channel_order not in ("rgb", "bgr") or (channel_order == "bgr" and in_channels != 3):
        raise InputError(f"channel_order={channel_order}: expected rgb, or bgr with in_channels=3")
    if std is not None and not all(value > 0 for value in std):
        raise InputError(f"std={list(std)}: expected positive values")
    head, backbone = name.split("_", 1)
    spec = ModelSpec(
        name=name,
        num_classes=num_classes,
        in_channels=in_channels,
        padding=padding,
        width=width,
        dropout=dropout,
        mean=_per_channel("mean", mean, IMAGENET_MEAN, in_channels),
        std=_per_channel("std", std, IMAGENET_STD, in_channels),
        channel_order=channel_order,
        input_size=_size(input_size),
        label_space=dict(label_space) if label_space else None,
    )
    return FCN(create_backbone(backbone, in_channels, padding, width), int(head[3:-1]), spec)


def _per_channel(
    name: str, values: Sequence[float] | None, default: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    if values is None:
        return default if channels == len(default) else (sum(default) / len(default),) * channels
    if len(values) != channels:
        raise InputError(f"{name}={list(values)}: expected {channels} values, one per image channel")
    return tuple(float(v) for v in values)


def _size(values: Sequence[int] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) != 2 or min(values) < 1:
        raise InputError(f"input_size={list(values)}: expected a height and a width in pixels")
    return int(values[0]), int(values[1])
