"""`data/augment=torchvision` does what `data/augment=street` does: pixel for pixel without chance, alike with it."""

from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import ks_2samp

from fcnseg.commands.configuration import config_folder
from fcnseg.data.transforms import Augment

SIZE = (24, 36)
RUNS = 400

STEPS: dict[str, dict[str, Any]] = {
    "scale": {"scale": [0.4, 1.0], "flip": 0.0, "colour": 0.0},
    "crop": {"scale": [1.6, 1.6], "flip": 0.0, "colour": 0.0},
    "flip": {"scale": [1.0, 1.0], "colour": 0.0},
    "colour": {"scale": [1.0, 1.0], "flip": 0.0},
}
"""What makes each step the only one that is left to chance."""


def pipelines(resize: str = "keep", size: tuple[int, int] | None = SIZE, **changes: Any) -> tuple[Augment, Augment]:
    """albumentations' and torchvision's from their configs, with the same changes to both."""
    folder = config_folder() / "data" / "augment"
    street, other = (OmegaConf.load(folder / f"{name}.yaml") for name in ("street", "torchvision"))
    first, _, flip, colour = other.transforms
    for key, value in changes.items():
        street[key] = value
        if key == "rare_crops":
            other[key] = value
            continue
        holder, name = {"scale": (first, "scale"), "flip": (flip, "p"), "colour": (colour, "p")}[key]
        holder[name] = value
    shared = {"size": size and list(size), "resize": resize}
    made = (OmegaConf.create({"data": {**shared, "augment": each}}).data.augment for each in (street, other))
    ours, theirs = (instantiate(each, _convert_="all") for each in made)
    return ours, theirs


def sample(dtype: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """60x80 pixels with a ramp to the right and noise, and columns of classes."""
    random = np.random.default_rng(0)
    high = {"uint8": 255, "uint16": 4000, "float32": 1.0}[dtype]
    values = np.linspace(0.2, 0.6, 80)[None, :, None] + random.normal(0, 0.08, (60, 80, channels))
    values *= np.linspace(0.7, 1.3, channels)
    return (high * values.clip(0, 1)).astype(dtype), np.tile(np.arange(80) // 8, (60, 1)).astype(np.uint8)


KINDS = pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 5), ("float32", 1)])


@KINDS
@pytest.mark.parametrize("resize", ["keep", "stretch", "native"])
@pytest.mark.parametrize("scale", [0.61, 1.0])
def test_without_chance_they_give_the_same_pixels(dtype: str, channels: int, resize: str, scale: float) -> None:
    size = (64, 90) if resize == "native" else SIZE  # larger than the image: the crop leaves nothing to chance
    image, mask = sample(dtype, channels)
    for flip in (0.0, 1.0):
        ours, theirs = pipelines(resize, size, scale=[scale, scale], flip=flip, colour=0.0)
        for seed in range(3):
            (a, of_a), (b, of_b) = ours(image, mask, seed), theirs(image, mask, seed)
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
            assert np.array_equal(of_a, of_b)


def told(augment: Augment, image: np.ndarray, mask: np.ndarray) -> dict[str, list[float]]:
    """What is random in a sample, as numbers, over many of them."""
    found: dict[str, list[float]] = {}
    for seed in range(RUNS):
        pixels, classes = augment(image, mask, seed)
        shown = classes != 255
        values = pixels[shown].astype(float)
        inside = classes[shown]
        step = np.diff(classes[classes.shape[0] // 2].astype(int))
        facts = {
            "padding": 1 - shown.mean(),
            "shown": shown.sum(),
            "first row": shown.any(axis=1).argmax(),
            "first column": shown.any(axis=0).argmax(),
            "classes": len(np.unique(inside)),
            "mean class": inside.mean(),
            "mirrored": (step[np.abs(step) == 1] < 0).mean(),
            **{f"mean {i}": values[:, i].mean() for i in range(min(values.shape[1], 3))},
            **{f"spread {i}": values[:, i].std() for i in range(min(values.shape[1], 3))},
            "colour": np.corrcoef(values[:, 0], values[:, -1])[0, 1],
        }
        for name, value in facts.items():
            found.setdefault(name, []).append(float(value))
    return found


@KINDS
@pytest.mark.parametrize("step", STEPS)
def test_what_is_random_is_distributed_alike(step: str, dtype: str, channels: int) -> None:
    """By Kolmogorov and Smirnov's test of two samples, for each of a dozen numbers."""
    image, mask = sample(dtype, channels)
    ours, theirs = (told(augment, image, mask) for augment in pipelines(**STEPS[step]))
    for name in ours:
        assert ks_2samp(ours[name], theirs[name]).pvalue > 1e-3, name
    moves = {"scale": "padding", "crop": "mean class", "flip": "mirrored", "colour": "mean 0"}[step]
    assert min(np.std(ours[moves]), np.std(theirs[moves])) > 1e-3


def test_whole_images_in_their_own_size() -> None:
    image, mask = sample("uint8", 3)
    for augment in pipelines(size=None, colour=0.0, flip=0.0, scale=[1.0, 1.0]):
        assert np.array_equal(augment(image, mask, 0)[0], image)
    ours, theirs = (told(augment, image, mask) for augment in pipelines(size=None, colour=0.0))
    assert ks_2samp(ours["shown"], theirs["shown"]).pvalue > 1e-3
    assert set(ours["padding"]) == set(theirs["padding"]) == {0.0}
