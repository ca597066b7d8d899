"""An image computed whole, row by row and in tiles: seconds, memory, and how far the logits are apart.

Every computation is a process of its own; they take turns, and medians are printed. Memory is the greatest resident
memory during the computation, less what the process and the weights took before.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcnseg.inference.footprint import MARK, resident
from fcnseg.inference.tiles import Tiles
from fcnseg.models import FCN, create_model, optimise
from fcnseg.models.rows import RowStream

EXAMPLE = "example: python scripts/benchmark_windows.py --size 2048 2048 --ways whole rows:64 exact:1280 64:704"


def built(options: argparse.Namespace) -> FCN:
    """An untrained network, the same in every process, whose scores are not all zero."""
    torch.manual_seed(0)
    model = create_model(options.model, num_classes=11, padding=options.padding, width=options.width)
    for name, module in model.named_children():
        if name.startswith("score"):
            torch.nn.init.normal_(module.weight)
    return optimise(model)


def whole(model: FCN, image: np.ndarray) -> Tensor:
    return model.logits(torch.from_numpy(image.transpose(2, 0, 1))[None])


def rows(model: FCN, image: np.ndarray, strip: int) -> Tensor:
    stream = RowStream(model, image.shape[:2])
    for start in range(0, len(image), strip):
        stream.push(torch.from_numpy(image[start : start + strip].transpose(2, 0, 1))[None])
    return torch.cat([likely(stream.logits(a, min(a + 64, len(image)))) for a in range(0, len(image), 64)], dim=1)


def tiles(model: FCN, image: np.ndarray, tile: int, overlap: int | None) -> Tensor:
    mask = torch.empty(1, *image.shape[:2], dtype=torch.uint8)
    for top, left, logits in Tiles(model, image.shape[:2], tile, overlap).parts(lambda a, b: image[a:b]):
        part = likely(logits)
        mask[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return mask


def likely(logits: Tensor) -> Tensor:
    return logits.max(dim=1).indices.to(torch.uint8)


def computation(way: str) -> Callable[[FCN, np.ndarray], Tensor]:
    """What computes the mask, by its name on the command line."""
    kind, _, number = way.partition(":")
    if kind == "whole":
        return lambda model, image: likely(whole(model, image))
    if kind == "rows":
        return lambda model, image: rows(model, image, int(number or 64))
    overlap = None if kind == "exact" else int(kind)
    return lambda model, image: tiles(model, image, int(number), overlap)


def measure(way: str, options: argparse.Namespace) -> None:
    """One computation in this process; its mask goes to a file, and its figures to the output."""
    model = built(options)
    image = np.random.default_rng(0).integers(256, size=(*options.size, 3), dtype=np.uint8)
    image = np.repeat(np.repeat(image[::16, ::16], 16, axis=0), 16, axis=1)[: options.size[0], : options.size[1]]
    before = resident()
    assert before is not None
    MARK.write_text("5")
    began = time.perf_counter()
    with torch.inference_mode():
        mask = computation(way)(model, image)
    seconds = time.perf_counter() - began
    after = resident()
    assert after is not None
    np.save(options.folder / f"{way.replace(':', '-')}.npy", mask.numpy())
    print(json.dumps({"seconds": seconds, "bytes": after["VmHWM"] - before["RssAnon"] - before["RssFile"]}))


def compare(options: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for _ in range(options.rounds):
        for way in options.ways:
            done = subprocess.run([sys.executable, *sys.argv, "--one", way], check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    first, expected = found[options.ways[0]], np.load(options.folder / f"{options.ways[0].replace(':', '-')}.npy")
    least = statistics.median(each["seconds"] for each in first)
    most = statistics.median(each["bytes"] for each in first)
    print(
        "| way | seconds | of the first | memory | of the first | pixels of another class |\n|---|---|---|---|---|---|"
    )
    for way, each in found.items():
        seconds, taken = (statistics.median(one[key] for one in each) for key in ("seconds", "bytes"))
        other = (np.load(options.folder / f"{way.replace(':', '-')}.npy") != expected).mean()
        row = f"{seconds:.1f} s | {seconds / least:.2f} | {taken / 1e6:.0f} MB | {taken / most:.3f} | {other:.2g}"
        print(f"| {way} | {row} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fcn8s_vgg16")
    parser.add_argument("--padding", default="same")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, nargs=2, default=[2048, 2048], help="height and width in pixels")
    parser.add_argument(
        "--ways", nargs="+", default=["whole", "rows:64", "exact:1280", "64:704"],
        help="whole; rows:STRIP; exact:TILE; OVERLAP:TILE",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/windows"), help="for the masks")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.one:
        measure(options.one, options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
