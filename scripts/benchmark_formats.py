"""The two formats of decoded samples side by side: packed shards, and the file of cache=disk.

`python scripts/benchmark_formats.py --root PATH` writes CamVid's training images to both in turns, packs with one
process and with all cores, reads every sample in random order twice, and prints medians. Both are written to the same
disk, and are in the system's cache when they are read.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.cores import available_cores
from fcnseg.data import CamVid
from fcnseg.data.storage.cache import DiskCached
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Packed shards beside the file of cache=disk: time to write, size, samples per second.",
        epilog="example: python scripts/benchmark_formats.py --root camvid --rounds 3",
    )
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder, with train, trainannot, val, ...")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over both formats (default: %(default)s)")
    options = parser.parse_args()
    dataset = CamVid(options.root)
    formats = {"packed, 1 process": 1, f"packed, {available_cores()} processes": available_cores(), "cache=disk": 0}
    rows: dict[str, list[list[float]]] = {name: [] for name in formats}
    for number in range(options.rounds):
        order = np.random.default_rng(number).permutation(len(dataset))
        for name, workers in formats.items():
            with tempfile.TemporaryDirectory() as folder:
                rows[name].append(measured(dataset, Path(folder), workers, order))
    print(f"{'':20}  written   size MB  samples/s at first  again")
    for name, values in rows.items():
        seconds, size, first, again = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:20}  {seconds:5.2f} s  {size:8.1f}  {first:18.0f}  {again:5.0f}")


def measured(dataset: CamVid, folder: Path, workers: int, order: np.ndarray) -> list[float]:
    """Seconds to write, size in MB, and samples per second of a first and a second reading; 0 workers: cache=disk."""
    started = time.perf_counter()
    if workers:
        pack({}, dataset, folder / "packed", workers=workers)
        stored: Any = Packed(folder / "packed/val")
    else:
        stored = DiskCached(dataset, folder)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.rglob("*.bin")) / 1e6
    return [seconds, size, rate(stored, order), rate(stored, order)]


def rate(dataset: Any, order: np.ndarray) -> float:
    """Samples per second, each copied as a batch takes it."""
    started = time.perf_counter()
    for index in order:
        image, mask, _ = dataset[index]
        np.array(image), np.array(mask)
    return len(order) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
