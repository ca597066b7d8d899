"""Backbones: convolutional trunks that hand feature maps (taps) to the FCN head.

The trunks of the literature are plain chains of named layers; any other comes out of timm (`timm_backbones`).
Their geometry is read from what their layers do, so the two cannot disagree. Two paddings:

- "caffe": the first convolution is padded by 100 and poolings round up, as in the reference networks.
- "same": the paddings that torchvision and timm publish the trunks with, so that ImageNet weights see what they
  were trained on. (CaffeNet takes AlexNet's: with none on conv1, as published, pool1 would begin 9 pixels into the
  image, more than its stride.) Poolings round up; what would still be left out at an image's end, `FCN` pads.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from fcnseg.models.recomputing import recomputed

_CAFFE_PADDING = 100


class Backbone(nn.Module, ABC):
    """A trunk and what the head must know of it.

    Args:
        taps: names of the feature maps that `forward` returns, fine to coarse: strides 8, 16 and 32, and 4 and 2 where
            the head scores them, times the stem's.
        channels: channels of each tap.
        fc6_kernel: kernel of the classifier's first layer, which the head turns into a convolution.
        fc_channels: channels of fc6 and fc7 in the head.
    """

    def __init__(self, taps: tuple[str, ...], channels: tuple[int, ...], fc6_kernel: int, fc_channels: int) -> None:
        super().__init__()
        self.taps = taps
        self.channels = dict(zip(taps, channels, strict=True))
        self.fc6_kernel, self.fc_channels = fc6_kernel, fc_channels

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) float images to the taps, (N, channels, h, w) each, by name."""

    def initialise(self) -> None:
        """Start anew, from random weights."""
        initialise(self)


class Chain(Backbone):
    """A backbone that is a chain of named layers, in order; some of their outputs are the taps."""

    def __init__(
        self,
        layers: "OrderedDict[str, nn.Module]",
        taps: tuple[str, ...],
        channels: tuple[int, ...],
        fc6_kernel: int,
        fc_channels: int,
    ) -> None:
        super().__init__(taps, channels, fc6_kernel, fc_channels)
        self.checkpoint_activations = False
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.checkpoint_activations:
            return self._in_blocks(images)
        taps = {}
        x = images
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.taps:
                taps[name] = x
        return taps

    def _in_blocks(self, images: Tensor) -> dict[str, Tensor]:
        """The same, but from one pooling or tap to the next nothing is kept for the backward pass."""
        taps, x = {}, images
        block: list[nn.Module] = []
        for name, layer in self.named_children():
            block.append(layer)
            if name in self.taps or isinstance(layer, nn.MaxPool2d):
                x = recomputed(partial(_run, tuple(block)), x, self)
                block = []
            if name in self.taps:
                taps[name] = x
        return taps


