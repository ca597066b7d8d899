"""What a model is and how its input is prepared: one record that travels with the weights."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from math import isclose
from numbers import Integral, Real
from typing import Any

from fcnseg.errors import InputError
from fcnseg.geometry import require_resize, shown_size
from fcnseg.labels import IGNORE_INDEX, LabelSpace

PADDINGS = ("same", "caffe")
IMAGE_TYPES = ("uint8", "uint16", "float32")
MOST = {"num_classes": IGNORE_INDEX, "in_channels": 4096, "fc_channels": 2**16, "fc6_rank": 2**16}
WIDEST, LONGEST = 16.0, 2**16
"""Bounds of a spec, which may come from anybody's file: counts, the width, and the pixels of an input along an axis."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preparation:
    """How the images were prepared that weights were trained on; fields as in `ModelSpec`."""

    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, channels: int) -> "Preparation":
        """The same for images of another number of channels: the averages, for each of them."""
        known = len(self.mean)
        if channels == known:
            return self
        mean, std = (sum(values) / known for values in (self.mean, self.std))
        return Preparation("rgb", (mean,) * channels, (std,) * channels)

    def is_close(self, other: "Preparation") -> bool:
        """Whether the two are the same but for roundings."""
        ours, theirs = (self.mean + self.std, other.mean + other.std)
        alike = len(ours) == len(theirs) and all(map(partial(isclose, rel_tol=1e-6), ours, theirs))
        return alike and self.channel_order == other.channel_order

    def __str__(self) -> str:
        return f"channels in {self.channel_order} order, mean {self.mean}, std {self.std}"


# The mean of ImageNet as Caffe's networks and their FCNs subtract it, in blue, green, red (Berkeley's net.py files).
CAFFE_PREPARATION = Preparation("bgr", (104.00699, 116.66876, 122.67892), (1.0, 1.0, 1.0))

PREPARATIONS = {"imagenet": Preparation("rgb", IMAGENET_MEAN, IMAGENET_STD), "caffe": CAFFE_PREPARATION}
"""By name, of 8-bit images: torchvision's and most of timm's, and that of networks which went through Caffe."""


