"""The comparison of runtimes runs, and they agree."""

from collections.abc import Callable
from pathlib import Path

import benchmark_exported
import pytest


@pytest.mark.slow
def test_runtimes_are_compared(carry_out: Callable, tmp_path: Path) -> None:
    arguments = ["--model", "fcn32s_vgg16", "--width", "0.05", "--size", "96", "128", "--rounds", "1"]
    arguments += ["--calibration", "2", "--folder", tmp_path, "--rows", "onnxruntime"]
    code, shown, errors = carry_out(benchmark_exported, *arguments)
    assert code == 0, errors
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()[2:-1]]
    assert [row[0] for row in rows] == ["PyTorch", "PyTorch, optimised", "onnxruntime"]
    assert [row[-1] for row in rows] == ["100.00%"] * 3
