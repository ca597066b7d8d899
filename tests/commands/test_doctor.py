"""`fcnseg doctor`: what is there, and what is broken, also where torch itself is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from packaging.requirements import Requirement

from fcnseg.commands.doctor import extra, findings, package


def test_what_is_there_is_found(fcnseg, capsys, tmp_path) -> None:
    assert fcnseg("doctor", "--json") == 0
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["torch"]["found"] == torch.__version__.partition("+")[0]
    assert found["torch with torchvision"]["state"] == "good"
    assert found["runs, here"]["found"].endswith(str(tmp_path))
    assert {"processor", "memory", "cache", "[export]", "[app]"} <= set(found)
    assert fcnseg("doctor") == 0
    shown = capsys.readouterr().out
    assert "[export]" in shown
    assert shown.endswith("all that training needs is there\n")


def test_what_is_missing_or_too_old_says_what_to_do() -> None:
    assert package(Requirement("no-such-package>=2")).advice == "pip install 'no-such-package>=2'"
    old = package(Requirement("torch>=99"))
    assert (old.state, old.advice) == ("bad", "pip install 'torch>=99'")
    assert old.found.endswith("; expected >=99")
    lacking = extra("x", [Requirement("torch>=2"), Requirement("no-such-package")])
    assert (lacking.found, lacking.state) == ("lacks no-such-package", "absent")
    assert extra("x", [Requirement("torch>=2")]).state == "good"


def test_a_torchvision_that_does_not_fit_is_named_with_the_way_out(tmp_path: Path) -> None:
    """As it fails where both come from different indexes."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "fcnseg", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "operator torchvision::nms does not exist" in " ".join(done.stdout.split())
    assert "from the same index" in " ".join(done.stdout.split())
    assert done.stdout.endswith("1 to be mended\n")


def test_other_arguments_are_refused(fcnseg, capsys) -> None:
    assert fcnseg("doctor", "gpu") == 2
    assert capsys.readouterr().err == "fcnseg: doctor gpu: no such option; expected --json, or nothing\n"


def test_a_full_disk_and_little_memory_are_doubtful(monkeypatch) -> None:
    monkeypatch.setattr("fcnseg.commands.doctor.LEAST_DISK", 1e9)
    monkeypatch.setattr("fcnseg.commands.doctor.LEAST_MEMORY", 1e9)
    found = {each.what: each for each in findings()}
    assert found["runs, here"].advice == "write elsewhere: hydra.run.dir=FOLDER"
    assert found["memory"].state == "doubtful"
