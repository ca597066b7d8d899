"""`fcnseg evaluate`: which models fit the data."""

import json
from pathlib import Path

import pytest
import torch

from fcnseg.models import create_model


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
    monkeypatch.setattr("fcnseg.commands.evaluate.evaluate", lambda *_: pytest.fail("the pass has begun"))
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
