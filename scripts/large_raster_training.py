"""Train, evaluate and predict by windows on a GeoTIFF that is never read as a whole, and print what memory each took.

The script makes the raster, block by block: five bands of 16 bits with a corner without data, and labels of three
classes, of which the buildings are rare. The upper part trains, the lower one validates (data=raster).
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from large_scene import run
from rasterio.transform import from_origin

EXAMPLE = "example: python scripts/large_raster_training.py --size 12000 --folder /tmp/large_raster"
BLOCK = 512
"""Side of the raster's tiles in pixels."""

BANDS = 5
CLASSES = ("water", "field", "building")
SIGNATURES = np.array([[400, 600, 500, 300, 200], [900, 1200, 1000, 4200, 2500], [2800, 2700, 2900, 3100, 3500]])
"""(classes, BANDS) means of the reflectance times 10,000."""

LIMIT = 2 * 10**9
"""Bytes that none of the three may take."""


def write_rasters(folder: Path, size: int) -> None:
    """Write images/scene.tif, labels/scene.tif and classes.txt below a folder.

    Args:
        folder: made if it is not there.
        size: height and width in pixels.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    layout = {"driver": "GTiff", "height": size, "width": size, "tiled": True, "BIGTIFF": "IF_SAFER"}
    layout |= {"blockxsize": BLOCK, "blockysize": BLOCK, "compress": "lzw"}
    layout |= {"crs": "EPSG:32631", "transform": from_origin(440000, 5020000, 10, 10)}
    image, labels = folder / "images" / "scene.tif", folder / "labels" / "scene.tif"
    with (
        rasterio.Env(GDAL_CACHEMAX=64 * 2**20),
        rasterio.open(image, "w", count=BANDS, dtype="uint16", nodata=0, **layout) as pixels,
        rasterio.open(labels, "w", count=1, dtype="uint8", **layout) as classes,
    ):
        for top, bottom, left, right in blocks(size):
            mask = classes_at(np.arange(top, bottom)[:, None], np.arange(left, right)[None])
            noise = np.random.default_rng([top, left]).gamma(25, 1 / 25, (BANDS, *mask.shape))
            values = np.maximum(SIGNATURES[mask].transpose(2, 0, 1) * noise, 1)
            corner = np.add.outer(np.arange(top, bottom), np.arange(left, right)) < size // 8
            window = ((top, bottom), (left, right))
            pixels.write(np.where(corner, 0, values).astype(np.uint16), window=window)
            classes.write(mask.astype(np.uint8), 1, window=window)


def blocks(size: int) -> Iterator[tuple[int, int, int, int]]:
    """First row, end, first column and end of every block."""
    for top in range(0, size, BLOCK):
        for left in range(0, size, BLOCK):
            yield top, min(top + BLOCK, size), left, min(left + BLOCK, size)


def classes_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The class of pixels by their place: waves of water in fields, and a building of 12 x 12 in every 120 x 120."""
    water = np.sin(x / 97) + np.sin(y / 131) + np.sin((x + y) / 61) > 1
    building = (x % 120 < 12) & (y % 120 < 12)
    return np.where(building, 2, np.where(water, 0, 1))


def commands(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """The three commands by their names."""
    checkpoint = f"checkpoint={folder / 'run' / 'checkpoints' / 'last.ckpt'}"
    window = f"data.window=[{options.window},{options.window}]"
    data = ["data=raster", f"data.root={folder}", f"data.reading.channels={BANDS}", window, "data.num_workers=0"]
    model = [f"model={options.model}", f"model.width={options.width}", "data.batch_size=4"]
    steps = [f"data.steps_per_epoch={options.steps}", "trainer.max_epochs=1", "trainer.num_sanity_val_steps=0"]
    optimiser = ["optimizer.lr=0.002", "scheduler=constant", "callbacks.progress=null", "logger=none"]
    train = [*data, *model, *steps, *optimiser, "trainer.accelerator=cpu", f"hydra.run.dir={folder / 'run'}"]
    evaluate = [checkpoint, *data, "device=cpu", f"hydra.run.dir={folder / 'scores'}"]
    predict = [checkpoint, f"input={folder / 'images'}", f"output={folder / 'out'}", "device=cpu", "overlays=false"]
    return {"train": train, "evaluate": evaluate, "predict": [*predict, f"memory={LIMIT / 1e9:g}"]}


def accuracy(folder: Path, size: int) -> float:
    """Share of the pixels that have data which the mask gives their class, read block by block."""
    right = known = 0
    with (
        rasterio.open(folder / "out" / "masks" / "scene.tif") as mask,
        rasterio.open(folder / "labels" / "scene.tif") as labels,
    ):
        for top, bottom, left, right_edge in blocks(size):
            window = ((top, bottom), (left, right_edge))
            found, expected = mask.read(1, window=window), labels.read(1, window=window)
            right += int((found == expected).sum())
            known += int((found != 255).sum())
    return right / known


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=12000, help="height and width in pixels")
    parser.add_argument("--window", type=int, default=256, help="height and width of the windows")
    parser.add_argument("--steps", type=int, default=60, help="of the training, of four windows each")
    parser.add_argument("--model", default="fcn8s_vgg16_bn")
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--folder", type=Path, default=Path("runs/large_raster"))
    options = parser.parse_args()
    folder: Path = options.folder
    for made_before in ("run", "scores", "out"):
        shutil.rmtree(folder / made_before, ignore_errors=True)
    write_rasters(folder, options.size)
    result: dict[str, object] = {"size": options.size, "bytes": os.path.getsize(folder / "images" / "scene.tif")}
    for name, arguments in commands(folder, options).items():
        seconds, most, code = run([sys.executable, "-m", "fcnseg", name, *arguments], None)
        if code:
            return code
        result[name] = {"seconds": round(seconds, 1), "greatest_resident_bytes": most, "under_limit": most < LIMIT}
    scores = json.loads((folder / "scores" / "metrics.json").read_text())
    result |= {"mean_iou": scores["mean_iou"], "accuracy_of_the_mask": accuracy(folder, options.size)}
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
