"""FCN-8s over VGG-16 and the networks that it is compared with, all with random weights."""

from collections.abc import Callable
from importlib.util import find_spec

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

from fcnseg.models import create_model
from fcnseg.models.backbones import scaled

CLASSES = 21
PLAIN = "plain, padded by 100"
"""The network that all others are compared with."""


class PlainFCN8s(nn.Module):
    """voc-fcn8s line by line (Shelhamer, Long and Darrell 2016), as most ports of it are written."""

    def __init__(self, width: float = 1.0, classes: int = CLASSES) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels, padding = 3, 100
        for number, base in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True):
            layers: list[nn.Module] = []
            for _ in range(number):
                layers += [nn.Conv2d(channels, scaled(base, width), 3, padding=padding), nn.ReLU(inplace=True)]
                channels, padding = scaled(base, width), 1
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2, ceil_mode=True)))
        self.fc6 = nn.Conv2d(channels, scaled(4096, width), 7)
        self.fc7 = nn.Conv2d(scaled(4096, width), scaled(4096, width), 1)
        self.score_fr = nn.Conv2d(scaled(4096, width), classes, 1)
        self.score_pool4 = nn.Conv2d(scaled(512, width), classes, 1)
        self.score_pool3 = nn.Conv2d(scaled(256, width), classes, 1)
        self.upscore2 = nn.ConvTranspose2d(classes, classes, 4, 2, bias=False)
        self.upscore_pool4 = nn.ConvTranspose2d(classes, classes, 4, 2, bias=False)
        self.upscore8 = nn.ConvTranspose2d(classes, classes, 16, 8, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        taps = []
        x = images
        for block in self.blocks:
            x = block(x)
            taps.append(x)
        x = F.dropout(F.relu(self.fc6(x)), training=self.training)
        x = F.dropout(F.relu(self.fc7(x)), training=self.training)
        x = self.upscore2(self.score_fr(x))
        x = self.upscore_pool4(x + _crop(self.score_pool4(taps[3]), 5, x))
        x = self.upscore8(x + _crop(self.score_pool3(taps[2]), 9, x))
        return _crop(x, 31, images)


def _crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    return x[..., offset : offset + like.shape[-2], offset : offset + like.shape[-1]]


class Padded(nn.Module):
    """A network that wants sides divisible by 32, for images of any size: zeros at their ends, cut off the logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.network(F.pad(images, (0, -width % 32, 0, -height % 32)))[..., :height, :width]


def _torchvision(width: float, classes: int = CLASSES) -> nn.Module:
    return fcn_resnet50(weights=None, weights_backbone=None, num_classes=classes)


def _ours(padding: str) -> Callable[..., nn.Module]:
    def make(width: float, classes: int = CLASSES) -> nn.Module:
        return create_model("fcn8s_vgg16", num_classes=classes, padding=padding, width=width)

    return make


def _smp(architecture: str) -> Callable[..., nn.Module]:
    def make(width: float, classes: int = CLASSES) -> nn.Module:
        import segmentation_models_pytorch as smp

        return Padded(getattr(smp, architecture)("vgg16", encoder_weights=None, classes=classes))

    return make


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    PLAIN: PlainFCN8s,
    "fcn8s_vgg16, padding=caffe": _ours("caffe"),
    "fcn8s_vgg16, padding=same": _ours("same"),
    "torchvision fcn_resnet50": _torchvision,
}
"""By name, what makes a network of a width, where it has one, and a number of classes."""

if find_spec("segmentation_models_pytorch"):  # of the extra `dev`
    NETWORKS |= {f"smp {name}, VGG-16": _smp(name) for name in ("Unet", "FPN")}
