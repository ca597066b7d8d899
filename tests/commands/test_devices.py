"""`fcnseg evaluate` and `predict` on two processes: the files, numbers and lines of one."""

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
import torch
from PIL import Image

from fcnseg.models import create_model
from tests.commands.processes import start, stop_when


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = create_model("fcn32s_alexnet", num_classes=11, width=0.05)
    torch.nn.init.normal_(made.score_fr.weight)
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def files(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}


def test_an_evaluation_is_the_same(fcnseg, model, capsys):
    """Of five images, the first process has three: a model that takes any size scores them one by one."""
    settings = ("checkpoint=model", "data.val.length=5", "calibrate=true", "device=cpu")
    said = []
    for devices in (1, 2):
        assert fcnseg("evaluate", *settings, f"devices={devices}", "hydra.run.dir=scores") == 0
        said.append(capsys.readouterr().out)
        Path("scores").rename(f"scores{devices}")
    assert said[0] == said[1]
    one, two = files("scores1"), files("scores2")
    names = ["calibration.json", "confusion.png", "confusions.npz", "examples.png", "gallery.zip", "metrics.json"]
    telling = ["evaluation.yaml", "report.html", "run.json"]  # of the devices
    assert sorted(one) == sorted([*names, *telling, "reliability.png"])
    assert sorted(name for name in one if one[name] != two[name]) == telling


def test_predictions_are_the_same(fcnseg, model, capsys):
    """Of images of two sizes, one without its end, which the second process finds out, and one on the ground."""
    random = np.random.default_rng(0)
    Path("in/deep").mkdir(parents=True)
    for name, width in (("1", 60), ("2", 60), ("3", 70), ("deep/4", 70), ("5", 60)):
        Image.fromarray(random.integers(0, 256, (48, width, 3)).astype(np.uint8)).save(f"in/{name}.png")
    Path("in/2.png").write_bytes(Path("in/2.png").read_bytes()[:900])
    ground = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500000, 4649000, 0.5, 0.5)}
    for name in ("a", "b"):
        with rasterio.open(f"in/{name}.tif", "w", "GTiff", 80, 60, 3, dtype="uint8", **ground) as scene:
            scene.write(random.integers(0, 256, (3, 60, 80)).astype(np.uint8))
    wanted = ("areas=true", "coco=true", "geojson=true", "entropy=true", "probabilities=true", "precision=auto")
    said = []
    for devices in (1, 2):
        arguments = ("checkpoint=model", "input=in", "output=out", "device=cpu", f"devices={devices}", *wanted)
        assert fcnseg("predict", *arguments) == 2
        shown = capsys.readouterr()
        assert shown.err.splitlines()[-1].startswith("fcnseg: in/2.png: cannot be read as an image")
        said.append([line for line in shown.out.splitlines() if "images/s" not in line])
        Path("out").rename(f"out{devices}")
    assert said[0] == said[1]
    assert [line.split(":")[0] for line in said[0] if "row by row" in line] == ["in/a.tif", "in/b.tif"]
    one, two = files("out1"), files("out2")
    assert len(one) == 6 * 5 + 2
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


def test_ctrl_c_ends_all_processes(model, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in/0.jpg")
    for number in range(1, 300):
        shutil.copyfile(tmp_path / "in/0.jpg", tmp_path / f"in/{number}.jpg")
    process = start(
        ["fcnseg", "predict", "checkpoint=model", "input=in", "output=out", "device=cpu", "devices=2"], tmp_path
    )
    started: list[psutil.Process] = []

    def at_work() -> bool:
        started[:] = psutil.Process(process.pid).children(recursive=True)
        return len(list(tmp_path.glob("out/masks/*.png"))) > 4

    written = stop_when(at_work, process, signal.SIGINT)
    assert process.returncode == 130, written
    assert written.strip().splitlines()[-1] == "fcnseg: interrupted"
    assert "Traceback" not in written
    assert len(started) >= 2
    deadline = time.monotonic() + 5
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [path for path in tmp_path.rglob("out/**/*") if path.name.startswith(".")], "nothing is half written"


@pytest.mark.parametrize("source", ["drive.mp4", "scan.nii.gz"])
def test_what_takes_one_device_says_so(fcnseg, model, capsys, source):
    Path(source).touch()
    assert fcnseg("predict", "checkpoint=model", f"input={source}", "output=out", "device=cpu", "devices=2") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("fcnseg: devices=2: a ")
    assert line.endswith(" is segmented on one device; expected devices=1")
