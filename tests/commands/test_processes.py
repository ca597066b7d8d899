"""Several processes for a training: the first decides what it is, in sweeps and stages too, and the rest are told."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from fcnseg.runs.processes import LAUNCHER, TOLD, told
from tests.commands.processes import SETTINGS, in_a_process, state, stop_when


def command(camvid: Path, *more: str) -> list[str]:
    data = ("data=camvid_bgc", f"data.root={camvid}", "data.train.synthetic.length=10")
    return ["train", *more, *SETTINGS, *data, "trainer=ddp_cpu", "trainer.log_every_n_steps=1"]


def finished(folder: Path) -> list[str]:
    """Folders of finished trainings, in the order in which they ended."""
    files = sorted(folder.rglob("metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    return [str(path.parent.relative_to(folder)) for path in files]


@pytest.mark.slow
def test_a_sweep_over_stages_on_two_processes(camvid, tmp_path):
    """A run with stages and one without, in folders named by the time."""
    process = in_a_process(command(camvid, "-m", "regime=finetune,bgc", "trainer.max_steps=4", "name=y"), tmp_path)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert shown.count("2 x cpu") == 3, "three trainings, and one process speaks"
    (sweep,) = (tmp_path / "runs" / "y").iterdir()
    assert finished(sweep) == ["0/synthetic", "0/real", "0", "1"]
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", "multirun.yaml"], "no second folder"
    steps = [json.loads((sweep / name / "metrics.json").read_text())["step"] for name in ("0/synthetic", "0/real", "1")]
    assert steps == [2, 2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "runs"]


@pytest.mark.slow
def test_a_killed_sweep_on_two_processes_goes_on(camvid, tmp_path):
    """Only the first process looks into the folder; the second is told of the checkpoint.

    The two runs differ in their name alone: the one that was killed ends with the weights of the one that was not.
    """
    length = ("trainer.max_steps=24", "trainer.check_val_every_n_epoch=30", "resume=auto")
    sweep = command(camvid, "-m", "name=one,two", *length, "hydra.sweep.dir=all")
    process = in_a_process(sweep, tmp_path)
    stop_when((tmp_path / "all/1/checkpoints/last.ckpt").is_file, process, signal.SIGKILL)
    assert finished(tmp_path / "all") == ["0"]
    process = in_a_process(sweep, tmp_path)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert "finished    all/0, mean IoU" in shown
    assert shown.count("goes on     all/1\n") == 1
    whole, rest = state(tmp_path / "all" / "0"), state(tmp_path / "all" / "1")
    assert all(torch.equal(rest[name], weight) for name, weight in whole.items())


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_run_that_failed_on_two_processes(camvid, tmp_path):
    """The first process reads a label that is wrong; the second is ended, and does not take the sweep with it."""
    wrong = tmp_path / "wrong"
    shutil.copytree(camvid, wrong)
    label = sorted((wrong / "valannot").iterdir())[0]
    Image.fromarray(np.full((48, 64), 42, np.uint8)).save(label)
    order = (f"data.root={wrong},{camvid}", "trainer.max_steps=1", "hydra.sweep.dir=all")
    process = in_a_process([a for a in command(camvid, "-m", *order) if a != f"data.root={camvid}"], tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors[-3000:]
    assert "label value 42 is outside" in errors.strip().splitlines()[-1]
    assert finished(tmp_path / "all") == ["1"]


@pytest.mark.slow
def test_what_the_second_process_finds_wrong_is_told_by_the_first_in_one_line(camvid, tmp_path):
    """Which of them reads a file is chance; the second has every other image of validation."""
    image = sorted((camvid / "val").iterdir())[1]
    image.write_bytes(image.read_bytes()[:900])
    process = in_a_process(command(camvid, "trainer.max_steps=1", "hydra.run.dir=run"), tmp_path)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2, errors
    assert errors.startswith(f"fcnseg: camvid/val/{image.name}: cannot be read as an image")
    assert len(errors.splitlines()) == 1


def test_only_a_process_that_was_started_for_a_training_is_told_of_it(monkeypatch):
    for name in (*LAUNCHER, TOLD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert told() is None, "torchrun starts processes that know no more than the first"
    written = {
        "config": {"seed": 3, "optimizer": {"lr": 1e-10}},
        "folder": "runs/x",
        "resume": None,
        "port": 4567,
        "files": [],
    }
    monkeypatch.setenv(TOLD, OmegaConf.to_yaml(OmegaConf.create(written)))
    training = told()
    assert training is not None
    assert training.config.optimizer.lr == 1e-10
    assert (training.folder, training.resume, training.port) == (Path("runs/x"), None, 4567)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert told() is None
