"""The scores against counting pixel by pixel, torchmetrics, and an example worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from fcnseg.evaluation.metrics import scores, to_dict
from fcnseg.labels import IGNORE_INDEX, LabelSpace

NAN = math.nan
SPACE = LabelSpace("three", ("sky", "road", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))


def count(label: np.ndarray, prediction: np.ndarray, classes: int) -> torch.Tensor:
    metric = MulticlassConfusionMatrix(classes, ignore_index=IGNORE_INDEX, validate_args=False)
    metric.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return metric.compute()


def by_pixel(label: np.ndarray, prediction: np.ndarray, classes: int) -> dict[str, object]:
    """The definitions of Long et al. in plain Python, on sets of pixel positions."""
    pairs = list(zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    pairs = [(t, p) for t, p in pairs if t != IGNORE_INDEX]
    is_label = [{k for k, (t, _) in enumerate(pairs) if t == i} for i in range(classes)]
    is_predicted = [{k for k, (_, p) in enumerate(pairs) if p == i} for i in range(classes)]
    iou = [len(t & p) / len(t | p) if t | p else NAN for t, p in zip(is_label, is_predicted, strict=True)]
    accuracy = [len(t & p) / len(t) if t else NAN for t, p in zip(is_label, is_predicted, strict=True)]

    def mean(values: list[float]) -> float:
        known = [v for v in values if not math.isnan(v)]
        return sum(known) / len(known) if known else NAN

    weighted = [len(t) * v for t, v in zip(is_label, iou, strict=True) if t]
    return {
        "pixel_accuracy": mean([float(t == p) for t, p in pairs]),
        "mean_accuracy": mean(accuracy),
        "mean_iou": mean(iou),
        "frequency_weighted_iou": sum(weighted) / len(pairs) if pairs else NAN,
        "iou": iou,
        "accuracy": accuracy,
        "pixels": [len(t) for t in is_label],
    }


@st.composite
def masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Small masks of few classes, so that absent, unlabelled and unpredicted classes are common."""
    classes = draw(st.integers(1, 6))
    pixels = draw(st.integers(1, 24))
    known = st.integers(0, classes - 1)
    label = draw(st.lists(known | st.just(IGNORE_INDEX), min_size=pixels, max_size=pixels))
    prediction = draw(st.lists(known, min_size=pixels, max_size=pixels))
    return np.array(label, np.uint8).reshape(1, -1), np.array(prediction, np.int64).reshape(1, -1), classes


