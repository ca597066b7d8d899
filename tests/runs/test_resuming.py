"""`resume=auto`: the same command begins a run, goes on with it, and leaves it alone when it is finished."""

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fcnseg.commands import configuration, train
from fcnseg.inference.device import fast_precision
from tests.commands import processes
from tests.commands.processes import in_a_process, state, stop_when

SETTINGS = (*processes.SETTINGS, "trainer.log_every_n_steps=1", "resume=auto")


def single(camvid: Path, *more: str) -> list[str]:
    settings = [*SETTINGS, "data=camvid", f"data.root={camvid}", "trainer.max_epochs=1", "hydra.run.dir=run"]
    return ["train", *settings, *more]


def logged_steps(path: Path) -> list[int]:
    with path.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.slow
def test_a_sweep_that_was_killed_twice_ends_like_an_uninterrupted_one(fcnseg, camvid, tmp_path, capsys):
    """A single run, then one with stages; SIGKILL in the midst of each, and the same command again."""

    def sweep(folder: str) -> list[str]:
        data = ["data=camvid_bgc", f"data.root={camvid}", "data.train.synthetic.length=10"]
        length = ["trainer.max_steps=28", "trainer.check_val_every_n_epoch=30"]
        where = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra:runtime.choices.regime}"]
        return ["train", "-m", "regime=real,finetune", *SETTINGS, *data, *length, *where]

    assert fcnseg(*sweep("whole")) == 0
    whole, again = tmp_path / "whole", tmp_path / "again"
    for part in ("real", "finetune/real"):
        process = in_a_process(sweep("again"), tmp_path)
        stop_when((again / part / "checkpoints" / "last.ckpt").is_file, process, signal.SIGKILL)
        assert not (again / part / "metrics.json").exists(), "it was killed in the midst"
    first = (again / "real" / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert fcnseg(*sweep("again")) == 0
    shown = capsys.readouterr().out
    assert "finished    again/real, mean IoU" in shown
    assert "stage       synthetic, 1 of 2, finished" in shown
    assert "stage       real, 2 of 2, goes on" in shown
    assert (again / "real" / "metrics.json").stat().st_mtime_ns == first

    for part in ("real", "finetune/synthetic", "finetune/real"):
        expected = state(whole / part)
        assert all(torch.equal(state(again / part)[name], weight) for name, weight in expected.items()), part
    for run in ("real", "finetune"):
        scores = [json.loads((top / run / "metrics.json").read_text()) for top in (whole, again)]
        for key in ("classes", "step", "images_seen", "mean_iou"):
            assert scores[0][key] == scores[1][key]
    before, after = (logged_steps(again / "real" / name) for name in ("metrics.1.csv", "metrics.csv"))
    assert before[0] == 0, "the curves of what was trained before are kept"
    assert 0 < after[0] <= before[-1] + 1
    assert after[-1] == 27

    assert fcnseg(*sweep("again")) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line for line in lines if "model " in line] == [], "nothing is trained"
    assert sum("nothing left to train" in line for line in lines) == 2


@pytest.mark.slow
def test_what_is_there_decides(fcnseg, camvid, tmp_path, monkeypatch, capsys):
    run, command = tmp_path / "run", single(camvid, "trainer.precision=auto")
    assert fcnseg(*command) == 0
    assert "goes on" not in capsys.readouterr().out
    assert OmegaConf.load(run / "config.yaml").trainer.precision == fast_precision()
    score, weights = json.loads((run / "metrics.json").read_text())["mean_iou"], state(run)

    # finished
    monkeypatch.chdir(tmp_path)
    returned: list[float | None] = []
    configuration.run("train", command[1:], lambda config: returned.append(train.run(config)))
    assert returned == [score]
    assert capsys.readouterr().out == f"finished    run, mean IoU {score:.3f}; nothing left to train\n"
    refused = "fcnseg: resume=run: it began with seed=0, this run has seed=3"
    assert fcnseg(*command, "seed=3") == 2
    assert capsys.readouterr().err.strip() == refused

    # of a version that did not know some settings, whose defaults are what it did
    saved = OmegaConf.load(run / "config.yaml")
    for path in ("lr_rule", "lr_reference_batch", "data.device_batch_size", "callbacks.gradients"):
        parent, _, key = path.rpartition(".")
        (OmegaConf.select(saved, parent) if parent else saved).pop(key)
    OmegaConf.save(saved, run / "config.yaml")
    assert fcnseg(*command) == 0
    assert capsys.readouterr().out == f"finished    run, mean IoU {score:.3f}; nothing left to train\n"
    for setting in ("lr_rule=linear", "data.device_batch_size=2"):
        assert fcnseg(*command, setting) == 2
        began = f"it began without {setting.partition('=')[0]}, this run has {setting}"
        assert capsys.readouterr().err.strip() == f"fcnseg: resume=run: {began}"

    # a checkpoint; of the last step, so that there is nothing but to score it
    (run / "metrics.json").unlink()
    assert fcnseg(*command, "seed=3") == 2
    assert capsys.readouterr().err.strip() == refused
    assert fcnseg(*command, "stages={only: {}}") == 2
    assert "resume=run: it began with stages=null, this run has stages={'only': {}}" in capsys.readouterr().err
    returned.clear()
    configuration.run("train", command[1:], lambda config: returned.append(train.run(config)))
    assert "goes on     run\n" in capsys.readouterr().out
    assert returned == [score]
    assert all(torch.equal(state(run)[name], weight) for name, weight in weights.items())
    assert logged_steps(run / "metrics.1.csv") == [0, 1]

    # neither: killed before its first checkpoint
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "checkpoints")
    assert fcnseg(*command, "seed=3") == 0
    assert OmegaConf.load(run / "config.yaml").seed == 3
    assert "goes on" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_folder_of_a_run_with_stages(fcnseg, camvid, tmp_path, capsys):
    command = single(camvid, "stages={one: {}, two: {}}")
    assert fcnseg(*command) == 0
    run = tmp_path / "run"
    whole = json.loads((run / "metrics.json").read_text())
    assert fcnseg(*single(camvid)) == 2
    assert "resume=run: it began with stages={" in capsys.readouterr().err
    (run / "metrics.json").unlink()
    assert fcnseg(*single(camvid)) == 2, "whether or not it is finished"
    assert "resume=run: it began with stages={" in capsys.readouterr().err

    (run / "two" / "metrics.json").unlink()
    assert fcnseg(*command) == 0
    again = json.loads((run / "metrics.json").read_text())
    assert {key: again[key] for key in ("step", "images_seen", "stages")} == {
        key: whole[key] for key in ("step", "images_seen", "stages")
    }
    # killed before the first checkpoint of the first stage
    shutil.rmtree(run / "two")
    for name in ("metrics.json", "one/metrics.json", "one/checkpoints/last.ckpt"):
        (run / name).unlink()
    capsys.readouterr()
    assert fcnseg(*command) == 0
    assert "stage       one, 1 of 2, begins" in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["stages"] == whole["stages"]
