"""Adapting tensors, against convolutions of the tensors they were adapted from and kernels worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnseg.models.surgery import (
    adapt_first,
    adapt_scores,
    as_convolution,
    checked,
    upsampling_difference,
    without_leading_ones,
)


@given(channels=st.integers(1, 8), seed=st.integers(0, 2**31), size=st.integers(1, 11))
@settings(max_examples=60, deadline=None)
def test_an_image_of_equal_channels_gives_what_it_gives_in_grey(channels: int, seed: int, size: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, size, size, generator=random)
    grey = torch.randn(1, 1, size + 6, size + 3, generator=random)
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    found = F.conv2d(grey.expand(-1, channels, -1, -1), adapt_first(weight, channels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_first_three_channels_keep_their_filters() -> None:
    weight = torch.randn(2, 3, 3, 3)
    adapted = adapt_first(weight, 6)
    torch.testing.assert_close(adapted[:, :3], weight / 2)
    for channel in range(3, 6):
        torch.testing.assert_close(adapted[:, channel], weight.mean(dim=1) / 2)
    torch.testing.assert_close(adapt_first(weight, 2)[:, 0], weight.sum(dim=1) / 2)


def test_only_filters_over_three_channels_are_adapted() -> None:
    with pytest.raises(ValueError, match="filters over 4 channels"):
        adapt_first(torch.ones(2, 4, 3, 3), 5)


@pytest.mark.parametrize(
    ("mode", "classes", "expected"),
    [
        ("auto", 3, [1, 2, 3]),
        ("auto", 2, [0, 0]),
        ("auto", 5, [0, 0, 0, 0, 0]),
        ("expand", 3, [1, 2, 3]),
        ("expand", 2, [1, 2]),
        ("expand", 5, [1, 2, 3, 0, 0]),
        ("reset", 3, [0, 0, 0]),
    ],
)
def test_scores_for_another_number_of_classes(mode: str, classes: int, expected: list[int]) -> None:
    rows = torch.tensor([1.0, 2, 3])
    bias, said = adapt_scores(rows, torch.empty(classes), mode)
    weight, _ = adapt_scores(rows[:, None, None, None].expand(3, 7, 1, 1), torch.empty(classes, 7, 1, 1), mode)
    assert bias.tolist() == expected
    assert weight[:, 6, 0, 0].tolist() == expected
    assert bool(said) == (expected != [1, 2, 3])


def test_scores_over_other_features_start_again() -> None:
    values, said = adapt_scores(torch.ones(3, 8, 1, 1), torch.empty(3, 7, 1, 1), "expand")
    assert values.shape == (3, 7, 1, 1)
    assert not values.any()
    assert said


def test_fully_connected_layers_as_convolutions() -> None:
    """A convolution over a map of its own size is the layer on the flattened map."""
    linear, maps = torch.nn.Linear(4 * 6 * 6, 5), torch.randn(2, 4, 6, 6)
    convolution = as_convolution(linear.weight, torch.empty(5, 4, 6, 6))
    torch.testing.assert_close(F.conv2d(maps, convolution, linear.bias).flatten(1), linear(maps.flatten(1)))
    with pytest.raises(ValueError, match="720 weights, 640 expected"):
        as_convolution(linear.weight, torch.empty(5, 8, 4, 4))


def test_leading_ones_of_caffes_old_format() -> None:
    assert without_leading_ones(torch.ones(1, 1, 1, 7), 1).shape == (7,)
    assert without_leading_ones(torch.ones(1, 1, 1, 1), 1).shape == (1,)
    assert without_leading_ones(torch.ones(1, 8, 3, 3), 4).shape == (1, 8, 3, 3)
    assert without_leading_ones(torch.ones(2, 1, 1, 7), 1).shape == (2, 1, 1, 7)


def caffe_filler(size: int) -> torch.Tensor:
    """Caffe's BilinearFiller, value by value (caffe/filler.hpp)."""
    factor = int(np.ceil(size / 2))
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    ramp = [1 - abs(x / factor - centre) for x in range(size)]
    return torch.tensor(np.outer(ramp, ramp), dtype=torch.float32)


@pytest.mark.parametrize("size", [4, 16, 32, 64])
def test_bilinear_deconvolutions_are_recognised(size: int) -> None:
    kernel = caffe_filler(size)
    grouped = kernel.expand(3, 1, size, size)
    full = torch.zeros(3, 3, size, size)
    full[range(3), range(3)] = kernel
    assert upsampling_difference(grouped) < 1e-6
    assert upsampling_difference(full) < 1e-6
    assert upsampling_difference(full.double()) < 1e-6
    full[0, 1, 2, 2] = 0.25  # from one class into another
    assert upsampling_difference(full) == pytest.approx(0.25)


def test_other_deconvolutions_are_told_apart() -> None:
    # At 63 Caffe's filler peaks at 31.25 of 0 to 62 with a slope of 1/32; the kernel that lies right peaks at 31.
    assert upsampling_difference(caffe_filler(63).expand(2, 1, 63, 63)) > 0.005
    for shape in ((2, 3, 4, 4), (2, 2, 4, 3), (4, 4), (2**15, 2**15, 4, 4)):
        assert upsampling_difference(torch.ones(1).expand(shape)) == float("inf")


def test_checked_casts_and_refuses() -> None:
    like = torch.empty(2)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert checked(torch.tensor([0.5, 2], dtype=dtype), like).dtype == torch.float32
        assert checked(torch.tensor([0.5, 2], dtype=dtype), like).tolist() == [0.5, 2]
    for values in (torch.tensor([1, float("nan")]), torch.tensor([1, 1e300], dtype=torch.float64)):
        with pytest.raises(ValueError, match="not finite"):
            checked(values, like)
    for values in (torch.tensor([1, 2]), torch.tensor([1j, 2])):
        with pytest.raises(ValueError, match=r"torch\.float32 expected"):
            checked(values, like)
    with pytest.raises(ValueError, match=r"torch\.int64 expected"):
        checked(torch.ones(()), torch.tensor(3))
