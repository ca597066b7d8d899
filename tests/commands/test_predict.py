"""`fcnseg predict`: where masks and overlays go, and what is said where they cannot."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.models import create_model
from tests.commands.processes import Forked, command, environment


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


def test_folders_are_mirrored_and_results_are_no_images(predict):
    """Also when it is run again, with its output within its input."""
    write("in/a/1.png", "in/b/1.png", "in/b/deep/2.png", "in/.hidden/3.png")
    for _ in range(2):
        assert predict("in", "in/out") == 0
        assert (
            written("in/out/masks") == written("in/out/overlays") == {"a/1.png": 20, "b/1.png": 21, "b/deep/2.png": 22}
        )


def test_one_bad_image_does_not_stop_the_others(predict, capsys):
    write("in/1.png", "in/3.png")
    Path("in/2.png").write_bytes(Path("in/1.png").read_bytes()[:60])
    assert predict("in") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("fcnseg: in/2.png: cannot be read as an image")
    assert sorted(written("out/masks")) == ["1.png", "3.png"]


def test_geotiff_gives_geotiff(predict, fcnseg, capsys):
    import rasterio

    ground = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500000, 4649000, 0.5, 0.5)}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 80)).astype(np.uint8)
    Path("in").mkdir()
    with rasterio.open("in/a.tif", "w", driver="GTiff", height=60, width=80, count=3, dtype="uint8", **ground) as scene:
        scene.write(pixels)
    write("in/b.png")
    assert predict("in") == 0
    assert "in/a.tif: row by row" in capsys.readouterr().out
    with rasterio.open("out/masks/a.tif") as mask:
        assert (mask.crs, mask.transform) == (ground["crs"], ground["transform"])
        assert mask.shape == (60, 80)
    assert written("out/masks") == {"b.png": 20}
    assert written("out/overlays") == {"a.png": 80, "b.png": 20}
    arguments = ("predict", "checkpoint=model", "input=in/a.tif", "output=out2", "device=cpu")
    assert fcnseg(*arguments, "gsd=1", "overlays=false") == 0
    assert not Path("out2/overlays").exists()
    assert fcnseg(*arguments, "gsd=-1") == 2
    assert fcnseg(*arguments, "flip=true") == 2
    assert "in/a.tif: is computed by windows, without flip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("scale=huge", "scale=huge: expected training, native, or a factor from 1/64 to 16"),
        ("memory=0.1", "memory=0.1: expected at least 0.6 GB"),
        ("overlap=some", "overlap=some: expected exact, or a number of pixels"),
        ("scales=[0]", "scales=[0.0]: expected factors above 0, up to 16"),
        ("dropout=-1", "dropout=-1: expected a number of draws, 0 or more"),
        ("temperature=0", "temperature=0.0: expected a number above 0"),
    ],
)
def test_settings_out_of_range_are_one_line(predict, fcnseg, capsys, override, line):
    write("1.png")
    assert fcnseg("predict", "checkpoint=model", "input=1.png", "output=out", override) == 2
    assert capsys.readouterr().err.splitlines() == [f"fcnseg: {line}"]
    assert not Path("out").exists()


def predict_within(limit: int) -> None:
    """With a limit on the size of files, in bytes, which stands for a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    command(["predict", "checkpoint=model", "input=a.tif", "output=out", "device=cpu"])


def test_a_full_disk_leaves_nothing_under_a_final_name(predict, tmp_path):
    """And what was computed is there for the next run."""
    import rasterio

    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 500)).astype(np.uint8)
    ground = {"transform": rasterio.transform.from_origin(500000, 4649000, 0.5, 0.5)}
    with rasterio.open("a.tif", "w", driver="GTiff", height=600, width=500, count=3, dtype="uint8", **ground) as scene:
        scene.write(pixels)
    # Enough for the mask without compression, and not for the overlay, which is written last.
    for limit, left in ((200_000, []), (310_000, ["masks/a.tif"])):
        process = Forked(predict_within, limit, tmp_path, environment({}))
        errors = process.communicate(timeout=100)[1]
        assert process.returncode == 2, errors
        assert errors.splitlines()[-1].startswith("fcnseg: output=out: cannot be written (out/")
        files = [path for path in Path("out").rglob("*") if path.is_file()]
        assert [path.relative_to("out").as_posix() for path in files if ".partial" not in str(path)] == left
    assert predict("a.tif") == 0
    assert not list(Path("out/masks").glob(".*"))


def test_everything_that_can_be_made(predict, fcnseg):
    import csv
    import json

    write("in/a/1.png", "in/2.png")
    arguments = ("probabilities=true", "entropy=true", "areas=true", "coco=true", "geojson=true", "overlays=false")
    predict("in")
    assert fcnseg("predict", "checkpoint=model", "input=in", "output=all", "device=cpu", *arguments) == 0
    names = sorted(path.relative_to("all").as_posix() for path in Path("all").rglob("*") if path.is_file())
    kinds = {"entropy": "png", "geojson": "geojson", "masks": "png", "probabilities": "npz"}
    files = [f"{kind}/{name}.{ending}" for kind, ending in kinds.items() for name in ("2", "a/1")]
    assert names == ["areas.csv", "coco.json", *files]
    for name in ("2", "a/1"):
        mask = np.asarray(Image.open(f"all/masks/{name}.png"))
        np.testing.assert_array_equal(mask, np.asarray(Image.open(f"out/masks/{name}.png")))
        shares = np.load(f"all/probabilities/{name}.npz")["probabilities"]
        assert (shares.argmax(axis=0) == mask).mean() > 0.99
    rows = list(csv.DictReader(Path("all/areas.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["2.png"] * 4 + ["a/1.png"] * 4
    assert sum(int(row["pixels"]) for row in rows) == 15 * (21 + 20)
    coco = json.loads(Path("all/coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["2.png", "a/1.png"]
    assert sum(each["area"] for each in coco["annotations"]) == 15 * (21 + 20)


def test_videos_become_videos_or_masks(predict, fcnseg):
    from fcnseg.inference.video import video_facts, write_video

    frames = [np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)] * 4
    write_video("drive.mp4", frames, 10)
    assert predict("drive.mp4") == 0
    assert video_facts("out/drive.mp4").size == (48, 64)
    arguments = ("predict", "checkpoint=model", "input=drive.mp4", "output=out", "device=cpu", "overlays=false")
    assert fcnseg(*arguments) == 0
    assert len(list(Path("out/drive").iterdir())) == 4
