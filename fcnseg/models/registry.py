"""The model zoo's names: `create_model` builds by name, `list_models` finds names by pattern."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fcnseg.errors import InputError
from fcnseg.models import timm
from fcnseg.models.backbones import BACKBONES, Backbone, create_backbone
from fcnseg.models.fcn import FCN
from fcnseg.models.sources import DEMO
from fcnseg.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from fcnseg.models.weights import load_weights

SKIPS = {32: 0, 16: 1, 8: 2}
STEMS = {"": 1, "stem2": 2, "stem4": 4}
AT_ONCE_SCALES = (0.01, 0.0001)
"""Factors on pool4 and pool3 in the reference's voc-fcn8s-atonce: they bring the skips of VGGs to one scale."""


@dataclass(frozen=True)
class ModelName:
    """A model's name, taken apart: `fcn{stride}s_{backbone}[_{variant}]`."""

    stride: int
    backbone: str
    variant: str = ""

    def __str__(self) -> str:
        return "_".join(part for part in (f"fcn{self.stride}s", self.backbone, self.variant) if part)


def _names() -> list[ModelName]:
    """Every name that is listed."""
    names = [ModelName(stride, backbone, stem) for stride in SKIPS for backbone in BACKBONES for stem in STEMS]
    names += [ModelName(stride, backbone, "atonce") for stride in (16, 8) for backbone in ("vgg16", "vgg19")]
    if timm.is_installed():
        names += [ModelName(stride, backbone) for stride in SKIPS for backbone in timm.OFFERED]
    return names


def parse_name(name: str) -> ModelName:
    """Take a model's name apart; any backbone of timm with feature maps is understood, listed or not.

    Raises:
        InputError: for an unknown name, with the nearest ones.
    """
    listed = {str(n): n for n in _names()}
    if name in listed:
        return listed[name]
    head, _, backbone = name.partition("_")
    stride = next((s for s in SKIPS if head == f"fcn{s}s"), None)
    if stride and timm.has_backbone(backbone):
        return ModelName(stride, backbone)
    near = get_close_matches(name, listed, n=3) or list_models("fcn8s_*")
    hint = "" if timm.is_installed() else "; more backbones come with timm: pip install timm"
    raise InputError(f"unknown model {name!r}; expected one like {', '.join(near)}{hint}")


def is_model(name: str) -> bool:
    """Whether `create_model` knows the name."""
    try:
        parse_name(name)
    except InputError:
        return False
    return True


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern such as "*vgg16*", sorted.

    With timm installed, FCNs over some of its networks are among them; `create_model` takes any of its others too.
    """
    return sorted(name for name in map(str, _names()) if fnmatch(name, pattern))


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    padding: str = "same",
    weights: str | Path | None = None,
    width: float = 1.0,
    dropout: float = 0.5,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str = "rgb",
    image_type: str = "uint8",
    scaling: str | None = None,
    input_size: Sequence[int] | None = None,
    label_space: Mapping[str, Any] | None = None,
) -> FCN:
    """Build an FCN by name.

    Args:
        name: `fcn{32,16,8}s_{backbone}[_{variant}]`, see `list_models()`. Variants: `atonce` scales the skips as
            the reference's at-once network; `stem2` and `stem4` stride the first layers 2 or 4 times further.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        padding: "same", or "caffe" for the reference's geometry.
        weights: None: He initialisation, to train from scratch; "imagenet"; "demo", for "fcn8s_vgg16_bn" with the
            demo's width; or whatever else `load_weights` takes, such as a .caffemodel, a .pth, a checkpoint or a
            folder. Prints what became of each tensor.
        width: factor on the channel counts of backbone, fc6 and fc7; 0.25 trains on a laptop.
        dropout: probability after fc6 and fc7.
        mean, std: per channel, in image values; by default those that the weights were trained with, where that is
            known, or ImageNet's for three channels and their averages otherwise.
        channel_order: "rgb", or "bgr" where the network sees blue first, as Caffe's do.
        image_type, scaling: the values that images come in, see `ModelSpec`; datasets know them.
        input_size: (height, width) that images are resized to before the model; None keeps their size.
        label_space: `LabelSpace.to_dict()`, kept with the weights.

    Returns:
        The model: (N, in_channels, H, W) floats to (N, num_classes, H, W) logits, for any H and W.

    Raises:
        InputError: for an unknown name (with the nearest ones), a value out of range, or weights that do not fit.
    """
    parts = parse_name(name)
    if weights == "demo":  # a narrow network: take its width, and how it sees images, where nothing else is said
        demo = json.loads((DEMO / "config.json").read_text())["architecture"]
        width = demo["width"] if width == 1 else width
        input_size = input_size or demo["input_size"]
        label_space = label_space or (demo["label_space"] if num_classes == demo["num_classes"] else None)
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
        image_type=image_type,
        scaling=scaling,
        input_size=_size(input_size),
        label_space=dict(label_space) if label_space else None,
    )
    scales = AT_ONCE_SCALES[: SKIPS[parts.stride]] if parts.variant == "atonce" else None
    model = FCN(_backbone(parts, spec), SKIPS[parts.stride], spec, scales)
    if weights is not None:
        load_weights(model, weights, prepare=mean is None and std is None)
        model.provenance["weights_source"] = Path(weights).name
    return model


def _backbone(name: ModelName, spec: ModelSpec) -> Backbone:
    if name.backbone in BACKBONES:
        stem = STEMS.get(name.variant, 1)
        return create_backbone(name.backbone, spec.in_channels, spec.padding, spec.width, stem)
    if spec.padding != "same" or spec.width != 1:
        raise InputError(f"{name}: padding={spec.padding}, width={spec.width}; timm's backbones take same and 1.0 only")
    return timm.TimmBackbone(name.backbone, spec.in_channels)


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
