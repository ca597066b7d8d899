"""A large scene, killed on the way, has the mask of what is computed whole, in bounded memory."""

import json
from collections.abc import Callable
from pathlib import Path

import large_scene
import pytest


@pytest.mark.slow
def test_36_million_pixels(carry_out: Callable, tmp_path: Path) -> None:
    arguments = ("--size", "6000", "--width", "0.05", "--kills", "1", "--every", "8", "--windows", "3")
    code, shown, errors = carry_out(large_scene, *arguments, "--folder", tmp_path)
    assert code == 0, errors
    found = json.loads(shown)
    assert found["different_pixels"] == 0
    assert found["compared_pixels"] == 3 * 512**2
    assert found["greatest_resident_bytes"] < 2e9
    assert len(found["seconds"]) == 2
