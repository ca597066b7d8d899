"""A run tells what it was carried out with, and is repeated to the bit."""

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from fcnseg.runs.surroundings import read_sessions
from tests.commands.processes import SETTINGS

QUICK = (*SETTINGS, "trainer.max_epochs=1", "data.steps_per_epoch=3")


@pytest.mark.slow
@pytest.mark.parametrize("regime", [(), ("regime=bgc",)])
def test_a_run_is_repeated_bit_by_bit(fcnseg, camvid, tmp_path, capfd, regime, monkeypatch) -> None:
    data = ("data=camvid_bgc", "data.root=camvid", "data.train.synthetic.length=4")
    assert fcnseg("train", *QUICK, *data, *regime, "hydra.run.dir=runs/first") == 0
    (session,) = read_sessions(tmp_path / "runs" / "first")
    assert session["python"] == platform.python_version()
    assert session["packages"]["torch"] == torch.__version__.split("+")[0] or session["packages"]["torch"]
    assert session["data"]["camvid"]["samples"] == 8
    assert session["working_directory"] == str(tmp_path)
    assert session["machine"]["cores"] >= 1

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the data are named from where the run began
    capfd.readouterr()
    assert fcnseg("rerun", "../runs/first") == 0, capfd.readouterr().err
    shown = capfd.readouterr().out
    assert "\nthe same scores: mean IoU" in shown
    assert "bit by bit" in shown
    assert "\nother" not in shown
    assert (tmp_path / "runs" / "first.rerun" / "metrics.json").is_file()
    assert fcnseg("rerun", "../runs/first") == 2
    assert "first.rerun: holds a run already; expected a new folder" in capfd.readouterr().err


@pytest.mark.slow
def test_what_differs_is_told(fcnseg, camvid, tmp_path, capfd) -> None:
    data = ("data=camvid", "data.root=camvid")
    assert fcnseg("train", *QUICK, *data, "hydra.run.dir=first") == 0
    note = tmp_path / "first" / "run.json"
    session = json.loads(note.read_text())
    session["sessions"][0]["packages"]["numpy"] = "0.1"
    note.write_text(json.dumps(session))
    for folder in ("train", "trainannot"):
        files = sorted((camvid / folder).iterdir())
        files[0].unlink()
    assert fcnseg("rerun", "run=first", "output=again") == 0, capfd.readouterr().err
    shown = capfd.readouterr().out
    assert "other weights in " in shown
    assert "other packages.numpy: 0.1, now " in shown
    assert "other data.camvid.samples: 8, now 7" in shown
    assert fcnseg("rerun", "run=nowhere") == 2
    assert "nowhere: no config.yaml; expected the folder of a run" in capfd.readouterr().err


@pytest.mark.slow
def test_going_on_adds_a_session_and_the_project_is_told(fcnseg, camvid, tmp_path) -> None:
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "begin")):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True)
    settings = ("train", *QUICK, "data=camvid", "data.root=camvid")
    assert fcnseg(*settings, "hydra.run.dir=run") == 0
    more = ("trainer.max_epochs=2", "hydra.run.dir=run", "resume=run/checkpoints/last.ckpt")
    assert fcnseg(*settings, *more) == 0
    sessions = read_sessions(Path("run"))
    assert len(sessions) == 2
    assert all(len(session["project"]["commit"]) == 40 and not session["project"]["changed"] for session in sessions)
