"""The dispatcher: help at once, and one readable line with exit code 2 for a user's mistake."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

CAMVID = ("train", "data=camvid", "model.width=0.05", "data.size=[48,64]", "trainer.max_epochs=1")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The single line that a mistake ends with."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_names_every_command_without_importing_torch():
    script = "import sys; sys.argv = ['fcnseg', '--help']\nfrom fcnseg.commands.cli import main\nmain()\n"
    script += "heavy = {'torch', 'hydra', 'numpy', 'pytorch_lightning'} & set(sys.modules)\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for command in ("train", "evaluate", "predict"):
        assert f"  {command} " in done.stdout
    assert "fcnseg train experiment=demo" in done.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "benchmark"])
def test_every_command_explains_itself_with_an_example(fcnseg, capsys, command):
    assert fcnseg(command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"fcnseg {command}: " in shown
    assert "example" in shown


def test_an_unknown_command_names_the_nearest(fcnseg, capsys):
    assert fcnseg("trian") == 2
    assert one_line(capsys) == "fcnseg: unknown command 'trian'; did you mean train?"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=fcn8s_vgg61", "model=fcn8s_vgg61: no such option; did you mean fcn8s_vgg1"),
        ("experiment=camvid_quik", "experiment=camvid_quik: no such option; did you mean camvid_quick"),
        ("optimizer=sdg", "optimizer=sdg: no such option; did you mean sgd"),
        ("trainer.max_epoch=3", "trainer.max_epoch: no such key; did you mean trainer.max_epochs"),
        ("data.bach_size=3", "data.bach_size: no such key; did you mean data.batch_size"),
        ("modl=x", "modl: no such key; did you mean model"),
        ("data=camvid", "data.root: a value is missing; give it as data.root=PATH"),
        ("resume=nowhere.ckpt", "resume=nowhere.ckpt: no such checkpoint"),
        ("data.batch_size=abc", "batch_size='abc': expected a whole number from 1 on"),
        ("data.batch_size=1", "batch_size 1 leaves no sample for domain"),
        ("data.ratio.real=-1", "expected a positive share for every domain"),
        ("data.train.real.look=foggy", "'foggy'"),
        ("model.padding=none", "padding 'none': expected one of same, caffe"),
        ("model.width=0", "width=0: expected positive numbers"),
        ("loss.class_weights=some", "class_weights 'some': expected one of none, median_frequency"),
        ("+model.depth=3", "unexpected keyword argument 'depth'"),
        ("trainer.precision=7", "Precision 7 is invalid"),
        ("data=[x", "'[x'"),
        pytest.param("trainer=ddp", "gpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(fcnseg, capsys, override, expected):
    assert fcnseg("train", "trainer.max_epochs=1", override) == 2
    assert expected in one_line(capsys)


def test_a_missing_folder_is_named_with_its_neighbours(fcnseg, capsys, camvid):
    assert fcnseg(*CAMVID, f"data.root={camvid.parent / 'camvit'}") == 2
    assert one_line(capsys) == f"fcnseg: {camvid.parent / 'camvit'}: no such folder; did you mean camvid?"


def break_label(path: Path) -> None:
    Image.fromarray(np.full((48, 64), 42, np.uint8)).save(path)


def shrink_label(path: Path) -> None:
    Image.fromarray(np.zeros((10, 64), np.uint8)).save(path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("folder", "damage", "expected"),
    [
        ("trainannot", break_label, "label value 42 is outside the label space 'street11'"),
        ("trainannot", shrink_label, "label is 64x10, its image 64x48; expected the same size"),
        ("train", cut_off, "cannot be read as an image"),
        ("valannot", Path.unlink, "no label of that name in"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(fcnseg, capsys, camvid, folder, damage, expected, workers):
    victim = sorted((camvid / folder).iterdir())[0]
    damage(victim)
    code = fcnseg(*CAMVID, f"data.root={camvid}", f"data.num_workers={workers}", "data.batch_size=8", "callbacks={}")
    line = one_line(capsys)
    assert code == 2
    assert victim.stem in line
    assert expected in line


def test_a_file_that_is_no_checkpoint_is_refused(fcnseg, capsys, tmp_path):
    (tmp_path / "notes.ckpt").write_text("not a checkpoint")
    assert fcnseg("predict", "checkpoint=notes.ckpt", "input=.", "output=out") == 2
    assert "expected files ending in" in one_line(capsys)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert fcnseg("predict", "checkpoint=notes.ckpt", "input=a.png", "output=out") == 2
    assert one_line(capsys) == "fcnseg: notes.ckpt: not an fcnseg checkpoint, or damaged"
    assert not (tmp_path / "out").exists()
