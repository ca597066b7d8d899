"""Confusion matrices of few classes and of many, and the confusions that are told in words."""

import numpy as np

from fcnseg.labels import LabelSpace
from fcnseg.reports.tables import class_rows, confusions, pairs
from tests.reports.pages import pixels

COUNTS = np.array([[6, 2, 0], [0, 0, 0], [3, 0, 9]])
CLASSES = ("a", "b", "c")


def test_shares_are_of_the_label_or_of_the_prediction():
    by_label, by_prediction = confusions(COUNTS)
    assert by_label.cells == [[0.75, 0.25, 0], [None] * 3, [0.25, 0, 0.75]]
    assert by_prediction.cells == [[6 / 9, 1, 0], [0, 0, 0], [3 / 9, 0, 1]]
    assert by_label.picture == by_prediction.picture == ""


def test_many_classes_are_a_picture():
    counts = np.eye(60, dtype=int) * 3
    counts[5, 7] = 1
    (by_label, _) = confusions(counts)
    assert by_label.cells == []
    picture = pixels(by_label.picture).astype(int).sum(axis=2)
    assert picture.shape == (60, 60)
    np.testing.assert_array_equal(picture < 700, counts > 0)
    assert picture[0, 0] < picture[5, 5] < picture[5, 7], "the larger share is the darker"


def test_the_largest_confusions_come_first():
    assert pairs(COUNTS, CLASSES) == [
        {"label": "c", "prediction": "a", "pixels": 3, "share": 3 / 12},
        {"label": "a", "prediction": "b", "pixels": 2, "share": 2 / 8},
    ]
    assert pairs(np.eye(2, dtype=int), ("a", "b")) == []


def test_support_is_told_in_pixels_and_images():
    matrices = np.stack([COUNTS, np.zeros_like(COUNTS), np.diag([4, 0, 0])])
    scores = {name: {"iou": None, "accuracy": None, "pixels": n} for name, n in zip(CLASSES, (12, 0, 12), strict=True)}
    space = LabelSpace("x", CLASSES, ((1, 2, 3), (255, 0, 0), (0, 0, 0)))
    a, b, c = class_rows({"classes": scores, "reported": ["a", "b"]}, matrices, space)
    assert (a.pixels, a.share, a.images, a.precision) == (12, 0.5, 2, 10 / 13)
    assert (b.pixels, b.share, b.images, b.precision) == (0, 0, 0, 0)
    assert (c.images, c.precision, c.colour, c.reported) == (1, 1, "#000000", False)
