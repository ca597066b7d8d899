"""What a model is and how its input is prepared: one record that travels with the weights."""

from dataclasses import asdict, dataclass
from typing import Any

from fcnseg.errors import InputError

IMAGE_TYPES = ("uint8", "uint16", "float32")
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model and to prepare images for it.

    Attributes:
        name: registry name, such as "fcn8s_vgg16".
        num_classes: channels of the logits.
        in_channels: channels of the image.
        padding: "same" or "caffe", see `fcnseg.models.backbones`.
        width: factor on every channel count of the backbone and of fc6 and fc7.
        dropout: probability after fc6 and fc7.
        mean, std: per channel of the network's input, in image values (0 to 255 for 8-bit images).
        channel_order: "rgb", or "bgr" for networks trained with Caffe, which see blue first; images and
            `FCN.normalise` are RGB in both cases, mean and std are in the network's order.
        image_type: the values of images, after scaling: "uint8", "uint16" or "float32".
        scaling: a logarithmic scale that images are brought to before all else, see `fcnseg.data.transforms`.
        input_size: (height, width) that images are resized to before the model; None keeps their size.
        label_space: `LabelSpace.to_dict()` of the classes, or None.

    Raises:
        InputError: for a value out of range.
    """

    name: str
    num_classes: int
    in_channels: int = 3
    padding: str = "same"
    width: float = 1.0
    dropout: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: str = "rgb"
    image_type: str = "uint8"
    scaling: str | None = None
    input_size: tuple[int, int] | None = None
    label_space: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise InputError(f"num_classes={self.num_classes}: expected at least 1")
        if not 0 <= self.dropout <= 1:
            raise InputError(f"dropout={self.dropout}: expected a probability, from 0 to 1")
        order, channels = self.channel_order, self.in_channels
        if order not in ("rgb", "bgr") or (order == "bgr" and channels != 3):
            raise InputError(f"channel_order={order}: expected rgb, or bgr with in_channels=3")
        if self.image_type not in IMAGE_TYPES:
            raise InputError(f"image_type={self.image_type}: expected one of {', '.join(IMAGE_TYPES)}")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std={list(self.std)}: expected positive values")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON and for checkpoints that load without executing code."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
