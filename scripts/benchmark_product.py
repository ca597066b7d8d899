"""Time fc6, fc7 and the score layers as convolutions and as products: what `fcnseg.models.product` chooses by.

Forward, and forward and backward, of FCN-8s VGG-16 at 360x480, alternating, medians; channels-last. A ratio is the
convolution's time over the product's.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from fcnseg.models.product import ProductConv2d

EXAMPLE = "example: python scripts/benchmark_product.py --batches 1 4 --rounds 7"
LAYERS = {"fc6": (512, 4096, 7, 3), "fc7": (4096, 4096, 1, 0), "score_fr": (4096, 21, 1, 0)}
"""Channels, kernel and padding."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(layer: nn.Module, images: torch.Tensor, what: str) -> float:
    images = images.detach().requires_grad_(what == "step")
    began = time.perf_counter()
    if what == "step":
        layer.zero_grad(set_to_none=True)
        layer(images).sum().backward()
    else:
        with torch.inference_mode():
            layer(images)
    return time.perf_counter() - began


def compare(pair: list[nn.Module], images: torch.Tensor, what: str, rounds: int) -> list[float]:
    """Medians in milliseconds, of rounds in which both have their turn; the first warms up."""
    taken: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for times, layer in zip(taken, pair, strict=True):
            once = seconds(layer, images, what)
            times += [once] if turn else []
    return [1000 * statistics.median(times) for times in taken]


def print_rows(batches: list[int], rounds: int) -> None:
    for name, (inputs, outputs, kernel, padding) in LAYERS.items():
        for dtype, kind in DTYPES.items():
            pair = [make(inputs, outputs, kernel, padding=padding) for make in (nn.Conv2d, ProductConv2d)]
            pair = [layer.to(kind).to(memory_format=torch.channels_last) for layer in pair]
            for batch in batches:
                images = torch.randn(batch, inputs, 12, 15, dtype=kind).to(memory_format=torch.channels_last)
                for what in ("forward", "step"):
                    convolution, product = compare(pair, images, what, rounds)
                    numbers = f"{convolution:.1f} | {product:.1f} | {convolution / product:.2f}"
                    print(f"| {name} | {dtype} | {batch} | {what} | {numbers} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| layer | precision | batch | what | convolution, ms | product, ms | ratio |\n" + "|---" * 7 + "|")
    print_rows(arguments.batches, arguments.rounds)


if __name__ == "__main__":
    main()
