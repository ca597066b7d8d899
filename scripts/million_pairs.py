"""How long a million image and label pairs take to start, and the memory that they cost a process.

`python scripts/million_pairs.py` writes a tree of empty files (`--folders` times `--files` images, and as many labels;
`--flat` puts all into one folder), and lets one process after the other pair them, split them, look whether training
and validation share files, and draw the first batch. No sample is read. Memory is what comes on top of the process
after its imports (Linux).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fcnseg.data import PairedFolder, SegmentationData, Subset
from fcnseg.labels import STREET11


def main() -> None:
    parser = argparse.ArgumentParser(description="Start time and memory of many image and label pairs.")
    parser.add_argument("--folders", type=int, default=100, help="folders of images (default: %(default)s)")
    parser.add_argument("--files", type=int, default=10_000, help="images in each (default: %(default)s)")
    parser.add_argument("--flat", action="store_true", help="all images in one folder")
    parser.add_argument("--root", type=Path, help="where the tree is, or is written and stays; by default temporary")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(start(options.root, not options.flat)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        if not (root / "images").exists():
            write(root, 1 if options.flat else options.folders, options.files, options.folders if options.flat else 1)
        for process in ("first process", "second process"):
            command = [sys.executable, __file__, "--measure", "--root", str(root), *(["--flat"] * options.flat)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(
                f"{process:14}  {found['pairs']} pairs in {found['seconds']:.1f} s, "
                f"{found['peak']:.0f} MB at the peak, {found['stays']:.0f} MB afterwards"
            )


def write(root: Path, folders: int, files: int, times: int) -> None:
    """Empty images and labels, `times` x `files` in each folder."""
    for kind, ending in (("images", "jpg"), ("labels", "png")):
        for number in range(folders):
            folder = root / kind / f"drive_{number:04d}" if folders > 1 else root / kind
            folder.mkdir(parents=True)
            for frame in range(times * files):
                os.close(os.open(f"{folder}/frame_{frame:08d}.{ending}", os.O_CREAT | os.O_EXCL))


def start(root: Path, recursive: bool) -> dict[str, float]:
    """What a process does before it reads its first sample, in seconds and MB (10^6 bytes)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    started = time.perf_counter()
    pairs = PairedFolder(root / "images", root / "labels", STREET11, recursive=recursive)
    data = SegmentationData({"all": Subset(pairs, 0.9)}, Subset(pairs, 0.1, 0.9), size=(180, 240), num_workers=0)
    next(iter(data.batches()))
    return {
        "pairs": len(pairs),
        "seconds": time.perf_counter() - started,
        "peak": memory("VmHWM") - before,
        "stays": memory("VmRSS") - before,
    }


def memory(key: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
