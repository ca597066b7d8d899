"""Backbones: convolutional trunks that hand feature maps (taps) to the FCN head.

A backbone is a plain chain of named layers. Its geometry is read from those very layers, so the two
cannot disagree. Two paddings:

- "caffe": the first convolution is padded by 100 and poolings round up, as in the reference networks.
- "same": the least padding that keeps every tap aligned and covers images of any size. Block-centred
  trunks (VGG) need none beyond their own; trunks with 3x3 poolings of stride 2 (AlexNet) are padded by
  half a kernel, which puts the samples of every tap on multiples of its stride.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import Grid, Layer, trace

PADDINGS = ("same", "caffe")
_CAFFE_PADDING = 100


class Backbone(nn.Module):
    """A chain of named layers with the feature maps that the head reads.

    Args:
        layers: the chain, in order; names as in the literature (`conv1_1`, `pool3`, ...).
        taps: names of the layers whose outputs are taps, by stride: 8, 16 and 32.
        channels: channels of each tap.
        fc6_kernel: kernel of the classifier's first layer, which the head turns into a convolution.
    """

    def __init__(
        self, layers: "OrderedDict[str, nn.Module]", taps: tuple[str, ...], channels: tuple[int, ...], fc6_kernel: int
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.taps = taps
        self.channels = dict(zip(taps, channels, strict=True))
        self.fc6_kernel = fc6_kernel

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) float images to the taps, (N, channels, h, w) each, by name."""
        taps = {}
        x = images
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.taps:
                taps[name] = x
        return taps

    def grids(self) -> dict[str, Grid]:
        """The grid of every layer's output, by layer name."""
        return trace(read_layers(self))


def read_layers(chain: nn.Module) -> Iterator[Layer]:
    """The geometry of each convolution and pooling of a chain of layers, in order.

    Raises:
        InputError: for a layer with different values along height and width.
    """
    for name, module in chain.named_children():
        if not isinstance(module, nn.Conv2d | nn.MaxPool2d):
            continue
        values = [module.kernel_size, module.stride, module.padding, module.dilation]
        pairs = [v if isinstance(v, tuple) else (v, v) for v in values]
        if any(len(set(pair)) > 1 for pair in pairs):
            raise InputError(f"layer {name}: kernel, stride, padding or dilation differ between height and width")
        kernel, stride, padding, dilation = (int(pair[0]) for pair in pairs)
        yield Layer(name, kernel, stride, padding, dilation, ceil=getattr(module, "ceil_mode", False))


def _vgg16(in_channels: int, padding: str, width: float, batch_norm: bool = False) -> Backbone:
    """VGG-16 (Simonyan and Zisserman 2015, configuration D), with or without batch normalisation."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for block, (convolutions, base) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for i in range(1, convolutions + 1):
            pad = _CAFFE_PADDING if padding == "caffe" and not layers else 1
            layers[f"conv{block}_{i}"] = nn.Conv2d(channels, _scaled(base, width), 3, padding=pad)
            channels = _scaled(base, width)
            if batch_norm:
                layers[f"bn{block}_{i}"] = nn.BatchNorm2d(channels)
            layers[f"relu{block}_{i}"] = nn.ReLU(inplace=True)
        layers[f"pool{block}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
    channels_of_taps = (_scaled(256, width), _scaled(512, width), _scaled(512, width))
    return Backbone(layers, ("pool3", "pool4", "pool5"), channels_of_taps, fc6_kernel=7)


def _vgg16_bn(in_channels: int, padding: str, width: float) -> Backbone:
    return _vgg16(in_channels, padding, width, batch_norm=True)


def _alexnet_chain(
    in_channels: int, padding: str, widths: tuple[int, ...], groups: tuple[int, ...], normalise: bool
) -> Backbone:
    """The five convolutions of AlexNet; poolings of stride 2 follow conv1, conv2 and conv5."""
    caffe = padding == "caffe"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    kernels = [(11, 4, _CAFFE_PADDING if caffe else 5), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for i, ((kernel, stride, pad), out, group) in enumerate(zip(kernels, widths, groups, strict=True), start=1):
        layers[f"conv{i}"] = nn.Conv2d(channels, out, kernel, stride, pad, groups=group)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        channels = out
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2, padding=0 if caffe else 1, ceil_mode=True)
        if normalise and i in (1, 2):
            layers[f"norm{i}"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
    return Backbone(layers, ("pool1", "pool2", "pool5"), (widths[0], widths[1], widths[4]), fc6_kernel=6)


def _alexnet(in_channels: int, padding: str, width: float) -> Backbone:
    """torchvision's AlexNet (Krizhevsky 2014, "One weird trick"): one tower, no normalisation."""
    widths = tuple(_scaled(c, width) for c in (64, 192, 384, 256, 256))
    return _alexnet_chain(in_channels, padding, widths, groups=(1, 1, 1, 1, 1), normalise=False)


def _caffenet(in_channels: int, padding: str, width: float) -> Backbone:
    """CaffeNet, the trunk of the reference FCN-AlexNet: two groups, pooling before normalisation."""
    widths = tuple(_scaled(c, width) for c in (96, 256, 384, 384, 256))
    return _alexnet_chain(in_channels, padding, widths, groups=(1, 2, 1, 2, 2), normalise=True)


BACKBONES: dict[str, Callable[[int, str, float], Backbone]] = {
    "vgg16": _vgg16,
    "vgg16_bn": _vgg16_bn,
    "alexnet": _alexnet,
    "caffenet": _caffenet,
}


def _scaled(channels: int, width: float) -> int:
    """Channel count times width, kept a multiple of 8 (groups divide it, vector units like it)."""
    return max(8, round(channels * width / 8) * 8)


def create_backbone(name: str, in_channels: int = 3, padding: str = "same", width: float = 1.0) -> Backbone:
    """Build a backbone by its name in `BACKBONES`.

    Raises:
        InputError: for an unknown padding, or channels or width that are not positive.
    """
    if padding not in PADDINGS:
        raise InputError(f"padding {padding!r}: expected one of {', '.join(PADDINGS)}")
    if in_channels < 1 or not width > 0:
        raise InputError(f"in_channels={in_channels}, width={width}: expected positive numbers")
    return BACKBONES[name](in_channels, padding, width)


def initialise(module: nn.Module) -> None:
    """He initialisation (He et al. 2015) of convolutions that a ReLU follows; biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