def _run(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _vgg(
    in_channels: int,
    padding: str,
    width: float,
    stem: int,
    finest: int,
    convolutions: Sequence[int],
    batch_norm: bool = False,
) -> Chain:
    """VGG (Simonyan and Zisserman 2015; VGG-16 is configuration D, VGG-19 E), with or without batch normalisation.

    A stem of 2 strides conv1_1, one of 4 conv1_2 as well.
    """
    strides = {"conv1_1": 2 if stem > 1 else 1, "conv1_2": 2 if stem > 2 else 1}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, taps = in_channels, {}
    for block, (number, base) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True), start=1):
        for i in range(1, number + 1):
            pad = _CAFFE_PADDING * stem if padding == "caffe" and not layers else 1
            name = f"conv{block}_{i}"
            layers[name] = nn.Conv2d(channels, scaled(base, width), 3, strides.get(name, 1), pad)
            channels = scaled(base, width)
            if batch_norm:
                layers[f"bn{block}_{i}"] = nn.BatchNorm2d(channels)
            layers[f"relu{block}_{i}"] = nn.ReLU(inplace=True)
        layers[f"pool{block}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        if 2**block >= finest:
            taps[f"pool{block}"] = channels
    return Chain(layers, tuple(taps), tuple(taps.values()), 7, scaled(4096, width))


def _alexnet(
    in_channels: int,
    padding: str,
    width: float,
    stem: int,
    finest: int,
    channels: Sequence[int],
    groups: Sequence[int],
    normalise: bool,
) -> Chain:
    """The five convolutions of AlexNet; poolings of stride 2 follow conv1, conv2 and conv5.

    A stem of 2 strides conv1 by 8, one of 4 conv2 by 2 as well.
    """
    pads = (_CAFFE_PADDING * stem if padding == "caffe" else 2, 2, 1, 1, 1)
    strides = (8 if stem > 1 else 4, 2 if stem > 2 else 1, 1, 1, 1)
    widths = [scaled(c, width) for c in channels]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = in_channels
    for i, (kernel, out) in enumerate(zip((11, 5, 3, 3, 3), widths, strict=True), start=1):
        layers[f"conv{i}"] = nn.Conv2d(inputs, out, kernel, strides[i - 1], pads[i - 1], groups=groups[i - 1])
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        inputs = out
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        if normalise and i in (1, 2):
            layers[f"norm{i}"] = LocalResponseNorm(5, alpha=1e-4, beta=0.75)
    taps = {"relu1": widths[0]} if finest < 8 else {}
    taps |= {"pool1": widths[0], "pool2": widths[1], "pool5": widths[4]}
    return Chain(layers, tuple(taps), tuple(taps.values()), 6, scaled(4096, width))


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's, in float32 where the input has half precision, for which torch's fails on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.dtype in (torch.float16, torch.bfloat16)
        return super().forward(x.float()).to(x.dtype) if half else super().forward(x)


class _Builder(Protocol):
    def __call__(self, in_channels: int, padding: str, width: float, stem: int, finest: int) -> Backbone: ...


BACKBONES: dict[str, _Builder] = {
    "vgg16": partial(_vgg, convolutions=(2, 2, 3, 3, 3)),
    "vgg16_bn": partial(_vgg, convolutions=(2, 2, 3, 3, 3), batch_norm=True),
    "vgg19": partial(_vgg, convolutions=(2, 2, 4, 4, 4)),
    # torchvision's (Krizhevsky 2014, "One weird trick"): one tower, no normalisation.
    "alexnet": partial(_alexnet, channels=(64, 192, 384, 256, 256), groups=(1, 1, 1, 1, 1), normalise=False),
    # CaffeNet, the trunk of the reference FCN-AlexNet: two groups, pooling before normalisation.
    "caffenet": partial(_alexnet, channels=(96, 256, 384, 384, 256), groups=(1, 2, 1, 2, 2), normalise=True),
}

FINEST = {"vgg16": 2, "vgg16_bn": 2, "vgg19": 2, "alexnet": 4, "caffenet": 4}
"""The stride of the finest tap of each without a strided stem; AlexNet's first convolution strides 4 pixels."""


def scaled(channels: int, width: float) -> int:
    """Channel count times width, kept a multiple of 8 (groups divide it, vector units like it)."""
    return max(8, round(channels * width / 8) * 8)


def create_backbone(
    name: str, in_channels: int = 3, padding: str = "same", width: float = 1.0, stem: int = 1, finest: int = 8
) -> Backbone:
    """Build a backbone by its name in `BACKBONES`.

    Args:
        in_channels, padding, width: as `ModelSpec` has checked them.
        stem: 1, 2 or 4.
        finest: stride of the finest tap, without the stem: 8, 4 or 2, and no less than its `FINEST`.
    """
    return BACKBONES[name](in_channels=in_channels, padding=padding, width=width, stem=stem, finest=finest)


def initialise(module: nn.Module) -> None:
    """He initialisation (He et al. 2015) of convolutions that a ReLU follows; biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
