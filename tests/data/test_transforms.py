"""Resizing against block averages and pixel centres, and augmentation by images that carry their mask."""

import os
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torchvision.transforms import v2

from fcnseg.commands.configuration import config_folder
from fcnseg.data.resizing import resize_image, resize_mask, scale_values
from fcnseg.data.torchvision_transforms import TorchvisionPipeline
from fcnseg.data.transforms import PadToSize, resize_pipeline, street_pipeline
from fcnseg.errors import InputError

SIZE = (30, 40)


def noise(*shape: int, seed: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def striped(height: int = 60, width: int = 80, period: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """An image of vertical bands of 50 and 250, and the mask that tells the bands apart: 0 and 1."""
    mask = np.broadcast_to(np.arange(width) // period % 2, (height, width)).astype(np.uint8)
    return np.stack([50 + 200 * mask] * 3, axis=2), mask


# Resizing


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shrinking_averages_blocks(factor: int, channels: int) -> None:
    image = noise(6 * factor, 8 * factor, channels)
    blocks = image.reshape(6, factor, 8, factor, channels).mean(axis=(1, 3))
    resized = resize_image(image, (6, 8))
    assert resized.shape == (6, 8, channels)
    assert resized.dtype == np.uint8
    assert np.abs(resized - blocks).max() <= 0.5 + 1e-4  # no more than the rounding


def test_enlarging_is_bilinear_between_pixel_centres() -> None:
    image = noise(9, 12, 3)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, size=(21, 30), mode="bilinear", align_corners=False)
    resized = resize_image(image, (21, 30))
    assert np.abs(resized - expected[0].permute(1, 2, 0).numpy()).max() < 1


def weights(samples: int, to: int) -> np.ndarray:
    """(to, samples) of what each sample of an axis gives: by the overlap of areas, or bilinear between centres."""
    edges = np.arange(to + 1) * samples / to
    if to < samples:
        pixels = np.arange(samples)
        overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return overlap.clip(0) * to / samples
    centres = ((edges[:-1] + edges[1:]) / 2 - 0.5).clip(0, samples - 1)
    return (1 - np.abs(centres[:, None] - np.arange(samples))).clip(0)


@pytest.mark.parametrize("size", [(16, 72), (16, 200), (61, 53), (200, 16)])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_each_axis_has_its_own_filter_where_one_shrinks_and_the_other_grows(
    size: tuple[int, int], channels: int
) -> None:
    """Averages down and interpolates across; of noise, as much variance is left as the squares of the weights say."""
    image = noise(48, 64, channels)
    down, across = weights(48, size[0]), weights(64, size[1])
    resized = resize_image(image, size)
    assert np.abs(resized - np.einsum("ih,hwc,jw->ijc", down, image, across)).max() <= 1.3  # two roundings
    left = np.outer((down**2).sum(axis=1), (across**2).sum(axis=1)).mean() * image.astype(float).var()
    assert resized.astype(float).var() == pytest.approx(left, rel=0.15)


@pytest.mark.parametrize("size", [(16, 150), (150, 16), (20, 20), (150, 200)])
def test_a_spot_stays_where_it_was(size: tuple[int, int]) -> None:
    """Its centroid, in shares of the image, to a hundredth of a source pixel."""
    rows, columns = np.mgrid[:60, :80] + 0.5
    spot = np.exp(-((rows - 23.3) ** 2 + (columns - 51.6) ** 2) / (2 * 5.0**2)).astype(np.float32)[..., None]
    resized = resize_image(spot, size)[..., 0].astype(float)
    for axis, (place, length) in enumerate(((23.3, 60), (51.6, 80))):
        profile = resized.sum(axis=1 - axis)
        centroid = profile @ (np.arange(len(profile)) + 0.5) / profile.sum() / len(profile) * length
        assert centroid == pytest.approx(place, abs=0.01)


def test_an_image_of_the_right_size_or_without_a_size_is_not_touched() -> None:
    image = noise(9, 12, 3)
    assert resize_image(image, None) is image
    assert resize_image(image, [9, 12]) is image


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(4, h, w): for each target pixel the source pixels that its centre lies in.

    The centre of target pixel i lies at (i + 1/2) * from / to; on the border of two source pixels both
    are as near, and otherwise all four values are of one pixel.
    """
    (above, below), (left, right) = (
        (-(-(2 * np.arange(to) + 1) * source // (2 * to)) - 1, (2 * np.arange(to) + 1) * source // (2 * to))
        for source, to in zip(mask.shape, size, strict=True)
    )
    return np.stack([mask[rows][:, columns] for rows in (above, below) for columns in (left, right)])


side = st.integers(1, 64)


@settings(max_examples=150, deadline=None)
@given(height=side, width=side, to_height=side, to_width=side, seed=st.integers(0, 99))
def test_masks_take_the_pixel_under_the_centre(
    height: int, width: int, to_height: int, to_width: int, seed: int
) -> None:
    mask = noise(height, width, seed=seed)
    resized = resize_mask(mask, (to_height, to_width))
    assert (nearest(mask, (to_height, to_width)) == resized).any(axis=0).all()
    assert set(np.unique(resized)) <= set(np.unique(mask))


@pytest.mark.parametrize("size", [(180, 240), (360, 480), (227, 303), (720, 960), (64, 64)])
def test_masks_of_camvids_size_take_the_pixel_under_the_centre(size: tuple[int, int]) -> None:
    mask = np.where(noise(360, 480) < 20, 255, noise(360, 480, seed=1, high=11)).astype(np.uint8)
    assert (nearest(mask, size) == resize_mask(mask, size)).any(axis=0).all()


def test_the_plain_pipeline_only_resizes() -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    for seed in range(3):
        resized, small = resize_pipeline(SIZE)(image, mask, seed)
        assert np.abs(resized - image.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))).max() <= 0.5
        assert np.array_equal(small, mask[1::2, 1::2])


# Randomness


def test_the_seed_alone_decides() -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    used, fresh = street_pipeline(SIZE), street_pipeline(SIZE)
    results = {}
    for seed in range(12):
        results[seed] = used(image, mask, seed)
    for seed in reversed(range(12)):
        random.seed(seed * 7)
        np.random.seed(seed * 5)
        again = fresh(image, mask, seed)
        assert np.array_equal(again[0], results[seed][0])
        assert np.array_equal(again[1], results[seed][1])
    assert len({augmented.tobytes() for augmented, _ in results.values()}) == 12


def test_the_result_has_the_size_and_the_inputs_stay_as_they_were() -> None:
    image, mask = noise(33, 91, 3), noise(33, 91, high=11)
    before = image.copy(), mask.copy()
    augment = street_pipeline((17, 23), scale=(0.3, 3.0))
    for seed in range(30):
        augmented, small = augment(image, mask, seed)
        assert augmented.shape == (17, 23, 3)
        assert small.shape == (17, 23)
        assert augmented.dtype == small.dtype == np.uint8
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_scale_place_and_mirroring_have_nothing_to_do_with_each_other() -> None:
    """Red and green tell row and column, so that a crop says where it comes from, at which scale, and which way."""
    rows, columns = np.mgrid[:180, :240].astype(np.uint8)
    image, mask = np.stack([rows, columns, rows], axis=2), np.zeros((180, 240), np.uint8)
    augment = street_pipeline((60, 80), scale=(1.2, 1.75), colour=0)
    found = []
    for seed in range(400):
        crop = augment(image, mask, seed)[0].astype(float)
        scale = 3 * 40 / (crop[50, 40, 0] - crop[10, 40, 0])
        top, left = (crop[..., channel].min() / 3 * scale for channel in (0, 1))
        found.append((scale, top / (60 * scale - 60), left / (80 * scale - 80), crop[30, 60, 1] < crop[30, 20, 1]))
    correlations = np.corrcoef(np.array(found, float).T) - np.eye(4)
    assert np.abs(correlations).max() < 0.15, "three standard deviations of independent numbers"


# Geometry


def test_image_and_mask_stay_aligned_to_the_pixel() -> None:
    """Area averages and bilinear weights both cross one half exactly where the mask changes class."""
    image, mask = striped()
    augment = street_pipeline(SIZE, scale=(0.6, 3.0), colour=0)
    compared = 0
    for seed in range(60):
        augmented, small = augment(image, mask, seed)
        value = augmented[..., 0].astype(int)
        clear = (small != 255) & (np.abs(value - 150) > 5)  # not on the fence
        assert np.array_equal(small[clear], value[clear] > 150)
        compared += clear.mean() / 60
    assert compared > 0.8


def test_image_and_mask_agree_inside_regions_of_many_classes() -> None:
    mask = np.kron(noise(3, 4, high=6), np.ones((20, 20), np.uint8))
    image = np.stack([40 * mask] * 3, axis=2)
    augment = street_pipeline(SIZE, scale=(0.6, 3.0), colour=0)
    for seed in range(40):
        augmented, small = augment(image, mask, seed)
        kernel = np.ones((5, 5), np.uint8)
        inside = (cv2.erode(small, kernel) == cv2.dilate(small, kernel)) & (small != 255)
        inside[:2] = inside[-2:] = inside[:, :2] = inside[:, -2:] = False  # the neighbour may be cropped away
        assert inside.any()
        assert np.array_equal(augmented[inside], np.stack([40 * small[inside]] * 3, axis=1))


def test_padding_is_ignored_in_the_mask_and_nowhere_else() -> None:
    image, mask = np.full((60, 80, 3), 200, np.uint8), np.full((60, 80), 3, np.uint8)
    augment = street_pipeline(SIZE, scale=(0.3, 0.9), colour=0)
    padded = 0
    for seed in range(40):
        augmented, small = augment(image, mask, seed)
        assert np.array_equal(augmented[..., 0] == 0, small == 255)
        assert np.array_equal(augmented[..., 0] == 200, small == 3)
        padded += (small == 255).any()
    assert padded == 40


def test_what_needs_no_padding_is_not_copied() -> None:
    image, mask = noise(40, 50, 3), noise(40, 50, high=11)
    for pad, shared in ((PadToSize((40, 45)), True), (PadToSize((41, 45)), False)):
        done = pad(image=image, mask=mask)
        assert np.shares_memory(done["image"], image) is shared
        assert np.shares_memory(done["mask"], mask) is shared
        assert np.array_equal(done["image"][:40], image)
        assert done["mask"][40:].tolist() == ([] if shared else [[255] * 50])


def test_the_scale_stays_in_its_range_and_is_uniform_in_its_logarithm() -> None:
    size, (low, high) = (100, 100), (0.4, 0.8)
    augment = street_pipeline(size, scale=(low, high), colour=0)
    image, mask = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8)
    factors = []
    for seed in range(400):
        inside = augment(image, mask, seed)[1] == 0
        height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
        assert height == width  # the aspect ratio stays
        assert low * 100 <= height <= high * 100
        factors.append(height / 100)
    assert min(factors) < 0.42
    assert max(factors) > 0.77
    assert np.median(factors) == pytest.approx(np.sqrt(low * high), abs=0.015)


def test_a_scale_of_two_shows_half_the_image_at_twice_the_size() -> None:
    image, mask = striped(30, 40, period=5)
    lefts = set()
    for seed in range(20):
        small = street_pipeline(SIZE, scale=(2.0, 2.0), flip=0, colour=0)(image, mask, seed)[1]
        edges = np.flatnonzero(np.diff(small[0]))
        assert (np.diff(edges) == 10).all()
        assert len(edges) in (3, 4)
        lefts.add(int(edges[0]))
    assert len(lefts) > 4  # the crop moves


@pytest.mark.parametrize("flip", [0, 1])
def test_flips_are_never_or_always(flip: int) -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    expected = resize_pipeline(SIZE)(image, mask, 0)
    for seed in range(20):
        augmented = street_pipeline(SIZE, scale=(1, 1), flip=flip, colour=0)(image, mask, seed)
        for ours, plain in zip(augmented, expected, strict=True):
            assert np.array_equal(ours, plain[:, ::-1] if flip else plain)


def test_half_of_the_images_are_flipped_by_default() -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    plain = resize_pipeline(SIZE)(image, mask, 0)[1]
    augment = street_pipeline(SIZE, scale=(1, 1), colour=0)
    flips = sum(np.array_equal(augment(image, mask, seed)[1], plain[:, ::-1]) for seed in range(200))
    assert 75 < flips < 125


# Colours


@pytest.mark.parametrize(("colour", "share"), [(0, 0), (1, 1), (0.8, 0.8)])
def test_colours_change_as_often_as_asked_and_leave_the_mask_alone(colour: float, share: float) -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    plain = resize_pipeline(SIZE)(image, mask, 0)
    augment = street_pipeline(SIZE, scale=(1, 1), flip=0, colour=colour)
    changed = 0
    for seed in range(100):
        augmented, small = augment(image, mask, seed)
        assert np.array_equal(small, plain[1])
        changed += not np.array_equal(augmented, plain[0])
    assert changed / 100 == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def test_brightness_scales_the_image_within_its_range() -> None:
    image, mask = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80), np.uint8)
    augment = street_pipeline(SIZE, colour=1, scale=(1, 1), brightness=0.3, contrast=0, saturation=0, hue=0)
    levels = [int(augment(image, mask, seed)[0][0, 0, 0]) for seed in range(100)]
    assert 69 <= min(levels) < 75
    assert 125 < max(levels) <= 131


# Images of any channels and type


def values_of(dtype: str, *shape: int) -> np.ndarray:
    """uint8 or uint16 over the whole range, or floats of both signs."""
    random = np.random.default_rng(0)
    if dtype == "float32":
        return random.normal(-12, 5, shape).astype(np.float32)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 13, 200])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(6, 8), (7, 11), (40, 50)], ids=["blocks", "areas", "larger"])
def test_each_channel_is_resized_as_if_alone(channels: int, dtype: str, size: tuple[int, int]) -> None:
    image = values_of(dtype, 18, 24, channels)
    resized = resize_image(image, size)
    method = cv2.INTER_LINEAR if size == (40, 50) else cv2.INTER_AREA
    alone = [cv2.resize(image[..., i], size[::-1], interpolation=method) for i in range(channels)]
    assert resized.dtype == dtype
    assert resized.shape == (*size, channels)
    # OpenCV's vectorised and plain code round single values the other way.
    tolerance = 1e-3 if dtype == "float32" else 1
    assert np.abs(resized.astype(float) - np.stack(alone, axis=2)).max() <= tolerance


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint16"), (4, "uint8"), (13, "float32"), (200, "uint16")]
)
def test_other_images_go_through_the_street_pipeline(channels: int, dtype: str) -> None:
    image, mask = values_of(dtype, 33, 45, channels), noise(33, 45, high=11)
    before = image.copy()
    augment = street_pipeline(SIZE, scale=(0.4, 1.6))
    for seed in range(10):
        augmented, small = augment(image, mask, seed)
        assert augmented.shape == (*SIZE, channels)
        assert augmented.dtype == dtype
        assert small.shape == SIZE
        again = street_pipeline(SIZE, scale=(0.4, 1.6))(image, mask, seed)
        assert np.array_equal(again[0], augmented)
    assert np.array_equal(image, before)


def test_their_channels_stay_aligned_with_the_mask_and_padding_is_0() -> None:
    mask = np.kron(noise(3, 4, high=6), np.ones((20, 20), np.uint8))
    image = np.stack([(mask + 1) * (10.0 + i) for i in range(6)], axis=2).astype(np.float32)
    augment = street_pipeline(SIZE, scale=(0.4, 0.9), colour=0)
    for seed in range(20):
        augmented, small = augment(image, mask, seed)
        assert (augmented[small == 255] == 0).all()
        kernel = np.ones((5, 5), np.uint8)
        inside = (cv2.erode(small, kernel) == cv2.dilate(small, kernel)) & (small != 255)
        inside[:2] = inside[-2:] = inside[:, :2] = inside[:, -2:] = False
        expected = (small[inside].astype(float) + 1)[:, None] * (10.0 + np.arange(6))
        np.testing.assert_allclose(augmented[inside], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_gain_and_offset_follow_the_images_own_mean_and_spread(dtype: str) -> None:
    """The change of a channel is a line: recovered by a least-squares fit, and compared with its range."""
    random = np.random.default_rng(0)
    image = random.normal((20000, 30000, 10000), (900, 1800, 300), (30, 40, 3)).astype(dtype)
    mask = np.zeros((30, 40), np.uint8)
    augment = street_pipeline(SIZE, scale=(1, 1), flip=0, colour=1, brightness=0.5, contrast=0.2)
    gains, offsets = [], []
    for seed in range(60):
        augmented = augment(image, mask, seed)[0]
        lines = [np.polyfit(image[..., i].ravel(), augmented[..., i].ravel(), 1) for i in range(3)]
        mean, std = image.mean(axis=(0, 1), dtype=float), image.std(axis=(0, 1), dtype=float)
        moved = (augmented.mean(axis=(0, 1), dtype=float) - mean) / std
        assert [gain for gain, _ in lines] == pytest.approx([lines[0][0]] * 3, rel=1e-3)
        assert moved == pytest.approx([moved[0]] * 3, abs=5e-3)
        gains.append(lines[0][0])
        offsets.append(moved[0])
    assert 0.8 <= min(gains) < 0.83
    assert 1.17 < max(gains) <= 1.2
    assert -0.505 < min(offsets) < -0.45
    assert 0.45 < max(offsets) < 0.505


def test_integers_are_clipped_to_their_type() -> None:
    image = np.where(noise(30, 40, 1, seed=1) > 128, 65535, 0).astype(np.uint16)
    augment = street_pipeline(SIZE, scale=(1, 1), flip=0, colour=1, contrast=0, brightness=0.9)
    for seed in range(20):
        augmented = augment(image, np.zeros((30, 40), np.uint8), seed)[0]
        assert (augmented[image == 65535] >= augmented[image == 0].max()).all()  # nothing has wrapped around
        assert augmented.max() == 65535 or augmented.min() == 0


# Scaling


def test_scalings_are_their_formulas_and_no_signal_in_decibels_is_no_data() -> None:
    amplitude = np.array([[1, 10, 1000, 0.01], [0, -5, 2, 1e-30]])
    for dtype in (np.float32, np.float64):
        decibel = scale_values(amplitude.astype(dtype), "decibel")
        assert decibel.dtype == np.float32
        expected = np.array([[0, 20, 60, -40], [np.nan, np.nan, 6.0206, -600]])
        assert decibel == pytest.approx(expected, abs=1e-4, nan_ok=True)
    intensity = scale_values(np.array([1, 100, 0], np.uint16), "decibel_intensity")
    assert intensity == pytest.approx([0, 20, np.nan], abs=1e-5, nan_ok=True)
    assert scale_values(np.array([0, 1, 65535], np.uint16), "log") == pytest.approx([0, 0.693147, 11.090355])
    for scaling in ("log", "decibel", "decibel_intensity", "window:40:400"):
        assert np.isnan(scale_values(np.array([np.nan], np.float32), scaling)).all()
    image = noise(4, 5, 3)
    assert scale_values(image, None) is image
    with pytest.raises(InputError, match="scaling='dB': expected one of log, decibel, decibel_intensity, or window:"):
        scale_values(image, "dB")


def test_a_window_has_its_level_in_the_middle() -> None:
    """DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT: 0 up to level - width / 2, 1 from level + width / 2 on."""
    units = np.array([-1000, -160, -60, 40, 140, 240, 3000], np.float32)
    assert scale_values(units, "window:40:400") == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert scale_values(units.astype(np.int16), "window:-600:1500").max() == 1
    for wrong in ("window", "window:40", "window:40:0", "window:a:400", "window:40:nan", "bone:40:400"):
        with pytest.raises(InputError, match="window:LEVEL:WIDTH"):
            scale_values(units, wrong)


# No data


def test_resizing_averages_what_is_known() -> None:
    """Blocks of 2x2 with 0 to 4 pixels without data, by NumPy's own mean of those that are left."""
    values = noise(4, 10, 6).astype(np.float32)
    for block in range(5):
        for pixel in range(block):
            values[pixel // 2 :: 2, 2 * block + pixel % 2] = np.nan
    blocks = values.reshape(2, 2, 5, 2, 6).swapaxes(1, 2).reshape(2, 5, 4, 6)
    expected = np.where(
        np.isnan(blocks).sum(axis=2) > 2,
        np.nan,
        np.nanmean(np.where(np.isnan(blocks).all(axis=2, keepdims=True), 0, blocks), axis=2),
    )
    np.testing.assert_allclose(resize_image(values, (2, 5)), expected, rtol=1e-5)
    assert np.isfinite(resize_image(values, (8, 20))).any()


@pytest.mark.parametrize("name", ["street", "none"])
def test_augmentation_keeps_no_data_where_it_was(name: str) -> None:
    """With changed colours, which depend on mean and deviation of the whole image."""
    image = noise(40, 60, 5).astype(np.float32)
    image[:, :30] = np.nan
    mask = np.where(np.isnan(image[..., 0]), 255, 1).astype(np.uint8)
    pipeline = street_pipeline((40, 60), scale=(1, 1), colour=1) if name == "street" else resize_pipeline((40, 60))
    for seed in range(5):
        found, labels = pipeline(image, mask, seed)
        np.testing.assert_array_equal(np.isnan(found).all(axis=2), labels == 255)
        assert np.isfinite(found[labels == 1]).all()


# torchvision


def configured(transforms: int = 4) -> TorchvisionPipeline:
    """The first transforms of `data/augment=torchvision`, at the size of these tests."""
    augment = OmegaConf.load(config_folder() / "data" / "augment" / "torchvision.yaml")
    augment.transforms = augment.transforms[:transforms]
    config = OmegaConf.create({"data": {"size": list(SIZE), "resize": "keep", "augment": augment}})
    return instantiate(config.data.augment, _convert_="all")


def test_torchvisions_pipeline_depends_on_its_seed_alone_and_leaves_the_generators_be() -> None:
    image, mask = noise(60, 80, 3), noise(60, 80, high=11)
    augment = configured()
    first = [augment(image, mask, seed) for seed in range(8)]
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    for seed in reversed(range(8)):
        augmented, small = augment(image, mask, seed)
        assert np.array_equal(augmented, first[seed][0])
        assert np.array_equal(small, first[seed][1])
        assert augmented.shape == (*SIZE, 3)
        assert small.shape == SIZE
        assert augmented.dtype == small.dtype == np.uint8
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert len({augmented.tobytes() for augmented, _ in first}) == 8


def test_in_torchvisions_pipeline_whatever_comes_from_beyond_the_edge_is_ignored() -> None:
    image, mask = np.full((60, 80, 3), 200, np.uint8), np.full((60, 80), 3, np.uint8)
    mask[:20] = 255
    padded = 0
    for transform in (v2.RandomCrop((90, 90), pad_if_needed=True), v2.RandomAffine(40), v2.RandomPerspective(p=1)):
        for seed in range(5):
            augmented, small = TorchvisionPipeline([transform])(image, mask, seed)
            assert set(np.unique(small)) == {3, 255}
            assert (small[augmented[..., 0] == 0] == 255).all()
            padded += (augmented == 0).any()
    assert padded > 10


@pytest.mark.parametrize(
    "transform", [v2.Resize((30, 40)), v2.RandomResizedCrop((30, 40), scale=(1, 1), ratio=(4 / 3, 4 / 3))]
)
def test_torchvisions_masks_take_the_pixel_under_the_centre(transform: torch.nn.Module) -> None:
    mask = noise(60, 90, high=11)[:, :80]
    small = TorchvisionPipeline([transform])(noise(60, 80, 3), mask, 0)[1]
    assert (nearest(mask, SIZE) == small).any(axis=0).all()
    assert np.array_equal(small, resize_mask(np.ascontiguousarray(mask), SIZE))


def test_torchvisions_pipeline_keeps_image_and_mask_aligned() -> None:
    image, mask = striped()
    compared = 0
    augment = configured(transforms=3)  # without colours
    for seed in range(40):
        augmented, small = augment(image, mask, seed)
        value = augmented[..., 0].astype(int)
        clear = (small != 255) & (np.abs(value - 150) > 30)
        assert np.array_equal(small[clear], value[clear] > 150)
        compared += clear.mean() / 40
    assert compared > 0.7


@pytest.mark.filterwarnings("error::UserWarning")  # torch warns where it is handed memory that must not be written to
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (4, "uint16"), (13, "float32")])
def test_torchvisions_pipeline_takes_what_a_cache_gives(channels: int, dtype: str) -> None:
    """Images of any type, in memory that is read only."""
    image, mask = values_of(dtype, 60, 80, channels), noise(60, 80, high=11)
    image.flags.writeable = mask.flags.writeable = False
    flipped, other = TorchvisionPipeline([v2.RandomHorizontalFlip(1)])(image, mask, 0)
    assert flipped.dtype == dtype
    assert np.array_equal(flipped, image[:, ::-1])
    assert np.array_equal(other, mask[:, ::-1])


def test_importing_asks_no_server_for_anything():
    """Connections are counted rather than refused alone: who asks for news passes over a refusal."""
    script = (
        "import importlib, socket, sys\n"
        "asked = []\n"
        "def refuse(*arguments, **options):\n"
        "    asked.append(arguments)\n"
        "    raise OSError('no network in this test')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "importlib.import_module('fcnseg.data.transforms')\n"
        "assert 'albumentations' in sys.modules\n"
        "importlib.import_module('fcnseg.commands.evaluate')\n"
        "sys.exit(f'asked for {asked}' if asked else 0)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
