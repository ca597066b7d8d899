"""The comparison of ways to compute an image runs, and they agree."""

from collections.abc import Callable
from pathlib import Path

import benchmark_windows


def test_all_ways_are_compared(carry_out: Callable, tmp_path: Path) -> None:
    ways = ["whole", "rows:48", "exact:608", "64:256"]
    arguments = ["--size", "700", "640", "--width", "0.05", "--rounds", "1", "--folder", tmp_path, "--ways", *ways]
    code, shown, errors = carry_out(benchmark_windows, *arguments)
    assert code == 0, errors
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()[2:]]
    assert [row[0] for row in rows] == ways
    assert [float(row[-1]) for row in rows[:3]] == [0, 0, 0]
