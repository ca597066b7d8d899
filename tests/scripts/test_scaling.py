"""Processes alone and together are timed, and the simulator takes what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
def test_two_processes_are_timed_and_predicted(tmp_path: Path) -> None:
    small = ["--width", "0.05", "--size", "32", "48", "--batch", "2", "--steps", "2", "--warm-up", "1", "--rounds", "1"]
    output = ["--folder", tmp_path, "--output", tmp_path / "measured.json"]
    script = [sys.executable, SCRIPTS / "scaling.py", *small, *output]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "measured.json").read_text())
    assert found["processes"] == 2
    assert found["alone"] > 0
    assert found["ratios"] == [found["alone"] / found["together"]]
    assert found["of_apart"] == [found["apart"] / found["together"]]
    assert f"each of 2 does      {found['ratios'][0]:.3f} of one alone" in done.stdout
    assert f"each of 2 does      {found['of_apart'][0]:.3f} of one apart" in done.stdout
    assert found["averaging"]["16777216"] > found["averaging"]["4"] > 0
    checked = [sys.executable, SCRIPTS / "simulate_scaling.py", "--check", tmp_path / "measured.json"]
    told = subprocess.run(checked, check=True, capture_output=True, text=True).stdout
    assert f"{found['together'] * 1e3:.0f} measured" in told
