"""Compare the reference networks with OpenCV's Caffe importer, which knows nothing of PyTorch or of fcnseg.

Writes each of Berkeley's networks as a prototxt and a .caffemodel with seeded weights, runs both programs on
the same files and prints the largest difference of their scores, relative to the largest score.

With --write it runs OpenCV alone, on networks a tenth as wide and with few classes, and writes its scores to
FOLDER/NETWORK.npz: one array (1, classes, H, W) for each size, called HxW. The tests compare with those in
tests/models/oracle. The same machine writes the same bytes again; another may round differently.

OpenCV 5, which constraints.txt pins, has no Caffe importer any more. This script needs an environment of its own:

    python -m venv oracle && oracle/bin/pip install --editable . 'opencv-python-headless<5'
    oracle/bin/python scripts/reference_oracle.py --write tests/models/oracle
"""

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from reference_networks import CLASSES, MODELS, NETWORKS, SIZES, WIDTH, Net, seeded_image, seeded_network

from fcnseg.models import create_model
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.weights import load_caffe_weights

EXAMPLE = "example: python scripts/reference_oracle.py 8s alexnet --size 97x131 64x96"


def write_caffemodel(net: Net, path: Path) -> None:
    with path.open("wb") as file:
        for name, arrays in net.blobs.items():
            whole = NetParameter()
            layer = whole.layer.add(name=name.encode())
            for array in arrays:
                blob = layer.blobs.add()
                blob.shape.dim.extend(array.shape)
                blob.data.append(array.astype("<f4").tobytes())
            file.write(whole.SerializeToString())  # layers after one another, each a net, are one net


def opencv_scores(net: Net, caffemodel: Path, image: np.ndarray) -> np.ndarray:
    """The `score` blob, (1, classes, H, W), of a (1, 3, H, W) image; writes a prototxt beside the weights."""
    height, width = image.shape[2:]
    prototxt = caffemodel.with_name(f"{caffemodel.stem}-{height}x{width}.prototxt")
    prototxt.write_text(net.prototxt(height, width))
    importer = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    importer.enableWinograd(False)  # its 3x3 convolutions round off three times as much as plain sums
    importer.setInput(image)
    return importer.forward("score")


def compare(network: str, sizes: list[tuple[int, int]], width: float, folder: Path) -> None:
    """Write a network into `folder`, and print how far the two programs are apart at each size."""
    net = seeded_network(network, width=width)
    caffemodel = folder / f"{network}.caffemodel"
    write_caffemodel(net, caffemodel)
    net.blobs.clear()
    model = create_model(MODELS[network], num_classes=net.classes, padding="caffe", width=width).eval()
    load_caffe_weights(model, caffemodel, prepare=False, verbose=False)
    for size in sizes:
        image = seeded_image(*size)
        expected = opencv_scores(net, caffemodel, image)
        with torch.inference_mode():
            scores = model(torch.from_numpy(image)).numpy()
        label = f"{network:10} {size[0]}x{size[1]}"
        if scores.shape != expected.shape:
            sys.exit(f"{label}: OpenCV's scores have shape {expected.shape}, not {scores.shape}")
        largest = np.abs(expected).max()
        print(f"{label}: {np.abs(scores - expected).max() / largest:.1e} of {largest:.4g}")


def write_scores(network: str, target: Path, folder: Path) -> None:
    """Write what OpenCV makes of a narrow network to `target`, and its files into `folder`."""
    cv2.setNumThreads(1)  # sums in one order, whatever the machine has to do besides
    net = seeded_network(network, CLASSES, WIDTH)
    caffemodel = folder / f"{network}.caffemodel"
    write_caffemodel(net, caffemodel)
    scores = {f"{h}x{w}": opencv_scores(net, caffemodel, seeded_image(h, w)) for h, w in SIZES}
    np.savez_compressed(target, **scores)
    print(f"{target}: {', '.join(scores)}, {target.stat().st_size} bytes")


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text}: expected height and width in pixels, such as 97x131")
    return int(height), int(width)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="network", help=f"{', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--size", nargs="+", type=image_size, metavar="HxW", help="default: 97x131 64x96")
    parser.add_argument("--width", type=positive, help="factor on the networks' channels (default: 1)")
    parser.add_argument("--folder", type=Path, help="keep the networks' files here, 540 MB each at full width")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write OpenCV's scores here, and compare nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"unknown network {', '.join(sorted(unknown))}; expected some of {', '.join(NETWORKS)}")
    if arguments.write and (arguments.size or arguments.width):
        parser.error("--write has sizes and a width of its own, which the tests know: leave out --size and --width")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        print(
            f"OpenCV {cv2.__version__} has no Caffe importer; expected 4.x, in an environment of its own: "
            "pip install 'opencv-python-headless<5'",
            file=sys.stderr,
        )
        sys.exit(2)
    for network in arguments.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = arguments.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            if arguments.write:
                arguments.write.mkdir(parents=True, exist_ok=True)
                write_scores(network, arguments.write / f"{network}.npz", folder)
            else:
                compare(network, arguments.size or [(97, 131), (64, 96)], arguments.width or 1.0, folder)


if __name__ == "__main__":
    main()
