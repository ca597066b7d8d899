"""`fcnseg explain`: pictures, numbers that agree with each other, and one line for mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from fcnseg.data import CityScenes
from fcnseg.inference import Predictor

ALL = ["field", "skips", "activations_fc7", "activations_pool4", "activations_pool3", "filters_conv1_1", "gradcam"]


@pytest.fixture
def street(tmp_path):
    Image.fromarray(CityScenes(1, 7, "real", (90, 121))[0][0]).save(tmp_path / "street.png")
    return "street.png"


def error_line(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_everything_about_a_pixel_of_the_demo_network(fcnseg, capsys, street, tmp_path):
    assert fcnseg("explain", "checkpoint=demo", f"input={street}", "output=inside", "pixel=[60,40]", "device=cpu") == 0
    names = sorted(path.name for path in (tmp_path / "inside").iterdir())
    assert names == sorted(["explain.json", *(f"{name}.png" for name in ALL)])
    for name in ALL:
        assert np.asarray(Image.open(tmp_path / "inside" / f"{name}.png")).std() > 5
    numbers = json.loads((tmp_path / "inside/explain.json").read_text())
    assert (numbers["image_size"], numbers["seen_size"], numbers["pixel"]) == ([90, 121], [180, 240], [60, 40])
    segmentation = Predictor.from_pretrained("demo", "cpu")(tmp_path / street)
    assert numbers["predicted"] == segmentation.label_space.classes[segmentation.mask[60, 40]]
    skips = numbers["skips"]
    for name, logit in numbers["logits"].items():
        parts = sum(tap["parts"][name] for tap in skips["taps"].values()) + skips["biases"][name]
        assert parts == pytest.approx(logit, abs=1e-5)
    assert sum(tap["decides_of_image"] for tap in skips["taps"].values()) == pytest.approx(1)
    assert numbers["field"]["taps"]["score_pool3"]["stride"] == 8
    assert 0 < numbers["field"]["effective_size"] < min(numbers["field"]["size"])
    shown = capsys.readouterr().out
    assert f"row 60, column 40: {numbers['predicted']}, and not" in shown
    assert f"{skips['deciding']} decides" in shown


def test_layers_classes_and_an_average_of_choice(fcnseg, capsys, street, tmp_path):
    (tmp_path / "more").mkdir()
    for number in range(2):
        Image.fromarray(CityScenes(2, 8, "real", (60, 80))[number][0]).save(tmp_path / f"more/{number}.png")
    settings = ["checkpoint=demo", f"input={street}", "device=cpu"]
    assert (
        fcnseg("explain", *settings, "output=a", "show=[activations,filters]", "layer=[conv2_1,pool2]", "maps=4") == 0
    )
    assert sorted(path.stem for path in (tmp_path / "a").iterdir()) == [
        "activations_conv2_1", "activations_pool2", "explain", "filters_conv2_1"
    ]  # fmt: skip
    assert (
        fcnseg("explain", *settings, "output=b", "show=[gradcam,field]", "layer=pool4", "class=sky", "average=more")
        == 0
    )
    numbers = json.loads((tmp_path / "b/explain.json").read_text())
    assert numbers["class"] == "sky"
    assert list(numbers["gradcam"]) == ["pool4"]
    assert numbers["field"]["averaged_over"] == 2
    assert "gradients of 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pixel=[90,3]"],
            "pixel=[90,3]: outside of the image; expected a row from 0 to 89 and a column from 0 to 120",
        ),
        (["pixel=7"], "pixel=7: expected a row and a column, such as [120,200]"),
        (["pixel=[a,b]"], "pixel=[a,b]: outside of the image"),
        (["layer=pool9"], "layer=pool9: no layer of fcn8s_vgg16_bn; did you mean pool"),
        (["show=filters", "layer=pool3"], "layer=pool3: has no filters; expected one of conv1_1"),
        (["class=rode"], "class=rode: no class of this network; did you mean road"),
        (["class=99"], "class=99: no class of this network; expected one of sky"),
        (["show=[fields]"], "show=fields: expected some of field, skips, activations, filters, gradcam"),
        (["show=activations", "maps=0"], "maps=0: expected a number from 1 to 1024"),
        (["scale=big"], "scale=big: expected training, native"),
        (["input=nothing.png"], "nothing.png"),
        (["input=."], "input=.: a folder; expected an image"),
        (["checkpoint=model.onnx"], "checkpoint=model.onnx: an exported network shows no inside"),
        (["show=field", "average=nowhere"], "average=nowhere: no such file or folder"),
        (["output=street.png"], "output=street.png: street.png is a file; expected a folder"),
    ],
)
def test_mistakes(fcnseg, capsys, street, tmp_path, arguments, message):
    given = ["checkpoint=demo", f"input={street}", "output=inside", "device=cpu"]
    kept = [each for each in given if each.split("=")[0] not in [other.split("=")[0] for other in arguments]]
    (tmp_path / "model.onnx").touch()
    assert fcnseg("explain", *kept, *arguments) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "inside").exists()
