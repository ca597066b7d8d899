"""How many street scenes one thread renders per second, by look and size.

`python scripts/benchmark_scenes.py [--scenes N]` prints a table; every number is the median of `BATCHES` batches of N
scenes.
"""

import argparse
import platform
import statistics
import time

import cv2
import numpy as np

from fcnseg.cores import processor_name
from fcnseg.data.citygen import LOOKS, render_scene

BATCHES = 5
SIZES = ((180, 240), (360, 480))


def main() -> None:
    parser = argparse.ArgumentParser(description="Scenes per second on one thread.")
    parser.add_argument("--scenes", type=int, default=40, help="scenes per batch (default: %(default)s)")
    scenes = parser.parse_args().scenes
    if scenes < 1:
        parser.error(f"--scenes {scenes}: expected at least 1")
    cv2.setNumThreads(1)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}, {processor_name()}")
    for look in LOOKS:
        for height, width in SIZES:
            rate = scenes_per_second(look, (height, width), scenes)
            print(f"{look:9}  {width}x{height}  {rate:6.1f} scenes/s")


def scenes_per_second(look: str, size: tuple[int, int], scenes: int) -> float:
    """The median over batches of the same scenes."""
    render_scene(0, 0, size, look)  # makes the noise tiles and stencils, once per process
    return statistics.median(scenes / seconds(look, size, scenes) for _ in range(BATCHES))


def seconds(look: str, size: tuple[int, int], scenes: int) -> float:
    started = time.perf_counter()
    for index in range(scenes):
        render_scene(0, index, size, look)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
