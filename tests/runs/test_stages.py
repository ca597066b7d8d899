"""Training in stages from the command line: handing on weights, going on after a killed job, and mistakes."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.commands import processes
from tests.commands.processes import in_a_process, state, stop_when
from tests.reports.pages import Page

SETTINGS = ("data=camvid", *processes.SETTINGS)
TWO = "stages={coarse:{},fine:{model:{name:fcn16s_vgg16},optimizer:{lr:0.001}}}"


def command(camvid: Path, folder: str, *more: str, epochs: int = 1, stages: str = TWO) -> list[str]:
    settings = [*SETTINGS, stages, f"data.root={camvid}", f"hydra.run.dir={folder}", f"trainer.max_epochs={epochs}"]
    return ["train", *settings, *more]


@pytest.mark.slow
def test_each_stage_starts_from_the_end_of_the_one_before(fcnseg, camvid, tmp_path, capsys):
    """A second stage whose rate is zero ends with the very weights of the first, and skips that score nothing."""
    stages = "stages={coarse:{},fine:{model:{name:fcn16s_vgg16},optimizer:{lr:0}}}"
    assert fcnseg(*command(camvid, "run", epochs=2, stages=stages)) == 0
    run = tmp_path / "run"
    coarse, fine = state(run / "coarse"), state(run / "fine")
    assert set(fine) - set(coarse) == {"model.score_pool4.weight", "model.score_pool4.bias"}
    for name, weight in fine.items():
        assert torch.equal(weight, coarse.get(name, torch.zeros_like(weight))), name
    assert coarse["model.score_fr.weight"].any()
    scores = [json.loads((run / name / "metrics.json").read_text()) for name in ("coarse", "fine")]
    assert scores[0]["mean_iou"] == pytest.approx(scores[1]["mean_iou"], abs=0.05), "upsampled in two steps, not one"
    for name in ("coarse", "fine"):
        assert (run / name / "config.yaml").stat().st_size > 0
        assert (run / name / "examples.png").stat().st_size > 0
        assert len(Page(run / name / "report.html").all("article")) == 4
    page = Page(run / "report.html")
    stages = [
        [name, [str(told["step"]), f"{100 * told['mean_iou']:.1f}"]]
        for name, told in zip(("coarse", "fine"), scores, strict=True)
    ]
    assert list(map(list, page.rows("stage").items()))[1:] == stages
    assert page.rows("trained on")["camvid"][:2] == ["8", str(2 * scores[0]["images_seen"]["camvid"])]
    assert len(page.all("article")) == 4, "of the last stage"
    shown = capsys.readouterr().out.splitlines()
    assert "checkpoint           run/fine/checkpoints/last.ckpt" in shown
    assert shown[-1].split() == ["fcnseg", "rerun", "run"]


@pytest.mark.slow
def test_an_interrupted_and_then_killed_run_ends_like_an_uninterrupted_one(fcnseg, camvid, tmp_path, capsys):
    """Ctrl-C in the first stage, SIGKILL in the second: the weights are those of a run that was left in peace."""
    long = {"epochs": 16}
    more = ("trainer.check_val_every_n_epoch=16", "trainer.log_every_n_steps=1")
    assert fcnseg(*command(camvid, "whole", *more, **long)) == 0
    run = tmp_path / "run"

    def epoch_ended(stage: str) -> Callable[[], bool]:
        return (run / stage / "checkpoints" / "last.ckpt").is_file

    process = in_a_process(command(camvid, "run", *more, **long), tmp_path)
    written = stop_when(epoch_ended("coarse"), process, signal.SIGINT)
    assert not (run / "coarse" / "metrics.json").exists(), "it was stopped in the midst of the first stage"
    hints = [line for line in written.splitlines() if "go on" in line]
    assert hints == ["interrupted; go on with the same settings and resume=run"]

    resumed = [*command(camvid, "next/a", *more, **long), "resume=run"]
    stop_when(epoch_ended("fine"), in_a_process(resumed, tmp_path), signal.SIGKILL)
    assert (run / "coarse" / "metrics.json").exists()
    assert not (run / "fine" / "metrics.json").exists(), "it was killed in the midst of the second stage"
    assert not (tmp_path / "next" / "a").exists(), "it went on in its own folder"

    finished = (run / "coarse" / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert fcnseg(*command(camvid, "next/b", *more, **long), "resume=run") == 0
    shown = capsys.readouterr().out
    assert "stage       coarse, 1 of 2, finished" in shown
    assert "stage       fine, 2 of 2, goes on" in shown
    assert (run / "coarse" / "metrics.json").stat().st_mtime_ns == finished
    with (run / "fine" / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert min(epochs) > 0, "the second stage did not begin anew"
    for stage in ("coarse", "fine"):
        whole, rest = state(tmp_path / "whole" / stage), state(run / stage)
        assert all(torch.equal(rest[name], weight) for name, weight in whole.items())
        whole, rest = (json.loads((top / stage / "metrics.json").read_text()) for top in (tmp_path / "whole", run))
        assert whole["classes"] == rest["classes"]


@pytest.mark.slow
def test_a_stage_can_replace_what_is_built_and_set_what_is_null(fcnseg, camvid, tmp_path):
    sgd = "{_target_:torch.optim.SGD,_partial_:true,lr:0.25,momentum:0.5}"
    settings = f"optimizer:{sgd},data:{{}},trainer:{{gradient_clip_val:2.0}},callbacks:{{early_stopping:null}}"
    assert fcnseg(*command(camvid, "run", stages=f"stages={{only:{{{settings}}},left_out:null}}")) == 0
    content = torch.load(tmp_path / "run" / "only" / "checkpoints" / "last.ckpt", weights_only=True)
    group = content["optimizer_states"][0]["param_groups"][0]
    assert (group["lr"], group["momentum"], "betas" in group) == (0.25, 0.5, False)
    assert not any("EarlyStopping" in name for name in content["callbacks"])
    assert "gradient_clip_val: 2.0" in (tmp_path / "run" / "only" / "config.yaml").read_text()
    assert not (tmp_path / "run" / "left_out").exists()


@pytest.mark.slow
def test_a_run_that_stopped_while_it_wrote_its_scores_writes_them_again(fcnseg, camvid, tmp_path):
    assert fcnseg(*command(camvid, "run", "trainer.log_every_n_steps=1")) == 0
    run = tmp_path / "run"
    before, weights = json.loads((run / "fine" / "metrics.json").read_text()), state(run / "fine")
    (run / "fine" / "metrics.json").unlink()
    assert fcnseg(*command(camvid, "next", "trainer.log_every_n_steps=1"), "resume=run") == 0
    after = json.loads((run / "fine" / "metrics.json").read_text())
    assert {k: after[k] for k in ("mean_iou", "step", "classes")} == {
        k: before[k] for k in ("mean_iou", "step", "classes")
    }
    assert all(torch.equal(state(run / "fine")[name], weight) for name, weight in weights.items())
    assert (run / "fine" / "metrics.1.csv").is_file(), "the curves of what was trained before are kept"
    assert not (run / "fine" / "metrics.csv").exists(), "nothing was trained again"


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("{coarse:{optimiser:{lr:1}}}", "stages.coarse.optimiser: no such key; expected one like optimizer"),
        ("{coarse:{optimizer:{lrr:1}}}", "stages.coarse.optimizer.lrr: no such key; expected one like lr"),
        ("{coarse:{resume:x}}", "stages.coarse.resume: no such key; expected one like"),
        ("{coarse:3}", "stages.coarse: expected settings such as {model: {name: fcn16s_vgg16}}"),
        ("{coarse:{model:fcn16s_vgg16}}", "stages.coarse.model=fcn16s_vgg16: expected settings such as {name: fcn16s"),
        ("{coarse:{optimizer:null}}", "stages.coarse.optimizer=null: expected settings such as {key: value}"),
        ("{a/b:{}}", "stages: 'a/b' cannot name a folder"),
        ("{coarse:null}", "stages: expected at least one stage"),
        ("[coarse]", "expected a mapping of a stage's name to its settings, or null"),
        ("{coarse:{callbacks:{last:null}},fine:{}}", "stages.coarse: needs callbacks.last"),
        ("{coarse:{},fine:{model:{name:fcn16s_vgg61}}}", "unknown model 'fcn16s_vgg61'"),
        ("{coarse:{},fine:{model:{padding:none}}}", "padding 'none': expected one of same, caffe"),
    ],
)
def test_a_wrong_stage_is_named_before_anything_is_trained(fcnseg, camvid, tmp_path, capsys, stages, expected):
    assert fcnseg(*command(camvid, "run", stages=f"stages={stages}")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_what_cannot_be_gone_on_with_is_refused_in_one_line(fcnseg, camvid, tmp_path, capsys):
    assert fcnseg(*command(camvid, "run", stages="stages={only:{}}")) == 0
    assert fcnseg(*command(camvid, "single", stages="stages=null")) == 0
    one = {"stages": "stages={only:{}}"}
    for arguments, expected in (
        (command(camvid, "x", "resume=nowhere", **one), "resume=nowhere: no such run"),
        (command(camvid, "x", "resume=single", **one), "resume=single: no staged run; expected a folder whose config"),
        (command(camvid, "x", "resume=run/only/checkpoints/last.ckpt", **one), "a file; expected the run's folder"),
        (command(camvid, "x", "resume=run", stages="stages=null"), "resume=run: a folder; expected a checkpoint, or"),
        (command(camvid, "x", "resume=run", "seed=3", **one), "resume=run: it began with seed=0, this run has seed=3"),
        (command(camvid, "x", "resume=run"), "resume=run: it began without stages.coarse"),
        (command(camvid, "run", **one), "run: holds a run already; resume=auto goes on with it, or give a new folder"),
    ):
        capsys.readouterr()
        assert fcnseg(*arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line