def find_preparation(name: str) -> Preparation:
    """
    Raises:
        InputError: for another name than those of `PREPARATIONS`.
    """
    if not isinstance(name, str) or name not in PREPARATIONS:
        raise InputError(f"preparation={_short(name)}: expected one of {', '.join(PREPARATIONS)}")
    return PREPARATIONS[name]


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model and to prepare images for it.

    Sequences may come as lists, as configs and JSON have them; they are kept as tuples.

    Attributes:
        name: registry name, such as "fcn8s_vgg16".
        num_classes: channels of the logits.
        in_channels: channels of the image.
        padding: "same" or "caffe", see `fcnseg.models.backbones`.
        width: factor on every channel count of the backbone, and of fc6 and fc7 where `fc_channels` is None.
        fc_channels: channels of fc6 and fc7; None: 4096 times width over our own trunks, 512 over timm's.
        fc6_rank: channels between the two convolutions that fc6 is, see `fcnseg.models.low_rank`; None: it is one.
        dropout: probability after fc6 and fc7.
        mean, std: per channel of the network's input, in image values (0 to 255 for 8-bit images); by default
            ImageNet's for three channels and their averages otherwise.
        channel_order: "rgb", or "bgr" for networks trained with Caffe, which see blue first; images and
            `FCN.normalise` are RGB in both cases, mean and std are in the network's order.
        image_type: the values of images, after scaling: "uint8", "uint16" or "float32".
        scaling: what is done to the values of images before all else, see `fcnseg.data.resizing.scale_values`.
        clip: normalised values beyond this are brought to it, on either side of 0; None leaves them. With mean and std
            in the middle and at half the distance of two percentiles, a clip of 1 is clipping to these.
        input_size: (height, width) that images are resized to before the model; None keeps their size.
        resize: how they come to it: "keep" scales them to fit into it and pads the rest, "stretch" scales them to it
            along either axis, as all models before there was a choice. See `fcnseg.geometry.shown_size`. Without an
            input size it says nothing, and is kept as "stretch".
        label_space: `LabelSpace.to_dict()` of the classes, or None.

    Raises:
        InputError: for a value out of range.
    """

    name: str
    num_classes: int
    in_channels: int = 3
    padding: str = "same"
    width: float = 1.0
    fc_channels: int | None = None
    fc6_rank: int | None = None
    dropout: float = 0.5
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: str = "rgb"
    image_type: str = "uint8"
    scaling: str | None = None
    clip: float | None = None
    input_size: tuple[int, int] | None = None
    resize: str = "stretch"
    label_space: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        if self.label_space is not None and not isinstance(self.label_space, Mapping):
            raise InputError(f"label_space={_short(self.label_space)}: expected one as LabelSpace.to_dict() gives it")
        values: dict[str, Any] = {
            "mean": _per_channel("mean", self.mean, IMAGENET_MEAN, self.in_channels),
            "std": _per_channel("std", self.std, IMAGENET_STD, self.in_channels),
            "input_size": _size(self.input_size),
            "resize": self.resize if self.input_size is not None else "stretch",
            "label_space": dict(self.label_space) if self.label_space else None,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if not all(value > 0 for value in self.std):
            raise InputError(f"std={list(self.std)}: expected positive values")

    def _check_names(self) -> None:
        for name in ("name", "padding", "channel_order", "image_type", "resize", "scaling"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name, value) != ("scaling", None):
                raise InputError(f"{name}={_short(value)}: expected a text")
        if self.padding not in PADDINGS:
            raise InputError(f"padding {_short(self.padding)}: expected one of {', '.join(PADDINGS)}")
        order = self.channel_order
        if order not in ("rgb", "bgr") or (order == "bgr" and self.in_channels != 3):
            raise InputError(f"channel_order={order}: expected rgb, or bgr with in_channels=3")
        if self.image_type not in IMAGE_TYPES:
            raise InputError(f"image_type={self.image_type}: expected one of {', '.join(IMAGE_TYPES)}")
        require_resize(self.resize, choices=("keep", "stretch"))

    def _check_numbers(self) -> None:
        for name, most in MOST.items():
            value, may_lack = getattr(self, name), name.startswith("fc")
            is_count = isinstance(value, Integral) and _is_number(value) and 1 <= int(value) <= most
            if not is_count and not (may_lack and value is None):
                raise InputError(
                    f"{name}={_short(value)}: expected 1 to {most}, a whole number{', or nothing' * may_lack}"
                )
        if not (_is_number(self.width) and 0 < self.width <= WIDEST):
            raise InputError(f"width={_short(self.width)}: expected positive numbers up to {WIDEST:g}")
        if not (_is_number(self.dropout) and 0 <= self.dropout <= 1):
            raise InputError(f"dropout={_short(self.dropout)}: expected a probability, from 0 to 1")
        if not (self.clip is None or (_is_number(self.clip) and self.clip > 0)):
            raise InputError(f"clip={_short(self.clip)}: expected a number above 0, or nothing")

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which the network is shown an image of `size`; the rest of its input is padding."""
        return shown_size(size, self.input_size, self.resize)

    @property
    def fill(self) -> tuple[float, ...] | None:
        """Per channel of an RGB image, what stands for no data where images are integers: 0 once normalised.

        None where they are floats, in which nan does, or are scaled from any type.
        """
        if self.scaling is not None or self.image_type == "float32":
            return None
        return self.mean[::-1] if self.channel_order == "bgr" else self.mean

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON and for checkpoints that load without executing code."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def read_spec(found: Any, source: str) -> ModelSpec:
    """The spec that a file describes as `to_dict` does; nothing of its size is made.

    Args:
        found: whatever stands in the file.
        source: the file, for the message.

    Raises:
        InputError: naming the source and what is wrong.
    """
    known = [field.name for field in fields(ModelSpec)]
    if not isinstance(found, Mapping) or not {"name", "num_classes"} <= set(found):
        raise InputError(f"{source}: its spec describes no model (no name or num_classes)")
    if unknown := [key for key in found if key not in known]:
        raise InputError(f"{source}: its spec describes no model (unknown key {_short(unknown[0])})")
    try:
        spec = ModelSpec(**found)
        space = None if spec.label_space is None else LabelSpace.from_dict(spec.label_space, "spec")
    except (ValueError, OverflowError) as error:
        raise InputError(f"{source}: its spec describes no model ({error})") from error
    if space is not None and space.num_classes != spec.num_classes:
        raise InputError(
            f"{source}: its spec describes no model (num_classes={spec.num_classes}, but its label space has "
            f"{space.num_classes} classes)"
        )
    return spec


def _per_channel(
    name: str, values: Sequence[float] | None, default: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    if values is None or values == ():
        return default if channels == len(default) else (sum(default) / len(default),) * channels
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(map(_is_number, values)):
        raise InputError(f"{name}={_short(values)}: expected numbers")
    if len(values) != channels:
        raise InputError(f"{name}={_short(list(values))}: expected {channels} values, one per image channel")
    return tuple(float(v) for v in values)


def _size(values: Sequence[int] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if not isinstance(values, Sequence) or len(values) != 2 or not all(_is_number(v) for v in values):
        raise InputError(f"input_size={_short(values)}: expected a height and a width in pixels")
    if min(values) < 1 or max(values) > LONGEST:
        raise InputError(f"input_size={list(values)}: expected a height and a width of 1 to {LONGEST} pixels")
    return int(values[0]), int(values[1])


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, also one of numpy's."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(abs(value) < 1e300)  # type: ignore[operator]


def _short(value: Any) -> str:
    """A value that may come from a file, in a few letters."""
    return reprlib.repr(value)
