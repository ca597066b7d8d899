"""Evaluation: one pass gives the matrix, the score of each image, and the report's files."""

import json

import numpy as np
import pytest
import torch

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.evaluation import evaluate, load_matrices, scores, write_report
from fcnseg.evaluation.evaluator import spread


@pytest.fixture(scope="module")
def data():
    scenes = CityScenes(5, seed=1, look="real", size=(40, 56))
    return SegmentationData({"real": scenes}, scenes, size=(30, 42), num_workers=0)


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(1)
    model = fcnseg.create_model("fcn16s_alexnet", num_classes=11, width=0.1, input_size=data.size)
    for name in ("score_fr", "score_pool2"):
        torch.nn.init.normal_(model.get_submodule(name).weight)
    return model.train()


def test_scores_are_those_of_the_predictors_masks(model, data):
    evaluation = evaluate(model, data.validation_loader())
    assert model.training, "the model is left as it was"
    predictor = fcnseg.Predictor(model, device="cpu")
    expected = np.zeros((5, 11, 11), int)
    for matrix, (image, mask, _) in zip(expected, (data.val[i] for i in range(5)), strict=True):
        np.add.at(matrix, (mask.ravel(), predictor(image).mask.ravel()), 1)
    model.train()
    np.testing.assert_array_equal(evaluation.per_image, expected)
    np.testing.assert_array_equal(evaluation.confusion, expected.sum(axis=0))
    np.testing.assert_array_equal(evaluation.mean_iou, [scores(matrix).mean_iou for matrix in expected])
    assert evaluation.names == tuple(data.val[i][2] for i in range(5))


def test_the_report_is_written_whole(model, data, tmp_path, capsys):
    evaluation = evaluate(model, data.validation_loader())
    write_report(evaluation, model, data, tmp_path, {"checkpoint": "x.ckpt"}, examples=2)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["checkpoint"] == "x.ckpt"
    assert written["images"] == 5
    assert sum(c["pixels"] for c in written["classes"].values()) == 5 * 40 * 56
    accuracy = np.trace(evaluation.confusion) / evaluation.confusion.sum()
    assert written["pixel_accuracy"] == pytest.approx(accuracy)
    names, matrices = load_matrices(tmp_path / "confusions.npz")
    assert names == evaluation.names
    np.testing.assert_array_equal(matrices, evaluation.per_image)
    files = ["confusion.png", "confusions.npz", "examples.png", "metrics.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert "pedestrian" in capsys.readouterr().out


def test_examples_are_no_neighbours_of_one_another():
    """Frames 40 to 49 are of the worst scene; without a gap all three would be of it."""
    order = [*range(40, 50), 10, 11, 90, 91, *range(60, 80)]
    assert spread(order, 3, images=100) == [40, 49, 10]
    assert spread([2, 3], 3, images=2) == [2, 3], "of few images all are shown"


def test_a_single_image_makes_a_report_too(model, data, tmp_path):
    one = SegmentationData({"a": data.val}, CityScenes(1, size=(40, 56)), size=(30, 42), num_workers=0)
    write_report(evaluate(model, one.validation_loader()), model, one, tmp_path, {})
    assert (tmp_path / "examples.png").is_file()
