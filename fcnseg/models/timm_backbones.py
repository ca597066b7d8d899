"""Backbones out of timm (the extra `timm`): any network with feature maps at strides 8, 16 and 32, or from 4 or 2 on.

Whether such a network fits is read from its own layers (`fcnseg.models.tracing`), not from a list.
"""

from importlib.util import find_spec
from typing import Any

from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.models.backbones import Backbone

# Offered by name, with the stride of their finest features; any other of timm's with a readable geometry works as well.
OFFERED = {
    "resnet18": 2, "resnet34": 2, "resnet50": 2, "resnet101": 2, "convnext_tiny": 4, "convnext_small": 4,
    "densenet121": 2, "efficientnet_b0": 2, "mobilenetv3_large_100": 2, "regnety_016": 2,
}  # fmt: skip

_STRIDES = (2, 4, 8, 16, 32)


def is_installed() -> bool:
    return find_spec("timm") is not None


def has_backbone(name: str) -> bool:
    """Whether timm is installed and has a network of that name."""
    if not is_installed():
        return False
    import timm

    return timm.is_model(name)


class TimmBackbone(Backbone):
    """The features of a timm network from stride `finest` to 32, as taps `stride8`, `stride16` and `stride32`.

    The head over them is narrower than VGG's, as usual for trunks that end in many channels: fc6 is a 3x3
    convolution to 512 channels.

    Raises:
        InputError: when the network offers no such features.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: bool = False, finest: int = 8) -> None:
        import timm

        try:
            body: Any = timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=pretrained)
        except (RuntimeError, AttributeError, AssertionError, TypeError, KeyError) as error:
            raise InputError(f"timm's {name} offers no feature maps ({str(error).splitlines()[0]})") from error
        strides, wanted = body.feature_info.reduction(), [stride for stride in _STRIDES if stride >= finest]
        if missing := [stride for stride in wanted if stride not in strides]:
            raise InputError(f"timm's {name} has features at strides {strides}, none at {missing[0]}")
        channels = dict(zip(strides, body.feature_info.channels(), strict=True))
        taps = tuple(f"stride{stride}" for stride in wanted)
        super().__init__(taps, tuple(channels[stride] for stride in wanted), fc6_kernel=3, fc_channels=512)
        self.body, self.strides = body, strides

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = {f"stride{stride}": x for stride, x in zip(self.strides, self.body(images), strict=True)}
        return {tap: features[tap] for tap in self.taps}

    def initialise(self) -> None:
        """timm has done so, in the way that suits the network."""
