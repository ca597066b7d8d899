"""The main job end to end: train, evaluate, predict, resume, and two processes, from the command line."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.models import load_checkpoint
from tests.commands.processes import in_a_process, stop_when

SMALL = (
    "data=camvid",
    "model=fcn8s_vgg16_bn",
    "model.width=0.1",
    "model.dropout=0",
    "data.size=[48,64]",
    "data.batch_size=4",
)
SMALL += ("trainer.accelerator=cpu", "callbacks.progress=null", "data.num_workers=0")

LOSSES = "loss", "loss_camvid", "loss_synthetic"


def settings(camvid: Path, epochs: int) -> list[str]:
    return ["train", *SMALL, f"data.root={camvid}", "hydra.run.dir=run", f"trainer.max_epochs={epochs}"]


def brute_force_mean_iou(masks: Path, labels: Path) -> float:
    """Mean IoU from the files alone, by sets of pixels."""
    pairs = [(np.asarray(Image.open(masks / p.name)), np.asarray(Image.open(p))) for p in sorted(labels.iterdir())]
    prediction, label = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    kept = label < 11
    ious = []
    for c in range(11):
        union = ((prediction == c) | (label == c)) & kept
        if union.any():
            ious.append(((prediction == c) & (label == c)).sum() / union.sum())
    return float(np.mean(ious))


def test_a_run_that_ends_before_its_first_validation_has_its_best_weights_too(fcnseg, camvid, tmp_path, recwarn, capfd):
    assert fcnseg(*settings(camvid, epochs=1), "trainer.max_steps=1", "data.steps_per_epoch=3") == 0
    folder = tmp_path / "run" / "checkpoints"
    last, best = (load_checkpoint(folder / f"{name}.ckpt").state_dict() for name in ("last", "best"))
    assert best.keys() == last.keys()
    assert all(torch.equal(best[key], value) for key, value in last.items())
    assert not [warning for warning in recwarn if "val/mean_iou" in str(warning.message)]
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())["checkpoints"]
    assert list(kept) == ["best", "last"]
    shown = capfd.readouterr().out
    assert "Epoch" not in shown, "callbacks.progress=null leaves no other bar"
    (evaluation,) = [
        shlex.split(line.removeprefix("next")) for line in shown.splitlines() if " fcnseg evaluate " in line
    ]
    assert fcnseg(*evaluation[1:]) == 0, "what is likely to come next can be pasted"
    assert (
        f"{100 * json.loads((tmp_path / 'run' / 'metrics.json').read_text())['mean_iou']:.1f}" in capfd.readouterr().out
    )


@pytest.mark.slow
def test_training_learns_and_all_scores_agree(fcnseg, camvid, tmp_path):
    assert fcnseg(*settings(camvid, epochs=12), "trainer.log_every_n_steps=1") == 0
    run = tmp_path / "run"
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert losses[0] == pytest.approx(np.log(11), rel=1e-3), "scores start at zero: the loss of a guess among 11"
    assert np.mean(losses[-4:]) < 0.7 * losses[0]
    for name in ("config.yaml", "confusion.png", "examples.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / name).stat().st_size > 0

    metrics = json.loads((run / "metrics.json").read_text())
    last = [float(row["val/mean_iou"]) for row in rows if row["val/mean_iou"]][-1]
    assert metrics["mean_iou"] == pytest.approx(last, abs=1e-5)
    assert metrics["images"] == 4
    assert metrics["step"] == 24

    checkpoint = f"checkpoint={run}/checkpoints/last.ckpt"
    shutil.rmtree(camvid / "train")  # evaluation needs no training data
    assert fcnseg("evaluate", checkpoint, "data=camvid", f"data.root={camvid}", "hydra.run.dir=eval") == 0
    evaluated = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert evaluated["classes"] == metrics["classes"]

    assert fcnseg("predict", checkpoint, f"input={camvid}/val", "output=out") == 0
    assert brute_force_mean_iou(tmp_path / "out" / "masks", camvid / "valannot") == pytest.approx(last, abs=1e-4)
    with Image.open(next((tmp_path / "out" / "overlays").iterdir())) as overlay:
        assert overlay.width == 64
        assert overlay.height > 48, "the legend lies below the picture"


@pytest.mark.slow
def test_resuming_goes_on_where_training_stopped(fcnseg, camvid, tmp_path, capsys):
    schedule = ("scheduler=constant", "trainer.deterministic=warn")
    assert fcnseg(*settings(camvid, epochs=3), *schedule, "hydra.run.dir=whole") == 0
    assert fcnseg(*settings(camvid, epochs=2), *schedule, "hydra.run.dir=half") == 0
    resume = "resume=half/checkpoints/last.ckpt"
    assert fcnseg(*settings(camvid, epochs=3), *schedule, resume, "hydra.run.dir=rest") == 0
    whole, half, rest = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt").score_fr.weight
        for name in ("whole", "half", "rest")
    )
    assert torch.equal(rest, whole)
    assert not torch.equal(half, whole)

    capsys.readouterr()
    assert fcnseg(*settings(camvid, epochs=3), resume, "model.width=0.2") == 2
    line = capsys.readouterr().err.strip()
    assert line == "fcnseg: resume=half/checkpoints/last.ckpt: its model has width=0.1, this run width=0.2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("data.num_workers=2", "trainer.accumulate_grad_batches=2", "scheduler=one_cycle")]
)
def test_a_run_killed_within_an_epoch_goes_on_to_the_same_weights(fcnseg, camvid, tmp_path, more):
    """SIGKILL between two checkpoints of a long epoch, with dropout and batches of two domains."""
    scripted = [
        *settings(camvid, epochs=2), "data=camvid_bgc", "data.train.synthetic.length=20", "data.batch_size=3",
        "data.steps_per_epoch=40", "model.dropout=0.5", "scheduler=constant", "callbacks.last.every_n_train_steps=7",
        "trainer.limit_val_batches=1", *more,
    ]  # fmt: skip

    def checkpoint(folder: str) -> dict:
        return torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)

    assert fcnseg(*scripted, "hydra.run.dir=whole") == 0
    process = in_a_process([*scripted, "hydra.run.dir=killed"], tmp_path)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    stop_when(lambda: last.is_file() and checkpoint("killed")["global_step"] >= 14, process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    step = checkpoint("killed")["global_step"]
    assert step % 7 == 0, "it stopped within an epoch, and not at its end"
    process = in_a_process([*scripted, "hydra.run.dir=rest", "resume=killed/checkpoints/last.ckpt"], tmp_path)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    whole, rest = checkpoint("whole"), checkpoint("rest")
    assert rest["global_step"] == whole["global_step"] > step
    for name, value in whole["state_dict"].items():
        assert torch.equal(rest["state_dict"][name], value), name
    scores = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "rest")]
    assert scores[0]["classes"] == scores[1]["classes"]
    assert scores[0]["images_seen"] == scores[1]["images_seen"] == {"camvid": 160, "synthetic": 80}
    assert "not resumable" not in shown + errors


@pytest.mark.slow
def test_bgc_batches_reach_the_trainer(fcnseg, camvid, tmp_path, capsys):
    bgc = ["data=camvid_bgc", "data.train.synthetic.length=10", "data.batch_size=5", "trainer.log_every_n_steps=1"]
    more = ["loss.domain_weights={synthetic:0.25,camvid:0.5}", "callbacks.gradients.every_n_steps=2"]
    assert fcnseg(*settings(camvid, epochs=1), *bgc, *more) == 0
    shown = capsys.readouterr().out
    assert "train on 8 camvid, 10 synthetic (a batch: 3 camvid, 2 synthetic), validate on 4" in shown
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [{key: float(row[f"train/{key}"]) for key in LOSSES} for row in rows if row["train/loss"]]
    assert len(steps) == 2
    for step in steps:
        weighed = 0.5 * step["loss_camvid"] + 0.25 * step["loss_synthetic"]
        assert step["loss"] == pytest.approx(weighed, rel=1e-5)
    cosines = [float(row["gradient/cosine_camvid_synthetic"]) for row in rows if row["gradient/norm_camvid"]]
    assert len(cosines) == 1
    assert 0 < cosines[0] < 1, "two looks of one world"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["step"], metrics["images_seen"]) == (2, {"camvid": 6, "synthetic": 4})

    assert fcnseg(*settings(camvid, epochs=1), *bgc, "loss.domain_weights={real:1}", "hydra.run.dir=other") == 2
    line = capsys.readouterr().err.strip()
    assert line.endswith("domain_weights {'real': 1}: expected a weight for each of the domains camvid, synthetic")
    assert "\n" not in line


@pytest.mark.slow
def test_pooled_batches_reach_the_trainer(fcnseg, camvid, tmp_path, capsys):
    """A pass over the 8 and 10 images of the pool is three batches."""
    pooled = ["data=camvid_bgc", "data.train.synthetic.length=10", "data.batch_size=6", "data.mixing=pooled"]
    assert fcnseg(*settings(camvid, epochs=9), *pooled, "trainer.max_steps=3") == 0
    assert "(a batch: 6 of all, shuffled together), validate on 4" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["step"], metrics["images_seen"]) == (3, {"camvid": 8, "synthetic": 10})


@pytest.mark.slow
def test_the_console_script_trains_on_two_processes(camvid, tmp_path):
    script = Path(sys.executable).with_name("fcnseg")
    command = [script, *settings(camvid, epochs=2), "trainer=ddp_cpu"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 x cpu" in done.stdout
    assert "sync_dist" not in done.stderr, "advice that is wrong here"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        logged = [float(row["val/mean_iou"]) for row in csv.DictReader(file) if row["val/mean_iou"]][-1]
    assert metrics["step"] == 4, "two steps an epoch: the batch is split, not doubled"
    assert metrics["mean_iou"] == pytest.approx(logged, abs=1e-5), "two halves of the validation make one matrix"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["camvid", "run"], "the working directory stays as it was"


@pytest.mark.slow
def test_fine_tuning_and_single_domains_are_a_choice_of_domains(fcnseg, camvid, tmp_path, capsys):
    """Two stages that share a number of steps, the synthetic scenes first."""
    bgc = ["data=camvid_bgc", "data.train.synthetic.length=10", "data.batch_size=5"]
    phases = "stages={before:{data:{domains:[synthetic]}},after:{data:{domains:[camvid]},trainer:{max_steps:3}}}"
    assert fcnseg(*settings(camvid, epochs=9), *bgc, phases, "trainer.max_steps=4") == 0
    shown = capsys.readouterr().out
    assert "train on 10 synthetic (a batch: 5 synthetic), validate on 4" in shown
    assert "train on 8 camvid (a batch: 5 camvid), validate on 4" in shown
    metrics = [json.loads((tmp_path / "run" / name / "metrics.json").read_text()) for name in ("before", "after")]
    assert [(each["step"], each["images_seen"]) for each in metrics] == [(4, {"synthetic": 20}), (3, {"camvid": 15})]
    for wrong in ("[real]", "[]", "camvid"):
        assert fcnseg(*settings(camvid, epochs=1), *bgc, f"data.domains={wrong}", "hydra.run.dir=other") == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("fcnseg: data.domains=")
        assert line.endswith(": expected a list of names out of camvid, synthetic")


@pytest.mark.slow
def test_parts_of_a_domain(fcnseg, camvid, capsys):
    bgc = ["data=camvid_bgc", "data.train.synthetic.length=10", "data.batch_size=5"]
    assert fcnseg(*settings(camvid, epochs=1), *bgc, "data.parts={camvid: {share: 0.5, start: 0.25}}") == 0
    assert "train on 4 camvid, 10 synthetic (a batch:" in capsys.readouterr().out
    for wrong, expected in {
        "{kitti: {share: 0.5}}": "data.parts.kitti: no such domain; expected one of camvid, synthetic",
        "{camvid: 0.5}": "data.parts.camvid=0.5: expected a mapping such as {camvid: {share: 0.25, start: 0.5}}",
        "{camvid: {start: 0}}": "expected a mapping such as {camvid: {share: 0.25, start: 0.5}}",
        "0.5": "data.parts=0.5: expected a mapping such as {camvid: {share: 0.25, start: 0.5}}",
        "{camvid: {share: 2}}": "share=2: expected a part of a dataset, above 0 and at most 1",
    }.items():
        assert fcnseg(*settings(camvid, epochs=1), *bgc, f"data.parts={wrong}", "hydra.run.dir=other") == 2
        assert capsys.readouterr().err.strip().endswith(expected)


def test_separate_statistics_need_every_domain_in_every_process(fcnseg, camvid, capsys):
    bgc = ["data=camvid_bgc", "data.train.synthetic.length=10", "domain_statistics=separate", "trainer=ddp_cpu"]
    assert fcnseg(*settings(camvid, epochs=1), *bgc, "data.batch_size=3") == 2
    expected = "a batch has 1 samples of a domain for 2 processes; expected one for each; raise data.batch_size"
    assert capsys.readouterr().err.strip() == f"fcnseg: domain_statistics=separate: {expected}"
    assert fcnseg(*settings(camvid, epochs=1), *bgc, "data.mixing=pooled") == 2
    assert (
        capsys.readouterr().err.strip().endswith("needs data.mixing=balanced with several processes or micro-batches")
    )


@pytest.mark.slow
def test_two_processes_weigh_domains_as_one_does(fcnseg, camvid, tmp_path):
    """The second of the two never has a sample of the second domain."""
    shared = [
        *settings(camvid, epochs=1), "data=camvid_bgc", "data.train.synthetic.length=10", "data.batch_size=3",
        "data.ratio={camvid:2,synthetic:1}", "loss.domain_weights={camvid:0.3,synthetic:0.7}", "optimizer=sgd",
        "optimizer.lr=0.1", "scheduler=constant", "model=fcn32s_vgg16", "callbacks.gradients.every_n_steps=2",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    assert fcnseg(*shared, "hydra.run.dir=one") == 0
    process = in_a_process([*shared, "trainer=ddp_cpu", "hydra.run.dir=two"], tmp_path)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors[-3000:]
    weights, logs = [], []
    for run in (tmp_path / "one", tmp_path / "two"):
        weights.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        names = [key for key in rows[0] if key.startswith(("train/", "gradient/"))]
        logs.append([float(row[name]) for name in names for row in rows if row[name]])
    assert len(logs[0]) == 4 * len(LOSSES) + 2 * 3
    assert logs[1] == pytest.approx(logs[0], rel=1e-3)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


def test_clipping_in_16_bits_trains_with_an_optimiser_that_is_not_fused(fcnseg, camvid, tmp_path):
    """Lightning refuses a fused one there, with an error from its depths."""
    half = ["optimizer=adamw", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1.0", "trainer.max_steps=2"]
    assert fcnseg(*settings(camvid, epochs=1), *half, "hydra.run.dir=run") == 0
    assert "fused: true" in (tmp_path / "run" / "config.yaml").read_text(), "so that it goes on with the same settings"


def test_any_module_of_logits_and_mask_is_a_loss(fcnseg, camvid, tmp_path):
    """It is given no more than its settings; before, it was given domains and a way to count pixels as well."""
    own = tmp_path / "own" / "loss" / "plain.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("_target_: torch.nn.CrossEntropyLoss\nignore_index: 255\nlabel_smoothing: 0.1\n")
    assert fcnseg(*settings(camvid, epochs=1), "loss=plain", "hydra.run.dir=run", "--config-dir", "own") == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] > 0
