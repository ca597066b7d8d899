"""Statistics of channels against sums over all pixels."""

import numpy as np
import pytest
import torch

from fcnseg.data import statistics
from fcnseg.data.statistics import channel_statistics, normalisation
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from fcnseg.models import create_model


class Arrays:
    """A dataset of given images."""

    label_space = LabelSpace("one", ("a",), ((0, 0, 0),))

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        self.read.append(index)
        return self.images[index], np.zeros(self.images[index].shape[:2], np.uint8), str(index)


def test_small_images_count_in_full() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(40, 200, (int(h), 30, 4)).astype(np.uint16) for h in rng.integers(20, 50, 9)]
    pixels = np.concatenate([image.reshape(-1, 4) for image in images]).astype(float)
    mean, std = channel_statistics(Arrays(images))
    assert mean == pytest.approx(pixels.mean(axis=0).tolist(), rel=1e-3)
    assert std == pytest.approx(pixels.std(axis=0).tolist(), rel=1e-3)


def test_a_few_extreme_pixels_do_not_decide() -> None:
    """Of 100,000 values, sorted, the 101 at either end become their neighbours towards the middle."""
    rng = np.random.default_rng(1)
    image = rng.normal(10, 2, (200, 500, 2)).astype(np.float32)
    image[rng.integers(0, 200, 40), rng.integers(0, 500, 40)] = 1e9
    mean, std = channel_statistics(Arrays([image]))
    for channel in range(2):
        values = np.sort(image[..., channel].ravel().astype(float))
        values[:100], values[-100:] = values[100], values[-101]
        assert mean[channel] == pytest.approx(values.mean(), rel=1e-5)
        assert std[channel] == pytest.approx(values.std(), rel=1e-3)
    assert mean == pytest.approx((10, 10), abs=0.05)
    assert image.mean() > 1e5


def test_images_are_spread_evenly_and_the_same_each_time() -> None:
    dataset = Arrays([np.full((4, 5, 1), i, np.uint8) for i in range(101)])
    mean, _ = channel_statistics(dataset, limit=5)
    assert dataset.read == [0, 25, 50, 75, 100]
    assert mean == (50,)
    assert channel_statistics(dataset, limit=5) == channel_statistics(dataset, limit=5)


def test_large_images_give_a_grid_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PIXELS", 1000)
    ramp = np.add.outer(np.arange(400.0), np.arange(300.0))[..., None].astype(np.float32)
    mean, std = channel_statistics(Arrays([ramp]))
    assert mean[0] == pytest.approx(ramp.mean(), rel=0.02)  # half a step of the grid at the far edges
    assert std[0] == pytest.approx(ramp.std(), rel=0.02)
    grid = statistics._grid(ramp, 1000)
    assert 700 < len(grid) <= 1000


def test_a_constant_channel_can_be_divided_by() -> None:
    image = np.dstack([np.full((5, 6), 7), np.arange(30).reshape(5, 6)]).astype(np.uint8)
    mean, std = channel_statistics(Arrays([image]))
    assert (mean[0], std[0]) == (7, 1)
    assert std[1] > 8


def test_what_is_no_data_is_left_out() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(100, 5, (60, 50, 3)).astype(np.float32)
    image[:30] = np.nan
    image[40:45, :, 1] = np.nan
    image[..., 2] = np.nan
    mean, std = channel_statistics(Arrays([image]))
    for channel in range(2):
        known = image[..., channel][~np.isnan(image[..., channel])].astype(float)
        assert mean[channel] == pytest.approx(known.mean(), rel=1e-3)
        assert std[channel] == pytest.approx(known.std(), rel=2e-2)
    assert (mean[2], std[2]) == (0, 1)


def test_percentiles_become_the_ends_of_the_range() -> None:
    """0 to 1000 are 1001 equal steps: 2 % of them lie below 20."""
    ramp = np.arange(1001, dtype=np.float32).reshape(7, 143, 1)
    with_gap = np.concatenate([ramp, np.full((1, 143, 1), np.nan, np.float32)])
    found = normalisation(Arrays([with_gap]), "percentiles")
    assert (found.mean, found.std, found.clip) == ((500,), (480,), 1)
    spec = {"in_channels": 1, "image_type": "float32", "mean": found.mean, "std": found.std, "clip": found.clip}
    model = create_model("fcn32s_alexnet", num_classes=2, width=0.05, **spec)
    values = torch.tensor([0, 20, 260, 500, 980, 1000, torch.nan]).view(1, 1, 1, 7)
    assert model.normalise(values).flatten().tolist() == [-1, -1, -0.5, 0, 1, 1, 0]
    with pytest.raises(InputError, match="statistics=minmax: expected one of moments, percentiles"):
        normalisation(Arrays([ramp]), "minmax")
