"""From settings to a training: what does without a logger, a number of steps or the data's root, and what not."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fcnseg.evaluation import evaluate, load_matrices
from fcnseg.models import FCN
from fcnseg.runs import records
from tests.commands.processes import SETTINGS

SMALL = ("train", "data=camvid", *SETTINGS)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.slow
def test_without_a_logger(fcnseg, camvid, tmp_path):
    settings = [each for each in SMALL if not each.startswith("logger.")]
    once = ("trainer.max_epochs=1", "logger=none", "hydra.run.dir=run")
    assert fcnseg(*settings, f"data.root={camvid}", *once) == 0
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert "metrics.json" in files
    assert not files & {"metrics.csv", "tensorboard"}


@pytest.mark.slow
def test_a_training_that_a_time_ends(fcnseg, camvid, tmp_path, capsys):
    limits = (f"data.root={camvid}", "trainer.max_epochs=-1", "trainer.max_time=00:00:00:02", "optimizer.lr=0.001")
    assert fcnseg(*SMALL, *limits, "hydra.run.dir=run") == 0
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] > 0
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.001
    capsys.readouterr()
    for schedule in ("one_cycle", "poly", "step"):
        assert fcnseg(*SMALL, *limits, f"scheduler={schedule}", "hydra.run.dir=other") == 2
        assert one_line(capsys) == (
            "fcnseg: scheduler: divides the number of steps, and the training has none; "
            "expected trainer.max_steps, trainer.max_epochs or scheduler=constant"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "of"),
    [("one_cycle", "8 steps, and over 12"), ("poly", "8 steps, and over 12"), ("step", "3 steps, and over 4")],
)
def test_a_schedule_goes_on_over_its_own_length_alone(fcnseg, camvid, tmp_path, capsys, schedule, of):
    """Two steps an epoch. Of `step` it is the steps to a fall, a third of all, that are compared."""
    settings = (*SMALL, f"data.root={camvid}", f"scheduler={schedule}")
    assert fcnseg(*settings, "trainer.max_epochs=4", "hydra.run.dir=run") == 0
    capsys.readouterr()
    resume = "resume=run/checkpoints/last.ckpt"
    assert fcnseg(*settings, "trainer.max_epochs=6", resume, "hydra.run.dir=longer") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"fcnseg: resume: the learning rate follows a schedule over {of} in this run; expected")
    assert not (tmp_path / "longer" / "checkpoints").exists(), "before anything is trained"
    assert fcnseg(*settings, "trainer.max_epochs=4", resume, "hydra.run.dir=same") == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("optimizer.lr=-1",), "fcnseg: optimizer: Invalid learning rate: -1"),
        (("optimizer=sgd", "optimizer.momentum=-3"), "fcnseg: optimizer: Invalid momentum value: -3"),
        (("hydra.run.dir=file",), "fcnseg: file: File exists"),
        (("hydra.run.dir=file/run",), "fcnseg: file/run: Not a directory"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_trained(fcnseg, camvid, tmp_path, capsys, settings, expected):
    (tmp_path / "file").touch()
    assert fcnseg(*SMALL, f"data.root={camvid}", "trainer.max_steps=1", "hydra.run.dir=run", *settings) == 2
    assert one_line(capsys) == expected
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("regime", [(), ("regime=real",)])
def test_a_pack_needs_no_root(fcnseg: Callable[..., int], camvid: Path, tmp_path: Path, regime):
    """As `fcnseg data pack` says when it is done."""
    assert fcnseg("data", "pack", "data=camvid", f"data.root={camvid}", "output=packed") == 0
    assert fcnseg(*SMALL, "data.packed=packed", "trainer.max_steps=2", "hydra.run.dir=run", *regime) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images_seen"] == {"camvid": 8}
    assert fcnseg("evaluate", "checkpoint=run/checkpoints/last.ckpt", "data=camvid", "data.packed=packed") == 0


@pytest.mark.slow
def test_ways_to_go_faster_do_not_change_what_is_learnt(fcnseg, camvid, tmp_path, monkeypatch):
    """Recomputed maps give the same weights to the last bit, compilation the same up to roundings.

    It is traced and differentiated as always; its kernels alone, which a C++ compiler takes minutes for, are not made.
    """
    monkeypatch.setattr(FCN, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    deep, flat = "model.name=fcn8s_vgg16_bn", "model.name=fcn16s_alexnet"  # tracing all of the first takes a minute
    settings = {
        "plain": (deep,),
        "thrifty": (deep, "trainer.checkpoint_activations=true"),
        "flat": (flat,),
        "compiled": (flat, "trainer.compile=true"),
    }
    weights = {}
    for name, own in settings.items():
        more = (*own, "trainer.max_steps=3", "optimizer=sgd", f"data.root={camvid}", f"hydra.run.dir={name}")
        assert fcnseg(*SMALL, *more) == 0
        weights[name] = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["plain"].keys() == weights["thrifty"].keys()
    assert weights["flat"].keys() == weights["compiled"].keys()
    assert all(torch.equal(values, weights["thrifty"][key]) for key, values in weights["plain"].items())
    for key, values in weights["flat"].items():
        torch.testing.assert_close(weights["compiled"][key], values, rtol=1e-3, atol=1e-4, msg=key)


def test_trunks_of_timm_cannot_be_recomputed(fcnseg, camvid, capsys):
    pytest.importorskip("timm")
    trunk = ("model=fcn8s_resnet18", "model.width=1", "trainer.checkpoint_activations=true", f"data.root={camvid}")
    assert fcnseg("train", "data=camvid", *SETTINGS, *trunk, "hydra.run.dir=run") == 2
    assert one_line(capsys).startswith("fcnseg: trainer.checkpoint_activations: fcn8s_resnet18 is over a trunk of timm")


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_tf32_is_what_the_setting_says(fcnseg, camvid, allowed):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed != "true"
    assert fcnseg(*SMALL, f"data.root={camvid}", "trainer.max_steps=1", f"trainer.tf32={allowed}") == 0
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is (allowed == "true")


@pytest.mark.slow
def test_the_last_validation_is_not_repeated_where_it_was_of_these_weights(fcnseg, camvid, tmp_path, monkeypatch):
    once = (*SMALL, f"data.root={camvid}", "trainer.max_epochs=1")
    calls = []
    monkeypatch.setattr(records, "evaluate", lambda *given: calls.append(given) or evaluate(*given))
    assert fcnseg(*once, "hydra.run.dir=validated") == 0
    assert not calls
    for run, setting in {
        "in_part": "trainer.limit_val_batches=0",
        "never": "trainer.check_val_every_n_epoch=2",
    }.items():
        assert fcnseg(*once, setting, f"hydra.run.dir={run}") == 0
    assert len(calls) == 2
    reports = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("validated", "never")]
    assert reports[0]["classes"] == reports[1]["classes"]
    names, matrices = zip(
        *(load_matrices(tmp_path / run / "confusions.npz") for run in ("validated", "never")), strict=True
    )
    assert names[0] == names[1]
    assert (matrices[0] == matrices[1]).all()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_logger_whose_client_is_not_installed(fcnseg, camvid, monkeypatch, capsys, name):
    for logger in ("wandb", "mlflow"):
        monkeypatch.setattr(f"pytorch_lightning.loggers.{logger}._{logger.upper()}_AVAILABLE", False)
    monkeypatch.setattr("fcnseg.training.loggers.find_spec", lambda _: None)
    settings = [each for each in SMALL if not each.startswith("logger.")]
    assert fcnseg(*settings, f"data.root={camvid}", f"logger={name}") == 2
    assert capsys.readouterr().err == f"fcnseg: logger={name}: is not installed; pip install 'fcnseg[{name}]'\n"


@pytest.mark.slow
def test_a_command_with_mlflow_has_pictures_and_what_runs_are_compared_by(fcnseg, camvid, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    settings = [each for each in SMALL if not each.startswith("logger.")]
    once = ("trainer.max_epochs=2", "logger=mlflow", "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=0.01")
    assert fcnseg(*settings, f"data.root={camvid}", "callbacks.pictures.images=2", *once) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/run/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fcnseg").experiment_id])
    assert run.info.status == "FINISHED"
    told = {"optimizer": "SGD", "optimizer.lr": "0.01", "data": "camvid", "trainer.max_epochs": "2", "seed": "0"}
    assert told.items() <= run.data.params.items()
    assert not [key for key in run.data.params if "folder" in key or "root" in key]
    assert run.data.metrics["val/mean_iou"] > 0
    assert (tmp_path / "run" / "metrics.csv").is_file()
    pictures = sorted(path.name.split("+")[0] for path in (tmp_path / "run" / "mlflow").rglob("*.png"))
    assert pictures == sorted(2 * ["validation~1", "validation~2", "validation~confusion"])


@pytest.mark.slow
def test_the_first_of_two_processes_sends_pictures(camvid, tmp_path):
    settings = [each for each in SMALL if each not in ("logger.tensorboard=null", "trainer.accelerator=cpu")]
    command = [
        sys.executable,
        "-m",
        "fcnseg",
        *settings,
        f"data.root={camvid}",
        "trainer=ddp_cpu",
        "trainer.max_epochs=1",
    ]
    done = subprocess.run([*command, f"hydra.run.dir={tmp_path}/run"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    expected = {"validation/1", "validation/2", "validation/confusion"}
    assert set(found.Tags()["images"]) == expected, "of four images the first process validates two"
    assert "_hparams_/session_start_info" in found.summary_metadata
