"""The confusion matrix against torchmetrics' own and a loop, and what it needs where results must be deterministic."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fcnseg.evaluation.confusion import ConfusionMatrix, confusion_matrices


def masks(classes: int, *shape: int, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(classes)
    prediction, label = (torch.randint(0, classes, shape, generator=random) for _ in range(2))
    return prediction, label.masked_fill(torch.rand(shape, generator=random) < ignored, 255)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("classes", [2, 11, 21, 254])
def test_it_is_torchmetrics_own(classes: int) -> None:
    prediction, label = masks(classes, 2, 40, 50)
    expected = multiclass_confusion_matrix(prediction, label, classes, ignore_index=255)
    assert torch.equal(confusion_matrices(prediction, label, classes).sum(dim=0), expected)


def test_a_loop_counts_the_same() -> None:
    prediction, label = masks(3, 8, 9)
    counts = np.zeros((3, 3), int)
    for p, k in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True):
        if k != 255:
            counts[k, p] += 1
    assert confusion_matrices([prediction], [label.byte()], 3).tolist() == [counts.tolist()]


def test_one_class_and_no_label_make_a_matrix_too() -> None:
    prediction, label = masks(1, 5, 6)
    assert confusion_matrices([prediction], [label], 1).tolist() == [[[int((label == 0).sum())]]]
    assert confusion_matrices([prediction], [torch.full_like(label, 255)], 1).tolist() == [[[0]]]


def test_images_of_several_sizes_are_counted_each_on_its_own() -> None:
    pairs = [masks(5, 20, 30), masks(5, 7, 9), masks(5, 1, 1, ignored=0)]
    found = confusion_matrices(*zip(*pairs, strict=True), 5)
    assert found.shape == (3, 5, 5)
    for matrix, (prediction, label) in zip(found, pairs, strict=True):
        assert torch.equal(matrix, multiclass_confusion_matrix(prediction, label, 5, ignore_index=255))


def test_updates_add_up() -> None:
    metric = ConfusionMatrix(4)
    both = [masks(4, 3, 20, 30), masks(4, 1, 7, 5)]
    for prediction, label in both:
        metric.update(confusion_matrices(prediction, label, 4))
    assert torch.equal(metric.compute(), sum(confusion_matrices(*pair, 4).sum(dim=0) for pair in both))
    metric.reset()
    assert not metric.compute().any()


@pytest.mark.usefixtures("deterministic")
def test_with_deterministic_algorithms_it_takes_a_few_bytes_per_pixel() -> None:
    """torchmetrics' takes a comparison with every cell there: 969 bytes per pixel with 11 classes."""
    prediction, label = masks(11, 100, 100)
    with torch.profiler.profile(profile_memory=True) as profile:
        confusion_matrices([prediction], [label], 11)
    allocated = [event.cpu_memory_usage for event in profile.events()]
    assert 0 < max(allocated) <= 4 * 8 * prediction.numel()
