"""Segment a large GeoTIFF of 16 bits with `fcnseg predict`, kill it on the way, and compare with what one sees whole.

The scene and the untrained network are made by the script. Printed are the seconds of each run, the greatest resident
memory of any, and in how many pixels the mask differs from that of windows which are computed whole, with all that
their pixels see around them, and by how much.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from fcnseg.inference import Predictor
from fcnseg.models import create_model

EXAMPLE = "example: python scripts/large_scene.py --size 20000 --model fcn8s_alexnet --kills 3 --folder /tmp/scene"
SIDE = 512
"""Of the windows that are compared, and of the scene's tiles, in pixels."""


def write_scene(path: Path, size: int) -> None:
    """Fields of several sizes under noise, in three bands."""
    random = np.random.default_rng(0)
    coarse = random.integers(1000, 30000, size=(size // 400 + 2, size // 400 + 2, 3)).astype(np.float32)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint16", "tiled": True}
    profile |= {"blockxsize": SIDE, "blockysize": SIDE, "BIGTIFF": "IF_SAFER", "compress": "lzw", "nodata": 0}
    ground = {"crs": "EPSG:32633", "transform": from_origin(500000, 4649000, 0.3, 0.3)}
    with rasterio.open(path, "w", **profile, **ground) as target:
        for start in range(0, size, SIDE):
            rows = min(SIDE, size - start)
            places = np.arange(start, start + rows, dtype=np.float32) / 400, np.arange(size, dtype=np.float32) / 400
            x, y = np.meshgrid(places[1], places[0])
            fields = cv2.remap(coarse, x, y, cv2.INTER_LINEAR) // 3000 * 3000
            noise = random.integers(1, 1500, size=(rows, size, 1))
            target.write(
                np.moveaxis((fields + noise).astype(np.uint16), 2, 0), window=((start, start + rows), (0, size))
            )


def write_model(folder: Path, name: str, width: float) -> None:
    torch.manual_seed(0)
    model = create_model(
        name, num_classes=11, width=width, image_type="uint16", mean=[15000] * 3, std=[8000] * 3
    )  # fmt: skip
    for key, module in model.named_children():
        if key.startswith("score"):
            torch.nn.init.normal_(module.weight)
    model.save_pretrained(folder)


def run(command: list[str], kill_after: float | None) -> tuple[float, int, int]:
    """Seconds, the greatest resident memory in bytes, and the exit code of one run."""
    began, most = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            lines = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            most = max([most, *(int(line[1]) * 1024 for line in lines)])
        except OSError:  # it has ended in the meantime
            pass
        if kill_after is not None and time.monotonic() - began > kill_after:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
    return time.monotonic() - began, most, process.returncode


def compare(folder: Path, windows: int) -> dict[str, float]:
    """How many pixels of windows at random places have another class than in windows computed whole, of how many.

    And by how much of a logit the other class is behind there, at most: ties are broken by the order of sums.
    """
    predictor = Predictor.from_pretrained(folder / "model", scale="native", device="cpu")
    tiling = predictor.model.tiling()
    assert tiling is not None
    random, different, behind = np.random.default_rng(1), 0, 0.0
    with rasterio.open(folder / "scene.tif") as scene, rasterio.open(folder / "out" / "masks" / "scene.tif") as mask:
        for _ in range(windows):
            core = [int(random.integers(0, n - SIDE + 1)) for n in (scene.height, scene.width)]
            starts = [max(first - tiling["before"], 0) // tiling["step"] * tiling["step"] for first in core]
            ends = [min(first + SIDE + tiling["after"], n) for first, n in zip(core, scene.shape, strict=True)]
            place = ((starts[0], ends[0]), (starts[1], ends[1]))
            whole = predictor(np.moveaxis(scene.read(window=place), 0, 2), probabilities=True)
            inner = tuple(slice(first - start, first - start + SIDE) for first, start in zip(core, starts, strict=True))
            found = mask.read(1, window=tuple((first, first + SIDE) for first in core))
            rows, columns = np.nonzero(whole.mask[inner] != found)
            different += len(rows)
            with np.errstate(divide="ignore"):  # of classes that are out of the question
                logits = np.log(whole.probabilities[:, *inner])  # but for a number that all classes share
            ours, theirs = (classes[rows, columns] for classes in (whole.mask[inner], found))
            behind = max([behind, *(logits[ours, rows, columns] - logits[theirs, rows, columns]).tolist()])
    return {"different_pixels": different, "compared_pixels": windows * SIDE**2, "behind_by_at_most": behind}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=20000, help="height and width in pixels")
    parser.add_argument("--model", default="fcn8s_alexnet")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--memory", type=float, default=2.0, help="GB that fcnseg predict may take")
    parser.add_argument("--kills", type=int, default=0, help="how often it is killed")
    parser.add_argument("--every", type=float, default=60, help="seconds after which it is")
    parser.add_argument("--windows", type=int, default=8, help="that are compared")
    parser.add_argument("--folder", type=Path, default=Path("runs/large_scene"))
    parser.add_argument("overrides", nargs="*", help="further settings of fcnseg predict")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "scene.tif").exists():
        write_scene(folder / "scene.tif", options.size)
    write_model(folder / "model", options.model, options.width)
    command = [
        *(sys.executable, "-m", "fcnseg", "predict", f"checkpoint={folder / 'model'}", f"input={folder / 'scene.tif'}"),
        *(f"output={folder / 'out'}", f"memory={options.memory}", "device=cpu", *options.overrides),
    ]
    runs = [run(command, options.every) for _ in range(options.kills)]
    runs.append(run(command, None))
    if runs[-1][2]:
        return runs[-1][2]
    result = {
        "size": options.size,
        "model": options.model,
        "width": options.width,
        "seconds": [round(seconds, 1) for seconds, _, _ in runs],
        "greatest_resident_bytes": max(most for _, most, _ in runs),
    } | compare(folder, options.windows)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
