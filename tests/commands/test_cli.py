"""The dispatcher: help at once, and one readable line with exit code 2 for a user's mistake."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcnseg.commands.configuration import as_given

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


def test_quiet_is_quiet_but_for_what_goes_wrong(fcnseg, capfd, tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    arguments = ["predict", "--quiet", "checkpoint=demo", f"input={tmp_path}/a.png", f"output={tmp_path}/out"]
    assert fcnseg(*arguments) == 0
    assert (tmp_path / "out" / "masks" / "a.png").is_file()
    assert capfd.readouterr() == ("", "")
    assert fcnseg(*arguments, "scale=x") == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("fcnseg: scale=x")


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
        ("data=[x", "data=[x: cannot be read (no viable alternative at input '[x'); expected key=VALUE"),
        ("model=3", "model=3: expected the name of an option"),
        ("=3", "=3: expected KEY=VALUE"),
        ("--model=fcn8s_vgg16", "--model=fcn8s_vgg16: no such option; settings are given as model=fcn8s_vgg16"),
        ("--checkpoint", "--checkpoint: no such option; settings are given as checkpoint=VALUE"),
        ("data.size=[0,10]", "size=[0, 10]: expected [height, width] in pixels"),
        ("data.size=10", "size=10: expected [height, width] in pixels"),
        pytest.param("trainer=ddp", "gpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(fcnseg, capsys, override, expected):
    assert fcnseg("train", "trainer.max_epochs=1", override) == 2
    assert expected in one_line(capsys)


def test_names_of_files_need_no_second_quotes(fcnseg, tmp_path):
    """Hydra's grammar takes commas for a sweep, and cannot read brackets or umlauts in a plain value."""
    picture, folder = tmp_path / "a, b [1] (ü)='c'.png", tmp_path / "Übersicht #1"
    Image.new("RGB", (32, 24)).save(picture)
    assert fcnseg("predict", "checkpoint=demo", f"input={picture}", f"output={folder}") == 0
    assert (folder / "masks" / picture.name).is_file()


@given(st.text(alphabet="ab'\\\"[](){},=#ü /.$*", min_size=1, max_size=8))
def test_what_hydra_cannot_read_is_taken_as_it_stands(value):
    read = OverridesParser.create().parse_override(as_given(f"key={value}")) if value[0] not in "[{'\"" else None
    if read is not None and read.is_sweep_override():
        assert "," in value or "(" in value
    elif read is not None and as_given(f"key={value}") != f"key={value}":
        assert read.value() == value


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
