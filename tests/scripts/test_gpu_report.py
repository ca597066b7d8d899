"""The GPU's report, carried out on the CPU: every part works, and one that fails harms no other."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_report.py"


def report(folder: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """What the script has written."""
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--output", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == code, done.stderr
    return json.loads((folder / "gpu_report.json").read_text())


@pytest.mark.slow
def test_every_part_has_its_numbers(tmp_path: Path) -> None:
    found = report(tmp_path / "out")
    parts = {name: part["rows"] for name, part in found["parts"].items()}
    assert list(parts) == ["correctness", "ceiling", "speed", "peers", "training", "resuming", "processes"]
    for name, rows in parts.items():
        assert rows, name
        for row in rows:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
    exact = [row["difference"] for row in parts["correctness"] if row["precision"] == "32-true"]
    assert len(exact) == 6
    assert max(exact) < 1e-5
    assert {row["precision"] for row in parts["ceiling"]} == {"32-true", "bf16-mixed"}
    assert len(parts["speed"]) == 2 * 2 * 3 + 2
    assert all(0 < row["share of ceiling"] < 5 for row in parts["speed"])
    assert {row["what"] for row in parts["peers"]} == {"forward", "step"}
    assert [row["distance"] for row in parts["resuming"]] == [0]
    assert parts["processes"][0]["distance"] < 1e-3
    text = (tmp_path / "out" / "gpu_report.md").read_text()
    for name, rows in parts.items():
        assert f"## {name}\n" in text
        numbers = [f"{value:.4g}" for row in rows for value in row.values() if isinstance(value, float)]
        assert all(number in text for number in numbers)


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    options = ("--parts", "correctness", "ceiling", "--oracle", str(tmp_path / "nowhere"))
    found = report(tmp_path / "out", *options, code=1)
    assert "nowhere" in found["parts"]["correctness"]["error"]
    assert len(found["parts"]["ceiling"]["rows"]) == 2
    assert "**error: FileNotFoundError" in (tmp_path / "out" / "gpu_report.md").read_text()


def test_nothing_begins_when_the_budget_is_spent(tmp_path: Path) -> None:
    found = report(tmp_path / "out", "--budget", "0", "--parts", "ceiling")
    assert found["parts"]["ceiling"]["skipped"] == "the budget of 0 s was spent"
