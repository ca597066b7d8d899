"""The comparison of runtimes runs, and they agree."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_exported.py"


@pytest.mark.slow
def test_runtimes_are_compared(tmp_path: Path) -> None:
    arguments = ["--model", "fcn32s_alexnet", "--width", "0.05", "--size", "96", "128", "--rounds", "1"]
    command = [sys.executable, SCRIPT, *arguments, "--calibration", "2", "--folder", tmp_path, "--rows", "onnxruntime"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:-1]]
    assert [row[0] for row in rows] == ["PyTorch", "PyTorch, optimised", "onnxruntime"]
    assert [row[-1] for row in rows] == ["100.00%"] * 3
