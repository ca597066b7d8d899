"""Berkeley's published networks in Caffe's own terms, at any width, with seeded weights.

Nothing here knows PyTorch or fcnseg: scripts/reference_oracle.py gives these networks to OpenCV, and the tests give
the same weights to the library.
"""

import zlib
from collections.abc import Callable, Iterable

import numpy as np

WIDTH = 0.1
"""The factor on the channels of the networks whose scores are committed in tests/models/oracle."""

CLASSES = 3
"""The classes of those networks."""

SIZES = [(33, 47), (40, 96), (1, 1)]
"""Height and width of the images that they score."""


class Net:
    """A network in Caffe's terms: the text of its prototxt, and its weights.

    Attributes:
        classes: channels of the `score` blob.
        width: factor on every other number of channels.
        layers: the layers of the prototxt.
        blobs: float32 arrays of each layer that has weights, by its name and in Caffe's order and shapes.
        channels: of each layer's output, by its name.
    """

    def __init__(self, classes: int = 21, width: float = 1.0) -> None:
        self.classes, self.width = classes, width
        self.layers = ""
        self.blobs: dict[str, list[np.ndarray]] = {}
        self.channels = {"data": 3}

    def prototxt(self, height: int, width: int) -> str:
        dims = " ".join(f"dim: {n}" for n in (1, 3, height, width))
        return f'input: "data"\ninput_shape {{ {dims} }}\n{self.layers}'

    def scaled(self, channels: int) -> int:
        """Channels times the width: a multiple of 8, so that groups divide it, and at least that."""
        return max(8, round(channels * self.width / 8) * 8)

    def layer(self, kind: str, name: str, bottoms: Iterable[str], parameters: str = "") -> str:
        """Add a layer whose output has its own name, and return that."""
        inputs = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.layers += f'layer {{ name: "{name}" type: "{kind}" {inputs} top: "{name}" {parameters} }}\n'
        self.channels[name] = self.channels[next(iter(bottoms))]
        return name

    def convolution(
        self, name: str, bottom: str, outputs: int, kernel: int, pad: int = 0, stride: int = 1, group: int = 1
    ) -> str:
        self.blobs[name] = list(seeded(name, (outputs, self.channels[bottom] // group, kernel, kernel)))
        values = f"num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride} group: {group}"
        self.layer("Convolution", name, [bottom], f"convolution_param {{ {values} }}")
        self.channels[name] = outputs
        return name

    def relu(self, bottom: str) -> str:
        return self.layer("ReLU", f"relu_{bottom}", [bottom])

    def pool(self, name: str, bottom: str, kernel: int) -> str:
        return self.layer("Pooling", name, [bottom], f"pooling_param {{ pool: MAX kernel_size: {kernel} stride: 2 }}")

    def norm(self, name: str, bottom: str) -> str:
        return self.layer("LRN", name, [bottom], "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def scale(self, name: str, bottom: str, factor: float) -> str:
        self.blobs[name] = [np.full(self.channels[bottom], factor, np.float32)]
        return self.layer("Scale", name, [bottom], "scale_param { bias_term: false }")

    def deconvolution(self, name: str, bottom: str, kernel: int, stride: int) -> str:
        """Bilinear, from each class to itself, as the published networks carry it."""
        blob = np.zeros((self.classes, self.classes, kernel, kernel), np.float32)
        blob[range(self.classes), range(self.classes)] = tent(kernel)
        self.blobs[name] = [blob]
        values = f"num_output: {self.classes} kernel_size: {kernel} stride: {stride} bias_term: false"
        return self.layer("Deconvolution", name, [bottom], f"convolution_param {{ {values} }}")

    def crop(self, name: str, bottom: str, like: str, offset: int) -> str:
        return self.layer("Crop", name, [bottom, like], f"crop_param {{ axis: 2 offset: {offset} }}")

    def fuse(self, name: str, a: str, b: str) -> str:
        return self.layer("Eltwise", name, [a, b], "eltwise_param { operation: SUM }")

    def classifier(self, pool5: str, kernel: int) -> str:
        x = self.relu(self.convolution("fc6", pool5, self.scaled(4096), kernel))
        x = self.relu(self.convolution("fc7", x, self.scaled(4096), 1))
        return self.convolution("score_fr", x, self.classes, 1)

    def vgg16(self) -> str:
        x = "data"
        for block, (convolutions, outputs) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
            for i in range(1, convolutions + 1):
                pad = 100 if x == "data" else 1
                x = self.relu(self.convolution(f"conv{block}_{i}", x, self.scaled(outputs), 3, pad))
            x = self.pool(f"pool{block}", x, 2)
        return x


def fcn32s(net: Net) -> None:
    score = net.classifier(net.vgg16(), 7)
    net.crop("score", net.deconvolution("upscore", score, 64, 32), "data", 19)


def fcn16s(net: Net) -> None:
    score = net.classifier(net.vgg16(), 7)
    fused = skip(net, "pool4", net.deconvolution("upscore2", score, 4, 2), 5)
    net.crop("score", net.deconvolution("upscore16", fused, 32, 16), "data", 27)


def fcn8s(net: Net, scale_pool4: float | None = None, scale_pool3: float | None = None) -> None:
    score = net.classifier(net.vgg16(), 7)
    fused = skip(net, "pool4", net.deconvolution("upscore2", score, 4, 2), 5, scale_pool4)
    fused = skip(net, "pool3", net.deconvolution("upscore_pool4", fused, 4, 2), 9, scale_pool3)
    net.crop("score", net.deconvolution("upscore8", fused, 16, 8), "data", 31)


def fcn8s_atonce(net: Net) -> None:
    fcn8s(net, scale_pool4=0.01, scale_pool3=0.0001)


def skip(net: Net, tap: str, up: str, offset: int, scale: float | None = None) -> str:
    """The upsampled scores and the cropped scores of a finer pooling, summed."""
    bottom = net.scale(f"scale_{tap}", tap, scale) if scale else tap
    score = net.convolution(f"score_{tap}", bottom, net.classes, 1)
    if scale:  # or the skip would hardly show in the scores: pool3 comes in at a ten thousandth
        net.blobs[score][0] /= scale
    return net.fuse(f"fuse_{tap}", up, net.crop(f"score_{tap}c", score, up, offset))


def fcn_alexnet(net: Net) -> None:
    x = net.relu(net.convolution("conv1", "data", net.scaled(96), 11, pad=100, stride=4))
    x = net.norm("norm1", net.pool("pool1", x, 3))
    x = net.relu(net.convolution("conv2", x, net.scaled(256), 5, pad=2, group=2))
    x = net.norm("norm2", net.pool("pool2", x, 3))
    x = net.relu(net.convolution("conv3", x, net.scaled(384), 3, pad=1))
    x = net.relu(net.convolution("conv4", x, net.scaled(384), 3, pad=1, group=2))
    x = net.relu(net.convolution("conv5", x, net.scaled(256), 3, pad=1, group=2))
    score = net.classifier(net.pool("pool5", x, 3), 6)
    net.crop("score", net.deconvolution("upscore", score, 63, 32), "data", 18)


NETWORKS: dict[str, Callable[[Net], None]] = {
    "32s": fcn32s,
    "16s": fcn16s,
    "8s": fcn8s,
    "8s-atonce": fcn8s_atonce,
    "alexnet": fcn_alexnet,
}
"""Berkeley's layers, with the crops, kernels and scales as published (net.py, val.prototxt)."""

MODELS = {
    "32s": "fcn32s_vgg16",
    "16s": "fcn16s_vgg16",
    "8s": "fcn8s_vgg16",
    "8s-atonce": "fcn8s_vgg16_atonce",
    "alexnet": "fcn32s_caffenet",
}
"""What fcnseg calls each of them."""


def seeded_network(network: str, classes: int = 21, width: float = 1.0) -> Net:
    """One of `NETWORKS`; at full size it has up to 540 MB of weights."""
    net = Net(classes, width)
    NETWORKS[network](net)
    return net


def seeded(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution, seeded by its name: He's standard deviation, and 0.1."""
    weight = np.random.default_rng(zlib.crc32(f"{name}.w".encode())).standard_normal(shape)
    weight *= np.sqrt(2 / np.prod(shape[1:]))
    bias = np.random.default_rng(zlib.crc32(f"{name}.b".encode())).standard_normal(shape[:1]) * 0.1
    return weight.astype(np.float32), bias.astype(np.float32)


def seeded_image(height: int, width: int) -> np.ndarray:
    """(1, 3, height, width) float32 values, about as large as pixels less their mean."""
    return (np.random.default_rng(7).standard_normal((1, 3, height, width)) * 50).astype(np.float32)


def tent(size: int) -> np.ndarray:
    """(size, size) bilinear weights around the middle."""
    ramp = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    return np.outer(ramp, ramp)
