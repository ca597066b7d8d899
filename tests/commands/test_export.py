"""`fcnseg export`: what it writes, what it refuses, and that nothing half-written has a final name."""

import json
import os
from pathlib import Path

import pytest
import torch

from fcnseg.data import STREET11
from fcnseg.models import create_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model(
        "fcn32s_vgg16", num_classes=11, width=0.05, input_size=(96, 128), label_space=STREET11.to_dict()
    )
    torch.nn.init.normal_(model.score_fr.weight)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
def test_int8_is_calibrated_and_scored(fcnseg, model, capsys) -> None:
    """On the scenes that training would see, against those of the validation."""
    data = ("data=citygen", "data.val.length=3", "data.num_workers=0", "calibration_images=8")
    arguments = ("format=openvino", "precision=int8", "output=out/model.xml", "agreement=0.7")
    assert fcnseg("export", f"checkpoint={model}", *arguments, *data) == 0
    said = capsys.readouterr().out
    assert "mean IoU" in said
    proof = json.loads(Path("out/model.xml.json").read_text())
    assert proof["holds"]
    assert abs(proof["mean_iou"][0] - proof["mean_iou"][1]) < 0.1
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("model.bin", "model.xml", "model.xml.json", "model.xml.png")
    ]
    assert fcnseg("evaluate", "checkpoint=out/model.xml", "data.val.length=3", "data.num_workers=0") == 0


@pytest.mark.slow
def test_a_file_that_does_not_hold_gets_another_name(fcnseg, model, capsys) -> None:
    arguments = ("format=torch_export", "output=model.pt2", "agreement=1.01")
    assert fcnseg("export", f"checkpoint={model}", *arguments) == 2
    assert "of the pixels keep their class, less than agreement=1.01; kept as model.refused.pt2" in (
        capsys.readouterr().err
    )
    assert not Path("model.pt2").exists()
    assert not json.loads(Path("model.refused.pt2.json").read_text())["holds"]
    assert fcnseg("predict", "checkpoint=model.refused.pt2", "input=photo.png", "output=out") == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("output=model.xml",), "output=model.xml: format=onnx is written as .onnx"),
        (
            ("format=jpeg", "output=m.onnx"),
            "format=jpeg: expected one of onnx, openvino, torch_export, aoti, litert, executorch, triton, checkpoint",
        ),
        (("precision=int8", "output=m.onnx"), "precision=int8: needs images to calibrate by; give data=NAME"),
        (("format=tensorrt", "output=m.plan"), "format=tensorrt: a GPU is missing; build it from ONNX"),
        (("format=coreml", "output=m.mlpackage"), "format=coreml: left out: Core ML's converter"),
        (("output=taken/model.onnx",), "output=taken: taken is a file; expected a folder"),
    ],
)
def test_mistakes_are_one_line(fcnseg, model, capsys, arguments, line) -> None:
    if "tensorrt" in arguments[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    Path("taken").write_text("kept")
    before = sorted(os.listdir())
    assert fcnseg("export", f"checkpoint={model}", *arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"fcnseg: {line}")
    assert sorted(os.listdir()) == before
