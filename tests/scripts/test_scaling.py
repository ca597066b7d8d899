"""Processes alone and together are timed, and the simulator takes what was measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import scaling
import simulate_scaling


@pytest.mark.slow
def test_two_processes_are_timed_and_predicted(carry_out: Callable, tmp_path: Path) -> None:
    small = ["--width", "0.05", "--size", "32", "48", "--batch", "2", "--steps", "2", "--warm-up", "1", "--rounds", "1"]
    output = ["--folder", tmp_path, "--output", tmp_path / "measured.json"]
    code, shown, errors = carry_out(scaling, *small, *output)
    assert code == 0, errors
    found = json.loads((tmp_path / "measured.json").read_text())
    assert found["processes"] == 2
    assert found["alone"] > 0
    assert found["ratios"] == [found["alone"] / found["together"]]
    assert found["of_apart"] == [found["apart"] / found["together"]]
    assert f"each of 2 does      {found['ratios'][0]:.3f} of one alone" in shown
    assert f"each of 2 does      {found['of_apart'][0]:.3f} of one apart" in shown
    assert found["averaging"]["16777216"] > found["averaging"]["4"] > 0
    code, told, _ = carry_out(simulate_scaling, "--check", tmp_path / "measured.json")
    assert code == 0
    assert f"{found['together'] * 1e3:.0f} measured" in told
