"""A run as Python reads it from its folder."""

import json

import numpy as np
import pytest
from PIL import Image

import fcnseg
from fcnseg.errors import InputError
from fcnseg.evaluation.metrics import scores, to_dict
from fcnseg.labels import LabelSpace
from fcnseg.training.checkpoints import LAST

SPACE = LabelSpace("two", ("<b>road</b>", "car"), ((1, 2, 3), (4, 5, 6)))


@pytest.fixture
def run(tmp_path):
    """A folder with what a training that was interrupted once leaves."""
    found = to_dict(scores(np.array([[6, 2], [0, 8]])), SPACE)
    kept = {"last": {"path": f"elsewhere/checkpoints/{LAST}", "step": 4}}
    (tmp_path / "metrics.json").write_text(json.dumps(found | {"step": 4, "checkpoints": kept}))
    (tmp_path / "metrics.1.csv").write_text("step,train/loss,val/mean_iou\n1,2.5,\n1,,0.25\n")
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/mean_iou\n3,1.5,\n3,,0.5\n")
    Image.new("RGB", (2000, 400), "red").save(tmp_path / "examples.png")
    return fcnseg.Run(tmp_path)


def test_scores_and_curves_are_those_of_its_files(run):
    assert run.mean_iou == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert run.curves == {"train/loss": [(1, 2.5), (3, 1.5)], "val/mean_iou": [(1, 0.25), (3, 0.5)]}


def test_checkpoints_are_found_where_the_folder_is_now(run):
    assert run.best is None
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / LAST).touch()
    assert run.last == run.folder / "checkpoints" / LAST


def test_of_stages_the_last_ones_files_are_taken(run):
    inner = run.folder / "fcn8s" / "checkpoints"
    inner.mkdir(parents=True)
    (inner / LAST).touch()
    (inner.parent / "metrics.csv").write_text("step,train/loss\n7,0.5\n")
    run.metrics["stages"] = {"fcn32s": {}, "fcn8s": {}}
    assert run.last == inner / LAST
    assert run.curves == {"train/loss": [(7, 0.5)]}


def test_shows_scores_and_pictures(run):
    shown = run._repr_html_()
    assert "&lt;b&gt;road&lt;/b&gt;" in shown
    assert "<b>road" not in shown
    assert "77.5" in shown
    assert "data:image/jpeg;base64," in shown
    assert "mean IoU 77.5 %" in repr(run)


def test_refuses_what_is_no_finished_run(tmp_path, run):
    with pytest.raises(InputError, match=r"no metrics.json; expected the folder of a finished run"):
        fcnseg.Run(tmp_path / "nothing")
    run.metrics["checkpoints"].clear()
    with pytest.raises(InputError, match="no checkpoint was kept"):
        run.predictor()


def test_predicts_with_its_best_weights(run):
    model = fcnseg.create_model("fcn32s_vgg16", num_classes=2, width=0.05, label_space=SPACE.to_dict())
    model.save_pretrained(run.folder / "checkpoints" / "best")
    run.metrics["checkpoints"]["best"] = {"path": "checkpoints/best"}
    assert run.predictor("cpu")(np.zeros((8, 9, 3), np.uint8)).mask.shape == (8, 9)
