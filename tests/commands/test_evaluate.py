"""`fcnseg evaluate`: which models fit the data."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fcnseg.label_spaces import CITYSCAPES19
from fcnseg.labels import STREET11
from fcnseg.models import create_model, from_pretrained
from tests.data import layouts


@pytest.fixture
def evaluate(fcnseg, camvid):
    """Score an untrained network whose spec says what is given, on CamVid's 11 classes; returns the exit code."""

    def run(*overrides: str, **options) -> int:
        model = create_model("fcn32s_alexnet", width=0.05, **options)
        torch.nn.init.normal_(model.score_fr.weight)
        model.save_pretrained("model")
        data = ("data=camvid", f"data.root={camvid}", "device=cpu", "hydra.run.dir=scores")
        return fcnseg("evaluate", "checkpoint=model", *data, *overrides)

    return run


@pytest.mark.parametrize("classes", [5, 12])
def test_another_number_of_numbered_classes_ends_in_one_line_before_the_pass(evaluate, capsys, monkeypatch, classes):
    monkeypatch.setattr("fcnseg.commands.evaluate.score_batches", lambda *_: pytest.fail("the pass has begun"))
    assert evaluate(num_classes=classes) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fcnseg: model: predicts {classes} classes; the data has 11: sky, building, ")


def test_as_many_numbered_classes_as_the_data_has_are_scored_as_its_own(evaluate):
    assert evaluate(num_classes=11) == 0
    assert Path("scores/metrics.json").is_file()


def test_other_names_are_named(evaluate, capsys):
    names = [f"thing {i}" for i in range(11)]
    space = {"name": "things", "classes": names, "palette": [[i, i, i] for i in range(11)]}
    assert evaluate(num_classes=11, label_space=space) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fcnseg: model: predicts thing 0, thing 1, ")
    assert "; the data has sky, building, " in line


def test_calibration_is_told_drawn_and_written(evaluate, capsys):
    assert evaluate("calibrate=true", num_classes=11) == 0
    told = json.loads(Path("scores/calibration.json").read_text())
    assert (
        f"temperature {told['temperature']:.3f}: calibration error {told['ece_before']:.2%} to "
        in capsys.readouterr().out
    )
    assert told["nll_after"] < told["nll_before"]
    known = json.loads(Path("scores/metrics.json").read_text())["calibration"]
    assert known == {key: value for key, value in told.items() if not key.startswith("bins")}
    assert Path("scores/reliability.png").is_file()


@pytest.mark.parametrize(("resize", "shown"), [("keep", (24, 32)), ("stretch", (24, 64))])
def test_images_are_resized_as_the_model_tells_and_scored_where_they_are(evaluate, camvid, resize, shown):
    """Images of 48x64 for an input of 24x64, whatever data.size and data.resize say; OpenCV shrinks them here."""
    space = STREET11.to_dict()
    assert evaluate(num_classes=11, input_size=(24, 64), resize=resize, label_space=space) == 0
    model, matrix = from_pretrained("model"), np.zeros((11, 11), int)
    for path in sorted((camvid / "val").iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"))
        seen = cv2.resize(image, (64, 24), interpolation=cv2.INTER_AREA)
        if resize == "keep":
            small = cv2.resize(image, shown[::-1], interpolation=cv2.INTER_AREA)
            seen = np.pad(small, ((0, 0), (0, 32), (0, 0)), mode="edge")
        with torch.inference_mode():
            logits = model(model.normalise(torch.from_numpy(seen).permute(2, 0, 1)[None]))[..., : shown[1]]
        full = torch.nn.functional.interpolate(logits, size=(48, 64), mode="bilinear")
        label = np.asarray(Image.open(camvid / "valannot" / path.name))
        labelled = label < 11
        np.add.at(matrix, (label[labelled], full.argmax(dim=1)[0].numpy()[labelled]), 1)
    with np.load("scores/confusions.npz") as file:
        found = file["matrices"].sum(axis=0)
    assert found.sum() == matrix.sum()
    assert np.abs(found - matrix).sum() <= 2e-3 * matrix.sum()  # of ties, and of convolutions that are fused


def test_a_protocol_reports_its_classes_of_all_that_are_predicted(fcnseg, tmp_path, capsys):
    root = layouts.cityscapes(tmp_path / "data", {"val/lindau": 2}, (24, 36))
    model = create_model("fcn32s_alexnet", width=0.05, num_classes=19, label_space=CITYSCAPES19.to_dict())
    torch.nn.init.normal_(model.score_fr.weight)
    model.save_pretrained("model")
    settings = ["checkpoint=model", f"data.root={root}", "device=cpu", "data.num_workers=0"]
    protocol = "protocol=synthia_to_cityscapes"
    for extra in ([], [protocol]):
        folder = f"hydra.run.dir=scores{len(extra)}"
        assert fcnseg("evaluate", *settings, "data=cityscapes", *extra, folder) == 0, capsys.readouterr().err
    plain, reported = (json.loads(Path(f"scores{n}/metrics.json").read_text()) for n in (0, 1))
    assert reported["classes"] == plain["classes"]
    iou = {name: found["iou"] for name, found in plain["classes"].items()}
    sixteen = [value for name, value in iou.items() if name not in ("terrain", "truck", "train")]
    thirteen = [v for n, v in iou.items() if n not in ("terrain", "truck", "train", "wall", "fence", "pole")]
    expected = {"mIoU": sum(sixteen) / 16, "mIoU*": sum(thirteen) / 13}
    assert reported["protocol"]["mean_iou"] == pytest.approx(expected)
    assert reported["mean_iou"] == pytest.approx(expected["mIoU"])
    assert "DAFormer" in reported["protocol"]["source"]
    shown = capsys.readouterr().out
    assert "terrain (not reported)" in shown
    assert "2 images, SYNTHIA to Cityscapes" in shown
    assert fcnseg("evaluate", "checkpoint=demo", "data.val.length=2", protocol) == 2
    assert "scores predictions of the 19 classes of cityscapes19" in capsys.readouterr().err
