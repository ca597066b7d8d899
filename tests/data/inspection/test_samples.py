"""What the facts of a pair rest on: class counts, hashes, and pictures of images of any kind."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnseg.data import CityScenes
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.display import displayable
from fcnseg.data.inspection.report import inspect
from fcnseg.data.inspection.samples import InspectedSplit, digest, perceptual_hash
from fcnseg.labels import LabelSpace


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[LabelSpace, list[np.ndarray]]:
    """A label space with ids anywhere, and masks of its values."""
    ids = draw(st.lists(st.integers(0, 300), min_size=2, max_size=6, unique=True))
    space = LabelSpace("any", tuple(map(str, ids[1:])), ((1, 2, 3),) * (len(ids) - 1), tuple(ids[1:]), (ids[0],))
    count = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sides = [(int(h), int(w)) for h, w in rng.integers(1, 9, (count, 2))]
    return space, [rng.choice(ids[: rng.integers(1, len(ids) + 1)], side).astype(np.uint16) for side in sides]


@settings(max_examples=25, deadline=None)
@given(datasets())
def test_class_frequencies_are_those_of_brute_force(dataset: tuple[LabelSpace, list[np.ndarray]]) -> None:
    space, masks = dataset
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, mask in enumerate(masks):
            Image.fromarray(noise(i, *mask.shape, 3)).save(folder / f"image{i}.png")
            Image.fromarray(mask).save(folder / f"label{i}.png")
        files = [[folder / f"{what}{i}.png" for i in range(len(masks))] for what in ("image", "label")]
        inspection = inspect([InspectedSplit("train", Pairs(*files, space))], workers=1)
    expected = [
        [sum(int(v == i) for m in masks for v in m.ravel()), sum(i in m for m in masks)] for i in space.ids
    ]  # fmt: skip
    assert inspection.frequencies["train"].tolist() == expected
    assert sum(f.ignored for f in inspection.facts) == sum(int((m == space.ignored_ids[0]).sum()) for m in masks)


def test_near_duplicates_survive_another_size_and_format(tmp_path: Path) -> None:
    scenes = CityScenes(6, 0, "real", (120, 160))
    looks = [perceptual_hash(scenes[i][0]) for i in range(6)]
    for i in range(6):
        picture = Image.fromarray(scenes[i][0])
        picture.resize((80, 60)).save(tmp_path / "small.jpg", quality=80)
        again = perceptual_hash(np.asarray(Image.open(tmp_path / "small.jpg")))
        assert (again ^ looks[i]).bit_count() <= 4
    assert min((a ^ b).bit_count() for i, a in enumerate(looks) for b in looks[:i]) > 4


def test_pixels_of_another_shape_or_type_are_no_duplicates() -> None:
    pixels = noise(0, 4, 6, 1)
    assert digest(pixels) == digest(np.asfortranarray(pixels))
    others = (pixels.reshape(6, 4, 1), pixels.view(np.int8), pixels.reshape(4, 2, 3), pixels ^ 1)
    assert digest(pixels) not in map(digest, others)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint16), (7, np.float32)])
def test_images_of_any_kind_can_be_shown(channels: int, dtype: type) -> None:
    shown = displayable((noise(0, 8, 9, channels) * (1 if dtype is np.uint8 else 9)).astype(dtype))
    assert shown.shape == (8, 9, 3)
    assert shown.dtype == np.uint8
    assert np.ptp(shown) > 200
