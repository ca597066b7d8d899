"""The recipes of the reference and of DIGITS: each trains a step, and what it learns by is what its source says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.models import create_model
from tests.commands.processes import in_a_process

TINY = ("model.width=0.05", "model.weights=null", "data.size=[48,64]", "data.num_workers=0", "trainer.accelerator=cpu")
TINY += ("data=camvid", "callbacks.progress=null", "logger.tensorboard=null", "hydra.run.dir=run")

HEAVY = {"momentum": 0.99, "weight_decay": 5e-4}
ORDINARY = {"momentum": 0.9, "weight_decay": 5e-4}
DIGITS = {"momentum": 0.9, "weight_decay": 1e-6}


def gradients(camvid: Path, name: str) -> np.ndarray:
    """(images, 11) gradient of each training image's summed loss by the bias of score_fr, before the first step.

    With scores of zero every class has probability 1/11, and a pixel's scores depend on the bias as far as the
    upsampling reaches it; there are zeros beyond the edges of the coarse scores.
    """
    model = create_model(name, num_classes=11, padding="caffe", width=0.05).eval()
    torch.nn.init.ones_(model.score_fr.bias)
    reach = model(torch.zeros(1, 3, 48, 64))[0, 0].detach().double().numpy()
    labels = np.array([np.asarray(Image.open(path)) for path in sorted((camvid / "trainannot").iterdir())])
    misses = np.stack([(1 / 11 - (labels == c)) * (labels != 11) for c in range(11)], axis=1)
    return (misses * reach).sum(axis=(2, 3))


def labelled(camvid: Path) -> np.ndarray:
    """(images, 1) pixels that are scored."""
    return np.array([[(np.asarray(Image.open(p)) != 11).sum()] for p in sorted((camvid / "trainannot").iterdir())])


def groups(checkpoint: Path) -> list[dict]:
    """The optimiser's parameter groups: weights, then biases."""
    return torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"]


def score_bias(checkpoint: Path) -> np.ndarray:
    return torch.load(checkpoint, weights_only=True)["state_dict"]["model.score_fr.bias"].double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "lr", "values"),
    [("reference_staged", 1e-10, HEAVY), ("reference_atonce", 1e-10, HEAVY), ("digits_alexnet", 1e-4, DIGITS)],
)
def test_single_images(fcnseg, camvid, tmp_path, experiment, lr, values):
    """With scores of zero each class has probability 1/11, so the first step of score_fr's bias is known beforehand."""
    one_step = ("trainer.max_steps=1", "stages.fcn16s=null", "stages.fcn8s=null")[: 3 if "staged" in experiment else 1]
    settings = [each for each in TINY if experiment == "digits_alexnet" or not each.startswith("data.size=")]
    assert fcnseg("train", f"experiment={experiment}", *settings, f"data.root={camvid}", *one_step) == 0
    checkpoint = tmp_path / "run" / ("fcn32s" if "staged" in experiment else "") / "checkpoints" / "last.ckpt"
    weights, biases = groups(checkpoint)
    assert {name: weights[name] for name in values} == values
    assert weights["initial_lr"] == pytest.approx(lr)  # before the schedule, which steps once here
    assert biases["initial_lr"] == pytest.approx(2 * lr)
    assert biases["weight_decay"] == 0

    spec = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["spec"]
    assert spec["input_size"] == ([48, 64] if experiment == "digits_alexnet" else None), "the reference's are whole"
    steps = -2 * lr * gradients(camvid, spec["name"])
    if experiment == "digits_alexnet":
        steps /= labelled(camvid)
    errors = np.abs(score_bias(checkpoint) - steps).max(axis=1) / np.abs(steps).max(axis=1)
    assert errors.min() < 1e-4, "one of the images made this step"


@pytest.mark.slow
def test_alexnet_accumulates_twenty_images(fcnseg, camvid, tmp_path):
    """The eight images of an epoch make one step, of the mean over all their pixels, though there are not twenty."""
    one_epoch = ("trainer.max_steps=1", "experiment=reference_alexnet")
    assert fcnseg("train", *one_epoch, *TINY, f"data.root={camvid}") == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    weights, biases = groups(checkpoint)
    assert {name: weights[name] for name in ORDINARY} == ORDINARY
    assert (weights["lr"], biases["lr"]) == pytest.approx((1e-4, 2e-4))
    step = -2e-4 * gradients(camvid, "fcn32s_caffenet").sum(axis=0) / labelled(camvid).sum()
    assert score_bias(checkpoint) == pytest.approx(step, rel=1e-3, abs=1e-9)


@pytest.mark.slow
def test_each_stage_has_its_rate(fcnseg, camvid, tmp_path):
    assert fcnseg("train", "experiment=reference_staged", *TINY, f"data.root={camvid}", "trainer.max_steps=1") == 0
    rates = [
        groups(tmp_path / "run" / name / "checkpoints" / "last.ckpt")[0]["lr"] for name in ("fcn32s", "fcn16s", "fcn8s")
    ]
    assert rates == pytest.approx([1e-10, 1e-12, 1e-14])


@pytest.mark.slow
def test_camvid_staged(fcnseg, camvid, tmp_path):
    short = ("trainer.max_epochs=1", "stages.fcn16s.trainer.max_epochs=1", "stages.fcn8s.trainer.max_epochs=1")
    command = ("experiment=camvid_staged", *TINY, f"data.root={camvid}", "data.batch_size=4", *short)
    assert fcnseg("train", *command) == 0
    for name, skips in (("fcn32s", 0), ("fcn16s", 1), ("fcn8s", 2)):
        checkpoint = torch.load(tmp_path / "run" / name / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["hyper_parameters"]["spec"]["name"] == f"{name}_vgg16_bn"
        assert sum(key.startswith("model.score_pool") for key in checkpoint["state_dict"]) == 2 * skips


@pytest.mark.slow
def test_a_step_on_the_sum_does_not_depend_on_the_number_of_processes(fcnseg, camvid, tmp_path):
    """Two processes with two images each learn what one learns from all four."""
    settings = ["train", *TINY, f"data.root={camvid}", "model=fcn32s_vgg16", "model.dropout=0", "data.batch_size=4"]
    settings += ["data/augment=none", "optimizer=sgd", "optimizer.lr=1e-5", "scheduler=constant"]
    settings += [
        "loss.reduction=sum",
        "loss.class_weights=median_frequency",
        "trainer.max_steps=1",
        "trainer.max_epochs=-1",
    ]
    assert fcnseg(*settings) == 0
    process = in_a_process([*settings, "trainer=ddp_cpu", "hydra.run.dir=two"], tmp_path)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert "2 x cpu" in shown
    one, two = (score_bias(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("run", "two"))
    assert np.abs(one).max() > 1e-3
    assert two == pytest.approx(one, rel=1e-4)
