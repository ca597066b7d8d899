"""Compare the reference networks with OpenCV's Caffe importer, which knows nothing of PyTorch or of fcnseg.

Writes each of Berkeley's networks as a prototxt and a .caffemodel with seeded weights, runs both programs on
the same files and prints the largest difference of their scores, relative to the largest score.

OpenCV 5 has no Caffe importer any more: this needs opencv-python-headless<5.
"""

import argparse
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import torch

from fcnseg.models import create_model
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.weights import load_caffe_weights

CLASSES = 21
EXAMPLE = "example: python scripts/reference_oracle.py 8s alexnet --size 97x131 64x96"


class Net:
    """A network in Caffe's terms: the text of its prototxt, and its weights."""

    def __init__(self) -> None:
        self.layers = ""
        self.weights = NetParameter()
        self.channels = {"data": 3}

    def layer(self, kind: str, name: str, bottoms: Iterable[str], parameters: str = "") -> str:
        """Add a layer whose output has its own name, and return that."""
        inputs = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.layers += f'layer {{ name: "{name}" type: "{kind}" {inputs} top: "{name}" {parameters} }}\n'
        self.channels[name] = self.channels[next(iter(bottoms))]
        return name

    def blobs(self, name: str, *arrays: np.ndarray) -> None:
        layer = self.weights.layer.add(name=name.encode())
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.append(array.astype("<f4").tobytes())

    def prototxt(self, height: int, width: int) -> str:
        dims = " ".join(f"dim: {n}" for n in (1, 3, height, width))
        return f'input: "data"\ninput_shape {{ {dims} }}\n{self.layers}'

    def convolution(
        self, name: str, bottom: str, outputs: int, kernel: int, pad: int = 0, stride: int = 1, group: int = 1
    ) -> str:
        shape = (outputs, self.channels[bottom] // group, kernel, kernel)
        self.blobs(name, *seeded(name, shape))
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
        self.blobs(name, np.full(self.channels[bottom], factor, np.float32))
        return self.layer("Scale", name, [bottom], "scale_param { bias_term: false }")

    def deconvolution(self, name: str, bottom: str, kernel: int, stride: int) -> str:
        """Bilinear, from each class to itself, as the published networks carry it."""
        blob = np.zeros((CLASSES, CLASSES, kernel, kernel), np.float32)
        blob[range(CLASSES), range(CLASSES)] = tent(kernel)
        self.blobs(name, blob)
        values = f"num_output: {CLASSES} kernel_size: {kernel} stride: {stride} bias_term: false"
        return self.layer("Deconvolution", name, [bottom], f"convolution_param {{ {values} }}")

    def crop(self, name: str, bottom: str, like: str, offset: int) -> str:
        return self.layer("Crop", name, [bottom, like], f"crop_param {{ axis: 2 offset: {offset} }}")

    def fuse(self, name: str, a: str, b: str) -> str:
        return self.layer("Eltwise", name, [a, b], "eltwise_param { operation: SUM }")

    def classifier(self, pool5: str, kernel: int) -> str:
        x = self.relu(self.convolution("fc6", pool5, 4096, kernel))
        x = self.relu(self.convolution("fc7", x, 4096, 1))
        return self.convolution("score_fr", x, CLASSES, 1)

    def vgg16(self) -> str:
        x = "data"
        for block, (convolutions, outputs) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
            for i in range(1, convolutions + 1):
                pad = 100 if x == "data" else 1
                x = self.relu(self.convolution(f"conv{block}_{i}", x, outputs, 3, pad))
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
    score = net.convolution(f"score_{tap}", bottom, CLASSES, 1)
    return net.fuse(f"fuse_{tap}", up, net.crop(f"score_{tap}c", score, up, offset))


def fcn_alexnet(net: Net) -> None:
    x = net.relu(net.convolution("conv1", "data", 96, 11, pad=100, stride=4))
    x = net.norm("norm1", net.pool("pool1", x, 3))
    x = net.relu(net.convolution("conv2", x, 256, 5, pad=2, group=2))
    x = net.norm("norm2", net.pool("pool2", x, 3))
    x = net.relu(net.convolution("conv3", x, 384, 3, pad=1))
    x = net.relu(net.convolution("conv4", x, 384, 3, pad=1, group=2))
    x = net.relu(net.convolution("conv5", x, 256, 3, pad=1, group=2))
    score = net.classifier(net.pool("pool5", x, 3), 6)
    net.crop("score", net.deconvolution("upscore", score, 63, 32), "data", 18)


NETWORKS: dict[str, tuple[str, Callable[[Net], None]]] = {
    "32s": ("fcn32s_vgg16", fcn32s),
    "16s": ("fcn16s_vgg16", fcn16s),
    "8s": ("fcn8s_vgg16", fcn8s),
    "8s-atonce": ("fcn8s_vgg16_atonce", fcn8s_atonce),
    "alexnet": ("fcn32s_caffenet", fcn_alexnet),
}
"""fcnseg's name and Berkeley's layers, with the crops, kernels and scales as published (net.py, val.prototxt)."""


def seeded(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution, seeded by its name: He's standard deviation, and 0.1."""
    weight = np.random.default_rng(zlib.crc32(f"{name}.w".encode())).standard_normal(shape)
    weight *= np.sqrt(2 / np.prod(shape[1:]))
    bias = np.random.default_rng(zlib.crc32(f"{name}.b".encode())).standard_normal(shape[:1]) * 0.1
    return weight.astype(np.float32), bias.astype(np.float32)


def tent(size: int) -> np.ndarray:
    """(size, size) bilinear weights around the middle."""
    ramp = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    return np.outer(ramp, ramp)


def compare(network: str, sizes: list[tuple[int, int]], folder: Path) -> None:
    """Write a network into `folder`, and print how far the two programs are apart at each size."""
    name, write = NETWORKS[network]
    net = Net()
    write(net)
    caffemodel = folder / f"{network}.caffemodel"
    caffemodel.write_bytes(net.weights.SerializeToString())
    net.weights.Clear()
    model = create_model(name, num_classes=CLASSES, padding="caffe").eval()
    load_caffe_weights(model, caffemodel, prepare=False, verbose=False)
    for height, width in sizes:
        prototxt = folder / f"{network}-{height}x{width}.prototxt"
        prototxt.write_text(net.prototxt(height, width))
        x = (np.random.default_rng(7).standard_normal((1, 3, height, width)) * 50).astype(np.float32)
        importer = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
        importer.setInput(x)
        expected = importer.forward("score")
        with torch.inference_mode():
            scores = model(torch.from_numpy(x)).numpy()
        if scores.shape != expected.shape:
            sys.exit(f"{network} {height}x{width}: OpenCV's scores have shape {expected.shape}, not {scores.shape}")
        largest = np.abs(expected).max()
        print(f"{network:10} {height}x{width}: {np.abs(scores - expected).max() / largest:.1e} of {largest:.4g}")


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text}: expected height and width in pixels, such as 97x131")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="network", help=f"{', '.join(NETWORKS)} (default: all)")
    parser.add_argument(
        "--size", nargs="+", type=image_size, default=[(97, 131), (64, 96)], metavar="HxW", help="default: 97x131 64x96"
    )
    parser.add_argument("--folder", type=Path, help="keep the networks' files here, 540 MB each")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"unknown network {', '.join(sorted(unknown))}; expected some of {', '.join(NETWORKS)}")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        print(
            f"OpenCV {cv2.__version__} has no Caffe importer; expected 4.x: opencv-python-headless<5", file=sys.stderr
        )
        sys.exit(2)
    for network in arguments.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = arguments.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            compare(network, arguments.size, folder)


if __name__ == "__main__":
    main()
