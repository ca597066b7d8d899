"""A large scene, killed on the way, has the mask of what is computed whole, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "large_scene.py"


@pytest.mark.slow
def test_36_million_pixels(tmp_path: Path) -> None:
    arguments = ("--size", "6000", "--width", "0.05", "--kills", "1", "--every", "8", "--windows", "3")
    command = [sys.executable, SCRIPT, *arguments, "--folder", tmp_path]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["different_pixels"] == 0
    assert found["compared_pixels"] == 3 * 512**2
    assert found["greatest_resident_bytes"] < 2e9
    assert len(found["seconds"]) == 2
