"""Time FCN-8s over VGG-16 beside a plain transcription of the reference and torchvision's FCN, alternating in one run.

Each network in the layout of memory that it is fastest in, medians over the rounds; a ratio is the plain network's
median over the other's. The plain network pads by 100, computes all of what surrounds an image, and upsamples by
transposed convolutions.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

from fcnseg.models import create_model
from fcnseg.models.backbones import scaled

EXAMPLE = "example: python scripts/benchmark_peers.py --sizes 360x480 180x240 --batches 1 4 --rounds 5"
CLASSES = 21


class PlainFCN8s(nn.Module):
    """voc-fcn8s line by line (Shelhamer, Long and Darrell 2016), as most ports of it are written."""

    def __init__(self, width: float = 1.0) -> None:
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
        self.score_fr = nn.Conv2d(scaled(4096, width), CLASSES, 1)
        self.score_pool4 = nn.Conv2d(scaled(512, width), CLASSES, 1)
        self.score_pool3 = nn.Conv2d(scaled(256, width), CLASSES, 1)
        self.upscore2 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        self.upscore_pool4 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        self.upscore8 = nn.ConvTranspose2d(CLASSES, CLASSES, 16, 8, bias=False)

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


NETWORKS: dict[str, Callable[[float], nn.Module]] = {
    "plain, padded by 100": PlainFCN8s,
    "fcn8s_vgg16, padding=caffe": lambda width: create_model(
        "fcn8s_vgg16", num_classes=CLASSES, padding="caffe", width=width
    ),
    "fcn8s_vgg16, padding=same": lambda width: create_model("fcn8s_vgg16", num_classes=CLASSES, width=width),
    "torchvision fcn_resnet50": lambda width: fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES),
}


def predict(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    options = {"reuse": True} if hasattr(network, "spec") else {}  # ours, as Predictor and evaluation call it
    with torch.inference_mode():
        network.eval()(images, **options)


def step(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """Forward and backward, without the optimiser."""
    network.zero_grad(set_to_none=True)
    logits = network.train()(images)
    F.cross_entropy(logits["out"] if isinstance(logits, dict) else logits, masks).backward()


WHAT = {"forward": predict, "step": step}


def seconds(what: str, network: nn.Module, images: Tensor, masks: Tensor, precision: str) -> float:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        if images.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        WHAT[what](network, images, masks)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    networks = {name: make(arguments.width).to(device) for name, make in NETWORKS.items()}
    rows: list[dict[str, object]] = []
    for precision in arguments.precisions:
        for height, width in arguments.sizes:
            for batch in arguments.batches:
                images = torch.randn(batch, 3, height, width, device=device)
                masks = torch.randint(0, CLASSES, (batch, height, width), device=device)
                for what in arguments.what:
                    shown = {"what": what, "size": f"{height}x{width}", "batch": batch, "precision": precision}
                    rows += [shown | row for row in compare(what, networks, images, masks, precision, arguments.rounds)]
    return rows


def compare(
    what: str, networks: dict[str, nn.Module], images: Tensor, masks: Tensor, precision: str, rounds: int
) -> list[dict[str, object]]:
    """One row for each network: its median in the better layout of memory."""
    layouts = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    times: dict[str, dict[str, list[float]]] = {name: {layout: [] for layout in layouts} for name in networks}
    for layout, memory_format in layouts.items():
        placed = images.to(memory_format=memory_format)
        for network in networks.values():
            network.to(memory_format=memory_format)
        for turn in range(rounds + 1):  # the first warms up
            for name, network in networks.items():
                taken = seconds(what, network, placed, masks, precision)
                if turn:
                    times[name][layout].append(taken)
    rows: list[dict[str, object]] = []
    for name, by_layout in times.items():
        layout, best = min(((k, statistics.median(v)) for k, v in by_layout.items()), key=lambda pair: pair[1])
        rows.append({"network": name, "layout": layout, "seconds": best, "rounds": by_layout[layout]})
    plain = float(str(rows[0]["seconds"]))
    return [row | {"ratio": plain / float(str(row["seconds"]))} for row in rows]


def table(rows: list[dict[str, object]]) -> str:
    lines = ["| what | size | batch | precision | network | layout | seconds | times plain |", "|---" * 8 + "|"]
    for row in rows:
        places = [str(row[key]) for key in ("what", "size", "batch", "precision", "network", "layout")]
        lines.append("| " + " | ".join([*places, f"{row['seconds']:.3f}", f"{row['ratio']:.2f}"]) + " |")
    return "\n".join(lines)


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=size, default=[(360, 480)], metavar="HEIGHTxWIDTH")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=float, default=1.0, help="of our network and the plain one, to try the script")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write every round's time to this file")
    arguments = parser.parse_args()
    rows = measure(arguments)
    print(f"{torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads\n\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
