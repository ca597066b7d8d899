"""Training over a pretrained trunk, each piece by one override: its preparation, its rate, its batch normalisation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.export import Recipe, export
from fcnseg.inference.exported import load_exported
from fcnseg.models import create_model, from_pretrained, load_checkpoint
from fcnseg.models.spec import CAFFE_PREPARATION
from tests.commands.processes import SETTINGS, in_a_process, state


def settings(camvid: Path, folder: str, epochs: int) -> list[str]:
    own = ["data=camvid", f"data.root={camvid}", f"hydra.run.dir={folder}", f"trainer.max_epochs={epochs}"]
    return ["train", *SETTINGS, *own]


# Preparation


@pytest.fixture
def trunk(tmp_path: Path) -> Path:
    """Convolutions alone, by the names of Caffe's layers, in half precision."""
    torch.manual_seed(3)
    layers = create_model("fcn32s_vgg16", num_classes=2, width=0.05).backbone.state_dict()
    path = tmp_path / "trunk.pth"
    torch.save({name: values.half() for name, values in layers.items()}, path)
    return path


def test_a_trunk_that_went_through_caffe_needs_its_preparations_name_alone(fcnseg, camvid, trunk, tmp_path) -> None:
    """From the file to the card: blue, green, red without Caffe's mean, in training, prediction and exports."""
    own = [f"model.weights={trunk}", "model.preparation=caffe", "model.fc_channels=16"]
    assert fcnseg(*settings(camvid, "run", 1), *own) == 0
    model = load_checkpoint("run/checkpoints/last.ckpt")
    assert (model.spec.channel_order, model.spec.mean, model.spec.std) == tuple(vars(CAFFE_PREPARATION).values())
    assert model.provenance["weights_source"] == "trunk.pth"

    model.save_pretrained("kept")
    assert "order: blue, green, red" in Path("kept/README.md").read_text()
    assert from_pretrained("kept").spec == model.spec
    picture = next((camvid / "val").iterdir())
    image = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None, :, :48, :64]
    with torch.inference_mode():
        expected = model.logits(image)
        by_hand = model(image.flip(1).float() - torch.tensor(CAFFE_PREPARATION.mean).view(1, 3, 1, 1))
    torch.testing.assert_close(expected, by_hand)
    export(model, Recipe("onnx"), Path("model.onnx"))
    exported = load_exported("model.onnx")
    assert exported.spec == model.spec
    torch.testing.assert_close(exported.logits(image), expected, rtol=1e-4, atol=1e-4)


def test_it_says_what_is_not_taken(fcnseg, camvid, trunk, capsys) -> None:
    own = [f"model.weights={trunk}", "model.preparation=caffe"]
    for more, expected in (
        (["model.preparation=berkeley"], "preparation='berkeley': expected one of imagenet, caffe"),
        (["model.mean=[1,2,3]"], "preparation=caffe: says mean as well, which is [1, 2, 3]; expected one"),
        (["frozen_batch_norm=true"], "frozen_batch_norm=true: the network has no batch normalisation; expected false"),
        (["backbone_lr_factor=-1"], "backbone_lr_factor=-1: expected a number from 0 on"),
        (
            ["model.weights=null", "frozen_batch_norm=true"],
            "frozen_batch_norm=True: keeps the statistics of trained weights; expected model.weights, or false",
        ),
    ):
        capsys.readouterr()
        assert fcnseg(*settings(camvid, "run", 1), *own, *more) == 2
        assert capsys.readouterr().err.strip() == f"fcnseg: {expected}"


# Rates and statistics


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A network whose statistics are those of other images."""
    torch.manual_seed(4)
    model = create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(4, 3, 48, 64) * 3 + 1)
    model.save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def frozen(pretrained: Path) -> list[str]:
    return [
        "model=fcn32s_vgg16_bn", "model.dropout=0.5", f"model.weights={pretrained}", "frozen_batch_norm=true",
        "optimizer=sgd", "optimizer.lr=0.05",
    ]  # fmt: skip


def parts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a run's last weights: of the trunk's convolutions, its batch normalisation, and the head."""
    found: dict[str, dict[str, torch.Tensor]] = {"conv": {}, "bn": {}, "head": {}}
    for name, values in state(folder).items():
        kind = "head" if "backbone" not in name else "bn" if ".bn" in name else "conv"
        found[kind][name.removeprefix("model.")] = values
    return found


def test_frozen_layers_stay_and_the_trunk_has_its_rate(fcnseg, camvid, pretrained, tmp_path) -> None:
    before = from_pretrained(pretrained).state_dict()
    for factor in (0, 0.1):
        run = tmp_path / f"run_{factor}"
        assert fcnseg(*settings(camvid, run, 2), *frozen(pretrained), f"backbone_lr_factor={factor}") == 0
        after = parts(run)
        assert all(torch.equal(values, before[name]) for name, values in after["bn"].items())
        moved = [not torch.equal(values, before[name]) for name, values in after["conv"].items()]
        assert any(moved) == (factor > 0)
        assert not torch.equal(after["head"]["fc6.weight"], before["fc6.weight"])


def test_a_resumed_run_and_two_processes_end_alike(fcnseg, camvid, pretrained, tmp_path, capsys) -> None:
    own = [*frozen(pretrained), "backbone_lr_factor=0.1"]
    two = in_a_process([*settings(camvid, "two", 2), *own, "trainer=ddp_cpu"], tmp_path)
    assert fcnseg(*settings(camvid, "whole", 2), *own) == 0
    assert fcnseg(*settings(camvid, "half", 1), *own) == 0
    resume = "resume=half/checkpoints/last.ckpt"
    assert fcnseg(*settings(camvid, "rest", 2), *own, resume) == 0
    whole, rest = state(tmp_path / "whole"), state(tmp_path / "rest")
    assert all(torch.equal(rest[name], values) for name, values in whole.items())
    _, errors = two.communicate(timeout=200)
    assert two.returncode == 0, errors
    for name, values in state(tmp_path / "two").items():
        torch.testing.assert_close(values, whole[name], rtol=1e-3, atol=1e-5, msg=name)

    capsys.readouterr()
    assert fcnseg(*settings(camvid, "other", 2), *own, resume, "backbone_lr_factor=1") == 2
    line = "fcnseg: resume: it began with backbone_lr_factor=0.1, this run has backbone_lr_factor=1"
    assert capsys.readouterr().err.strip() == line


def test_runs_of_before_there_was_a_choice_go_on(fcnseg, camvid, tmp_path) -> None:
    """Their settings and checkpoints say nothing of it."""
    assert fcnseg(*settings(camvid, "run", 1)) == 0
    config = Path("run/config.yaml")
    new = ("backbone_lr_factor", "frozen_batch_norm", "preparation")
    lines = [line for line in config.read_text().splitlines() if line.split(":")[0].strip() not in new]
    config.write_text("\n".join(lines))
    Path("run/metrics.json").unlink()
    path = Path("run/checkpoints/last.ckpt")
    content = torch.load(path, weights_only=True)
    for name in new[:2]:
        del content[name]
    torch.save(content, path)
    assert fcnseg(*settings(camvid, "run", 1), "resume=auto") == 0
    assert json.loads(Path("run/metrics.json").read_text())["step"] > 0