@pytest.mark.filterwarnings("error::RuntimeWarning")
@settings(max_examples=150, deadline=None)
@given(masks())
def test_scores_equal_counting_pixel_by_pixel(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    label, prediction, classes = case
    result = scores(count(label, prediction, classes))
    for name, expected in by_pixel(label, prediction, classes).items():
        np.testing.assert_allclose(getattr(result, name), expected, rtol=1e-12, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(masks())
def test_mean_iou_equals_torchmetrics(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    label, prediction, classes = case
    classes = max(classes, 2)  # torchmetrics takes two or more
    if (label == IGNORE_INDEX).all():
        label[0, 0] = 0  # torchmetrics gives 0 for nothing at all, we give nan
    jaccard = MulticlassJaccardIndex(classes, ignore_index=IGNORE_INDEX)
    theirs = jaccard(torch.from_numpy(prediction), torch.from_numpy(label).long()).item()
    assert scores(count(label, prediction, classes)).mean_iou == pytest.approx(theirs, rel=1e-6)


def test_example_by_hand() -> None:
    # sky: 5 of 6 found, 1 road pixel taken for it. road: 2 of 4 found. car: predicted once, never there.
    result = scores(np.array([[5, 1, 0], [1, 2, 1], [0, 0, 0]]))
    assert result.iou == pytest.approx((5 / 7, 2 / 5, 0))
    assert result.accuracy == pytest.approx((5 / 6, 2 / 4, NAN), nan_ok=True)
    assert result.pixels == (6, 4, 0)
    assert result.pixel_accuracy == pytest.approx(7 / 10)
    assert result.mean_accuracy == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert result.mean_iou == pytest.approx((5 / 7 + 2 / 5 + 0) / 3)
    assert result.frequency_weighted_iou == pytest.approx((6 * 5 / 7 + 4 * 2 / 5) / 10)


def test_a_class_in_neither_label_nor_prediction_is_left_out() -> None:
    result = scores(np.diag([3, 1, 0]))
    assert result.mean_iou == result.mean_accuracy == result.frequency_weighted_iou == 1
    assert math.isnan(result.iou[2])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_pixels_give_nan() -> None:
    result = scores(torch.zeros(3, 3, dtype=torch.int64))
    summary = (result.pixel_accuracy, result.mean_accuracy, result.mean_iou, result.frequency_weighted_iou)
    np.testing.assert_array_equal([*summary, *result.iou, *result.accuracy], [NAN] * 10)
    assert result.pixels == (0, 0, 0)


def test_large_counts_keep_their_last_pixel() -> None:
    # 2^40 + 1 pixels, more than float32 tells apart.
    result = scores(torch.tensor([[2**40, 1], [0, 1]]))
    assert result.pixels == (2**40 + 1, 1)
    assert 1 - result.accuracy[0] == pytest.approx(2.0**-40, rel=1e-3)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros(4), np.array([[1, 0], [-1, 0]])])
def test_what_is_no_confusion_matrix_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        scores(bad)


def test_to_dict_is_json_with_none_for_nan() -> None:
    result = to_dict(scores(np.array([[2, 2, 0], [0, 4, 0], [0, 0, 0]])), SPACE)
    assert json.loads(json.dumps(result, allow_nan=False)) == {
        "pixel_accuracy": 0.75,
        "mean_accuracy": 0.75,
        "mean_iou": pytest.approx((1 / 2 + 2 / 3) / 2),
        "frequency_weighted_iou": pytest.approx((1 / 2 + 2 / 3) / 2),
        "classes": {
            "sky": {"iou": 0.5, "accuracy": 0.5, "pixels": 4},
            "road": {"iou": pytest.approx(2 / 3), "accuracy": 1.0, "pixels": 4},
            "car": {"iou": None, "accuracy": None, "pixels": 0},
        },
    }


def test_to_dict_refuses_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match="shorter"):
        to_dict(scores(np.eye(2)), SPACE)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@settings(max_examples=100, deadline=None)
@given(masks(), st.data())
def test_reported_classes_keep_the_errors_of_the_others(case: tuple[np.ndarray, np.ndarray, int], data) -> None:
    label, prediction, classes = case
    reported = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    every = by_pixel(label, prediction, classes)
    result = scores(count(label, prediction, classes), reported)
    assert result.reported == tuple(sorted(reported))
    for name in ("iou", "accuracy", "pixels"):
        np.testing.assert_allclose(getattr(result, name), every[name], rtol=1e-12, err_msg=name)
    for name, of_class in (("mean_iou", "iou"), ("mean_accuracy", "accuracy")):
        known = [every[of_class][i] for i in reported if not math.isnan(every[of_class][i])]
        np.testing.assert_allclose(getattr(result, name), np.mean(known) if known else NAN, rtol=1e-12, err_msg=name)
    kept = np.isin(label, reported)
    accuracy = (label == prediction)[kept].mean() if kept.any() else NAN
    np.testing.assert_allclose(result.pixel_accuracy, accuracy, rtol=1e-12)


def test_reported_classes_by_hand() -> None:
    # Of 4 road pixels one is predicted as truck, and one of 2 truck pixels as road; trucks are not reported.
    confusion = np.array([[3, 0, 1], [0, 5, 0], [1, 0, 1]])
    result = scores(confusion, [0, 1])
    assert result.mean_iou == pytest.approx((3 / 5 + 1) / 2)
    assert result.pixel_accuracy == pytest.approx(8 / 9)
    assert result.frequency_weighted_iou == pytest.approx((4 * 3 / 5 + 5) / 9)
    assert to_dict(result, SPACE)["reported"] == ["sky", "road"]
    assert scores(confusion, range(3)).mean_iou == scores(confusion).mean_iou
    for wrong in ([], [3], [-1]):
        with pytest.raises(ValueError, match="expected indices from 0 to 2"):
            scores(confusion, wrong)
