"""The comparison of ways to compute an image runs, and they agree."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_windows.py"


def test_all_ways_are_compared(tmp_path: Path) -> None:
    ways = ["whole", "rows:48", "exact:608", "64:256"]
    arguments = ["--size", "700", "640", "--width", "0.05", "--rounds", "1", "--folder", tmp_path, "--ways", *ways]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], check=True, capture_output=True, text=True)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ways
    assert [float(row[-1]) for row in rows[:3]] == [0, 0, 0]
