"""A network in PyTorch and exported: seconds for an image, size of the file, and how many pixels keep their class.

All take turns, image by image; medians are printed, and the operations a second (two for a multiply-add of the network)
beside those of a product of square matrices in float32. The network is untrained and its scores are random, which is as
hard on the agreement of fewer bits as it gets. int8 is calibrated on the embedded scenes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcnseg.data import CityScenes
from fcnseg.export import Recipe, export
from fcnseg.inference.exported import load_exported
from fcnseg.models import FCN, create_model, optimise, summarise

EXAMPLE = "example: python scripts/benchmark_exported.py --model fcn8s_vgg16 --size 360 480 --rounds 7"

RECIPES = {
    "onnxruntime": ("onnx", "32-true", "onnx"),
    "OpenVINO": ("openvino", "32-true", "xml"),
    "OpenVINO, bf16": ("openvino", "bf16-mixed", "xml"),
    "onnxruntime, int8": ("onnx", "int8", "onnx"),
    "OpenVINO, int8": ("openvino", "int8", "xml"),
}
"""By the name of a row: format, precision, and the file's ending."""


def built(options: argparse.Namespace) -> FCN:
    torch.manual_seed(0)
    model = create_model(options.model, num_classes=11, width=options.width, padding=options.padding)
    for name, module in model.named_children():
        if name.startswith("score"):
            torch.nn.init.normal_(module.weight)
    return model.eval()


def scenes(size: list[int], count: int) -> list[Tensor]:
    """(1, 3, H, W) uint8 images."""
    dataset = CityScenes(count, 0, "photo", (size[0], size[1]))
    return [torch.from_numpy(dataset[i][0].transpose(2, 0, 1))[None].contiguous() for i in range(count)]


def made(model: FCN, options: argparse.Namespace, images: list[Tensor]) -> dict[str, Path]:
    """The exported files by the names of their rows; those that are there already stay."""
    paths = {}
    for name in options.rows:
        kind, precision, suffix = RECIPES[name]
        path = options.folder / f"{options.model}_{options.width:g}_{options.padding}_{precision}.{suffix}"
        if not path.exists():
            export(model, Recipe(kind, precision), path, lambda: (image.float().numpy() for image in images))
        paths[name] = path
    return paths


def megabytes(path: Path) -> float:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.stem}.*") if _belongs(each, path)) / 1e6


def _belongs(each: Path, path: Path) -> bool:
    return each == path or (path.suffix == ".xml" and each.suffix == ".bin")


def product_rate(side: int = 2048) -> float:
    """GFLOP/s of a product of square matrices in float32."""
    matrix = torch.ones(side, side)
    began = time.perf_counter()
    matrix @ matrix
    return 2 * side**3 / (time.perf_counter() - began) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fcn8s_vgg16")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--padding", default="same")
    parser.add_argument("--size", type=int, nargs=2, default=[360, 480], help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calibration", type=int, default=16, help="images for int8")
    parser.add_argument("--rows", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--folder", type=Path, default=Path("runs/exported"), help="for the files")
    options = parser.parse_args()
    model, images = built(options), scenes(options.size, options.calibration)
    paths = made(model, options, images)
    networks: dict[str, Callable[[Tensor], Tensor]] = {
        "PyTorch": model.logits,
        "PyTorch, optimised": optimise(model).logits,
    }
    networks |= {name: load_exported(path).logits for name, path in paths.items()}
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    sizes = dict.fromkeys(networks, weights) | {name: megabytes(path) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    same: dict[str, list[float]] = {name: [] for name in networks}
    operations = 2 * summarise(model, tuple(options.size)).multiply_adds / 1e9
    ceiling: list[float] = []
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            image = images[turn % len(images)]
            masks = {}
            for name, network in networks.items():
                began = time.perf_counter()
                masks[name] = network(image).argmax(1)
                times[name] += [time.perf_counter() - began] if turn else []
            ceiling.append(product_rate())
            for name, mask in masks.items():
                same[name].append(float((mask == masks["PyTorch"]).double().mean()))
    print(
        "| runtime | one image | times as fast | GFLOP/s | file | pixels of the same class |\n|---|---|---|---|---|---|"
    )
    first = statistics.median(times["PyTorch"])
    for name in networks:
        median = statistics.median(times[name])
        share = np.mean(same[name])
        rate = operations / median
        print(f"| {name} | {median:.3f} s | {first / median:.2f} | {rate:.0f} | {sizes[name]:.0f} MB | {share:.2%} |")
    print(f"product of matrices in float32: {statistics.median(ceiling):.0f} GFLOP/s")


if __name__ == "__main__":
    main()
