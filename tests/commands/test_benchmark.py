"""`fcnseg benchmark`: networks of the zoo and trained ones side by side, files, and one line for mistakes."""

import csv
import json
from pathlib import Path

import pytest

from fcnseg.models import create_model

TINY = ("benchmark", "width=0.05", "size=[24,32]", "rounds=1", "memory=false")


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_table_has_a_row_for_each_and_the_files_have_them_too(fcnseg, capsys):
    names = "model=[fcn8s_vgg16,fcn32s_alexnet]"
    assert fcnseg(*TINY, names, "size=[[24,32],[33,17]]", "batch=[1,1000000000000]", "output=out") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line and line[0] in ("fcn8s_vgg16", "fcn32s_alexnet")]
    assert [row[4] for row in rows] == ["24x32"] * 4 + ["33x17"] * 4
    assert sum(row[-3:] == ["out", "of", "memory"] for row in rows) == 4
    written = json.loads(Path("out/benchmark.json").read_text())["rows"]
    with Path("out/benchmark.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == [row["model"] for row in written]
    assert [row[0] for row in rows] == [row["model"] for row in written]
    for shown, row in zip(rows, written, strict=True):
        if row["problem"] is None:
            assert float(shown[6]) == pytest.approx(row["median_s"] * 1000, rel=1e-3)
            assert float(shown[9]) == pytest.approx(row["images_per_s"], rel=1e-3)


def test_json_is_nothing_but_json(fcnseg, capsys):
    assert fcnseg(*TINY, "--json", "padding=[same,caffe]", "form=[plain,channels_last]", "num_classes=3") == 0
    content = json.loads(capsys.readouterr().out)
    places = [(row["model"], row["padding"], row["form"]) for row in content["rows"]]
    assert places == [
        ("fcn8s_vgg16", "same", "plain"),
        ("fcn8s_vgg16", "same", "channels_last"),
        ("fcn8s_vgg16, padding=caffe", "caffe", "plain"),
        ("fcn8s_vgg16, padding=caffe", "caffe", "channels_last"),
    ]


def test_trained_models_are_told_apart_without_their_paths(fcnseg, capsys, tmp_path):
    for folder in ("a/mine", "b/mine"):
        create_model("fcn8s_alexnet", num_classes=4, width=0.05).save_pretrained(tmp_path / folder)
    assert fcnseg(*TINY, f"model=[{tmp_path}/a/mine,fcn8s_alexnet,b/mine,demo]", "--json") == 0
    shown = capsys.readouterr().out
    assert [row["model"] for row in json.loads(shown)["rows"]] == ["mine", "fcn8s_alexnet", "mine #2", "demo"]
    assert str(tmp_path) not in shown


def test_commands_whose_model_is_a_group_run_before_and_after(fcnseg):
    """In one process, as a notebook has it."""
    geometry = ("geometry", "model=fcn32s_alexnet", "--json")
    assert [fcnseg(*words) for words in (geometry, (*TINY, "model=fcn32s_alexnet"), geometry)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=fcn8s_vgg61"], "model=fcn8s_vgg61: no such model; did you mean fcn8s_vgg1"),
        (["model=gone.ckpt"], "gone.ckpt: no such file or folder"),
        (["model=[]"], "model=[]: expected one model at least"),
        (["form=folded"], "form=folded: expected one of plain, channels_last"),
        (["precision=[32-true,fp8]"], "precision=fp8: expected one of 32-true, bf16-mixed, 16-mixed"),
        (["size=[24,0]"], "size=[24, 0]: expected a height and a width in pixels"),
        (["size=[[24,32],[24]]"], "size=[24]: expected a height and a width in pixels"),
        (["size=24"], "size=[24]: expected a height and a width in pixels"),
        (["size=[[24,32],24]"], "expected a height and a width in pixels"),
        (["batch=[1,x]"], "batch=x: expected a whole number from 1 on"),
        (["what=train"], "what=train: expected one of forward, step"),
        (["rounds=0"], "rounds=0: expected a whole number from 1 on"),
        (["threads=two"], "threads=two: expected a whole number from 1 on"),
        (["memory=7"], "memory=7: expected true or false"),
        (["padding=reflect"], "padding 'reflect': expected one of same, caffe"),
        (["padding=[]"], "padding=[]: expected one value at least"),
        (["width=0"], "width=0: expected positive numbers"),
        (
            ["model=fcn8s_vgg16_bn", "what=step", "size=[16,16]"],
            "what=step, size=[16, 16], batch=1: Expected more than 1",
        ),
        (["width=wide"], "width=wide: expected a number"),
        (["num_classes=2.5"], "num_classes=2.5: expected a number"),
        (["num_classes=0"], "num_classes=0: expected 1 to 255"),
        (["device=gpu7"], "device=gpu7: not available here"),
        (["format=yaml"], "format=yaml: expected one of table, json"),
        (["outpt=x"], "outpt: no such key; did you mean output"),
        (["output=taken"], "output=taken: taken is a file; expected a folder"),
    ],
)
def test_mistakes(fcnseg, capsys, arguments, message):
    Path("taken").touch()
    assert fcnseg(*TINY, *arguments) == 2
    assert message in error_line(capsys)
