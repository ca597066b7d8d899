"""`fcnseg geometry` and `fcnseg zoo`: tables for people, JSON for programs, one line for mistakes."""

import json

import pytest

from fcnseg.models import list_models


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_table_shows_layers_places_and_crops(fcnseg, capsys):
    assert fcnseg("geometry", "model=fcn8s_vgg16", "model.padding=caffe", "input_size=[224,224]") == 0
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if line.startswith("pool4"))
    assert row == ["pool4", "2", "2", "0", "512", "27x27", "1/16", "5.71875", "100"]
    assert "score_pool4 is cropped by 5: offset of pool4, 5.71875, less that of upscore2, 0.71875" in shown
    assert "134,362,751 parameters" in shown


@pytest.mark.parametrize("flag", ["--json", "format=json"])
def test_json_is_nothing_but_json(fcnseg, capsys, flag):
    assert fcnseg("geometry", "model=fcn32s_caffenet", flag, "model.padding=caffe", "num_classes=5") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["model"] == "fcn32s_caffenet"
    assert [crop["pixels"] for crop in content["crops"]] == [18]


def test_backbones_of_timm_that_are_not_listed(fcnseg, capsys):
    assert "fcn8s_resnet26" not in list_models()
    assert fcnseg("geometry", "model=fcn8s_resnet26", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "fcn8s_resnet26"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["geometry", "input_size=224"], "input_size=224: expected a height and a width"),
        (["geometry", "input_size=[224,0]"], "input_size=[224, 0]: expected a height and a width"),
        (["geometry", "input_size=[1,2,3]"], "input_size=[1, 2, 3]: expected a height and a width"),
        (["geometry", "format=yaml"], "format=yaml: expected one of table, json"),
        (["geometry", "model=fcn8s_resnet50d"], "its place on the image cannot be read"),
        (["geometry", "model=fcn8s_vgg61"], "model=fcn8s_vgg61: no such option; did you mean fcn8s_vgg1"),
        (["zoo"], "unknown command 'zoo'; expected one of zoo list, zoo info"),
        (["data"], "unknown command 'data'; expected one of data create, data inspect, data pack"),
        (["zoo", "lst"], "unknown command 'zoo lst'; did you mean zoo list?"),
        (["zoo", "list", "pattern=xyz"], "pattern=xyz: no model of that name"),
        (["zoo", "info", "model=vgg16"], "model=vgg16: no such option; did you mean"),
    ],
)
def test_mistakes(fcnseg, capsys, arguments, message):
    assert fcnseg(*arguments) == 2
    assert message in error_line(capsys)


def test_zoo_list_names_the_published_weights(fcnseg, capsys):
    """Scores of the reference's README, on seg11valid."""
    models = {}
    for pattern in ("fcn[38]*s_vgg16*", "fcn16s_vgg16", "fcn32s_caffenet"):  # each network is traced
        assert fcnseg("zoo", "list", f"pattern={pattern}", "--json") == 0
        models |= {m["model"]: m for m in json.loads(capsys.readouterr().out)}
    published = {
        "fcn32s_vgg16": "fcn32s-heavy-pascal.caffemodel (63.6)",
        "fcn16s_vgg16": "fcn16s-heavy-pascal.caffemodel (65.0)",
        "fcn8s_vgg16": "fcn8s-heavy-pascal.caffemodel (65.5)",
        "fcn8s_vgg16_atonce": "fcn8s-atonce-pascal.caffemodel (65.4)",
        "fcn32s_caffenet": "fcn-alexnet-pascal.caffemodel (48.0)",
    }
    assert {name: models[name]["weights"][0] for name in published} == published
    assert models["fcn8s_vgg16_stem2"]["tap_strides"] == [16, 32, 64]
    assert models["fcn8s_vgg16"]["parameters"] == 134_362_751


def test_zoo_list_is_a_table(fcnseg, capsys):
    assert fcnseg("zoo", "list", 'pattern="fcn*s_caffenet"') == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[1:5]] == [f"fcn{stride}s_caffenet" for stride in (16, 32, 4, 8)]
    assert rows[-1][:6] == ["4", "of", str(len(list_models())), "models,", "those", "of"]


def test_zoo_info_says_how_to_use_the_weights(fcnseg, capsys):
    assert fcnseg("zoo", "info", "model=fcn8s_vgg16") == 0
    shown = capsys.readouterr().out
    assert "65.5 mean IU on PASCAL VOC seg11valid" in shown
    assert "fcnseg predict checkpoint=fcn8s-heavy-pascal.caffemodel" in shown
    assert "model.weights=imagenet" in shown
