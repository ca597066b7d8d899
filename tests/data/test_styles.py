"""Styles against their papers' formulas, written out."""

import cmath

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnseg.data.styles import ColourStatistics, Fourier
from fcnseg.errors import InputError


def random_image(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (height, width, channels), np.uint8)


def spectrum(channel: np.ndarray) -> dict[tuple[int, int], complex]:
    """Each frequency of an image, from minus half its side, by the sum that defines it."""
    height, width = channel.shape
    found = {}
    for v in range(-(height // 2), height - height // 2):
        for u in range(-(width // 2), width - width // 2):
            terms = (
                complex(channel[y, x]) * cmath.exp(-2j * cmath.pi * (v * y / height + u * x / width))
                for y in range(height) for x in range(width)
            )  # fmt: skip
            found[v, u] = sum(terms)
    return found


@pytest.mark.parametrize(("height", "width"), [(8, 10), (9, 7)])
def test_low_frequencies_have_the_targets_amplitude_and_all_their_phases(height: int, width: int) -> None:
    image, target = random_image(0, height, width, 1), random_image(1, height, width, 1)
    floats = image.astype(np.float64)
    result = spectrum(Fourier(beta=0.25)(floats, target.astype(np.float64))[..., 0])
    ours, theirs = spectrum(image[..., 0]), spectrum(target[..., 0])
    half = int(0.25 * min(height, width))
    for (v, u), value in result.items():
        amplitude = abs(theirs[v, u] if max(abs(v), abs(u)) <= half else ours[v, u])
        expected = amplitude * cmath.exp(1j * cmath.phase(ours[v, u]))
        assert abs(value - expected) < 1e-6 * abs(ours[0, 0])


@given(st.integers(0, 2**16), st.integers(4, 33), st.integers(4, 33))
def test_an_image_in_its_own_style_is_itself(seed: int, height: int, width: int) -> None:
    image = random_image(seed, height, width)
    assert np.array_equal(Fourier(0.1)(image, image), image)
    assert np.abs(ColourStatistics()(image, image).astype(int) - image).max() <= 1


def test_colours_have_the_targets_moments() -> None:
    image, target = random_image(0, 40, 60), (random_image(1, 50, 30) * 0.5 + 60).astype(np.uint8)
    result = ColourStatistics()(image, target)
    assert result.dtype == np.uint8
    ours, theirs = (cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for each in (result, target))
    assert ours.mean((0, 1)) == pytest.approx(theirs.mean((0, 1)), abs=0.6)  # of 100; rounding to 8 bits
    assert ours.std((0, 1)) == pytest.approx(theirs.std((0, 1)), abs=0.6)


def test_other_channels_have_them_by_themselves() -> None:
    random = np.random.default_rng(0)
    image, target = random.normal(3, 2, (20, 30, 5)), random.normal(-50, 9, (10, 10, 5))
    result = ColourStatistics()(image.astype(np.float32), target.astype(np.float32))
    assert result.dtype == np.float32
    assert result.mean((0, 1)) == pytest.approx(target.mean((0, 1)), rel=1e-4)
    assert result.std((0, 1)) == pytest.approx(target.std((0, 1)), rel=1e-4)


def test_a_channel_without_variance_gets_the_mean() -> None:
    result = ColourStatistics()(np.full((4, 4, 1), 7, np.float32), random_image(0, 5, 5, 1).astype(np.float32))
    assert np.ptp(result) == 0


@pytest.mark.parametrize("beta", [0, 0.6, "much"])
def test_other_sizes_of_the_square_are_refused(beta: float) -> None:
    with pytest.raises(InputError, match=r"beta=.*: expected a number above 0 and at most 0\.5"):
        Fourier(beta)
