"""`fcnseg predict`: where masks and overlays go, and what is said where they cannot."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.models import create_model


@pytest.fixture
def predict(fcnseg, tmp_path):
    """Run `fcnseg predict` on a small network, stored as `model`, whose masks tell one image from another."""
    torch.manual_seed(0)
    model = create_model("fcn32s_alexnet", num_classes=4, width=0.05)
    torch.nn.init.normal_(model.score_fr.weight)
    model.save_pretrained(tmp_path / "model")

    def run(source: str, output: str = "out", checkpoint: str = "model") -> int:
        return fcnseg("predict", f"checkpoint={checkpoint}", f'input="{source}"', f"output={output}", "device=cpu")

    return run


def write(*paths: str) -> None:
    """Images of different sizes, so that one can tell whose mask it is: 20 pixels wide, then 21, 22, ..."""
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (15, 20 + number, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)


def written(folder: str) -> dict[str, int]:
    """Names and widths of the PNGs below a folder."""
    return {path.relative_to(folder).as_posix(): Image.open(path).width for path in Path(folder).rglob("*.png")}


@pytest.mark.parametrize(
    ("images", "pattern", "expected"),
    [
        (["a/1.png", "b/2.png"], "*/*.png", ["1.png", "2.png"]),
        (["a/1.png", "b/1.png"], "*/1.png", ["a/1.png", "b/1.png"]),
        (["in/a/1.png", "in/b/1.png", "in/b/2.png"], "in/*/*.png", ["a/1.png", "b/1.png", "b/2.png"]),
        (["in/1.png", "in/b/1.png"], "in/**/*.png", ["1.png", "b/1.png"]),
        (["in/x/l/1.png", "in/y/l/1.png"], "in/**/1.png", ["x/l/1.png", "y/l/1.png"]),
        (["in/1.png", "in/1.bmp", "in/2.png"], "in", ["1.png.png", "1.bmp.png", "2.png"]),
        (["a/1.png", "b/1.bmp"], "[ab]/*", ["a/1.png", "b/1.png"]),
        (["a/1.png", "a/1.bmp", "b/1.png"], "[ab]/*", ["a/1.png.png", "a/1.bmp.png", "b/1.png"]),
        (["in/1.png", "in/1.bmp", "in/1.png.png"], "in", ["1.png.png", "1.bmp.png", "1.png.png.png"]),
    ],
)
def test_every_image_gets_a_mask_and_an_overlay_of_its_own(predict, images, pattern, expected):
    write(*images)
    assert predict(pattern) == 0
    widths = dict(zip(expected, range(20, 30), strict=False))
    assert written("out/masks") == widths
    assert written("out/overlays") == widths


def test_folders_are_kept_for_absolute_patterns_too(predict, tmp_path):
    write("a/1.png", "b/1.png")
    assert predict(f"{tmp_path}/[ab]/1.png") == 0
    assert written("out/masks") == {"a/1.png": 20, "b/1.png": 21}


@pytest.mark.parametrize("kind", ["masks", "overlays"])
def test_no_image_is_written_over(predict, capsys, kind):
    write(f"{kind}/1.png")
    before = Path(f"{kind}/1.png").read_bytes()
    assert predict(kind, ".") == 2
    assert (
        f"fcnseg: output=.: {kind}/1.png is one of the images of input; expected another folder"
        in capsys.readouterr().err
    )
    assert Path(f"{kind}/1.png").read_bytes() == before


@pytest.mark.parametrize(("output", "file"), [("taken", "taken"), ("taken/deep/er", "taken"), ("out", "out/overlays")])
def test_an_output_that_is_a_file_is_named_before_the_model_is_loaded(predict, capsys, output, file):
    write("1.png")
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("kept")
    assert predict("1.png", output, checkpoint="gone.ckpt") == 2
    assert capsys.readouterr().err.splitlines() == [f"fcnseg: output={output}: {file} is a file; expected a folder"]
    assert Path(file).read_text() == "kept"


def test_an_output_that_takes_no_files_is_named_before_the_model_is_loaded(predict, capsys, tmp_path, monkeypatch):
    """Root may write anywhere, so that the system's answer is put in its place."""
    write("1.png")
    Path("closed").mkdir(mode=0o500)
    closed = tmp_path / "closed"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).absolute() != closed or not mode & os.W_OK)
    assert predict("1.png", "closed/out", checkpoint="gone.ckpt") == 2
    assert capsys.readouterr().err.splitlines() == [f"fcnseg: output=closed/out: nothing may be written in {closed}"]


def test_a_name_that_no_folder_can_have_is_one_line(predict, capsys):
    write("1.png")
    assert predict("1.png", "x" * 300, checkpoint="gone.ckpt") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fcnseg: output=xxx")
    assert line.endswith("File name too long)")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_what_shows_only_in_writing_is_one_line_too(predict, capsys):
    """The kernel makes no folders in its own, whatever their permissions say."""
    write("1.png")
    assert predict("1.png", "/proc/self/task") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fcnseg: ")]
    assert line.startswith("fcnseg: output=/proc/self/task: ")


def test_a_command_that_ends_early_leaves_no_folders(predict):
    write("1.png")
    assert predict("1.png", "out", checkpoint="gone.ckpt") == 2
    assert not Path("out").exists()
