"""Crops around rare classes, and their objects pasted from other images: how often, where, and always the same."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.data.pasting import Paste
from fcnseg.data.rare_crops import corner_around
from fcnseg.data.transforms import street_pipeline
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from tests.data.test_both_pipelines import pipelines

SIZE, POLE, SIGN, SKY = (24, 36), 3, 5, 0
PLAIN = {"scale": [3.0, 3.0], "flip": 0.0, "colour": 0.0}
SPACE = LabelSpace("six", ("sky", "road", "car", "pole", "tree", "sign"), ((0, 0, 0),) * 6)


def frame() -> tuple[np.ndarray, np.ndarray]:
    """60x80 pixels of sky with 4 of a pole in one corner and one of a sign in another; colours tell places."""
    mask = np.full((60, 80), SKY, np.uint8)
    mask[2:6, 3] = POLE
    mask[57, 77] = SIGN
    ramp = np.stack(np.meshgrid(np.arange(80), np.arange(60)), axis=2)
    return np.concatenate([ramp, np.zeros((60, 80, 1), int)], axis=2).astype(np.uint8), mask


class Frames:
    """Five frames of one grey each; only the fourth one has rare classes: two poles and a sign."""

    label_space = SPACE

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        mask = np.full((40, 60), 1, np.uint8)
        if index == 3:
            mask[5:20, 4], mask[5:20, 40], mask[30:33, 50:54] = POLE, POLE, SIGN
        return np.full((40, 60, 3), 10 * index, np.uint8), mask, str(index)


def test_a_crop_around_a_class_lies_anywhere_that_holds_a_pixel_of_it() -> None:
    mask = np.zeros((7, 9), np.uint8)
    mask[2, 6] = POLE
    random = np.random.default_rng(0)
    corners = {corner_around(mask, [POLE, SIGN], (3, 4), lambda n: int(random.integers(n))) for _ in range(500)}
    expected = {(y, x) for y in range(5) for x in range(6) if (mask[y : y + 3, x : x + 4] == POLE).any()}
    assert corners == expected
    assert corner_around(mask, [SIGN], (3, 4), lambda n: 0) is None
    whole = corner_around(mask, [POLE], mask.shape, lambda n: 0)
    assert whole == (0, 0)


@pytest.mark.parametrize("number", [0, 1], ids=["albumentations", "torchvision"])
def test_so_many_crops_hold_a_rare_class_and_each_class_as_many(number: int) -> None:
    image, mask = frame()
    augment: Any = pipelines(rare_crops=1.0, **PLAIN)[number]
    augment.know_rare([POLE, SIGN])
    masks = [augment(image, mask, seed)[1] for seed in range(200)]
    assert all(np.isin(each, [POLE, SIGN]).any() for each in masks)
    assert 70 < sum(POLE in each for each in masks) < 130
    half: Any = pipelines(rare_crops=0.5, **PLAIN)[number]
    half.know_rare([SIGN])
    plain = pipelines(**PLAIN)[number]
    assert np.mean([SIGN in plain(image, mask, seed)[1] for seed in range(60)]) < 0.2
    assert 0.4 < np.mean([SIGN in half(image, mask, seed)[1] for seed in range(200)]) < 0.7


@pytest.mark.parametrize("number", [0, 1], ids=["albumentations", "torchvision"])
def test_image_and_mask_are_cropped_alike_and_by_the_seed_alone(number: int) -> None:
    image, mask = frame()
    image[..., 2] = mask
    augment: Any = pipelines(rare_crops=1.0, scale=[1.0, 1.0], resize="native", flip=0.0, colour=0.0)[number]
    augment.know_rare([POLE, SIGN])
    again = pickle.loads(pickle.dumps(augment))
    for seed in range(10):
        found, labels = augment(image, mask, seed)
        np.testing.assert_array_equal(found[..., 2], labels)
        np.testing.assert_array_equal(again(image, mask, seed)[0], found)


@pytest.mark.parametrize("number", [0, 1], ids=["albumentations", "torchvision"])
def test_where_there_is_no_rare_class_crops_are_random_ones(number: int) -> None:
    image, mask = frame()
    augment: Any = pipelines(rare_crops=1.0, scale=[1.0, 1.0], resize="native", flip=0.0, colour=0.0)[number]
    augment.know_rare([POLE])
    mask[mask == POLE] = 255
    corners = {tuple(augment(image, mask, seed)[0][0, 0, :2].tolist()) for seed in range(40)}
    assert len(corners) > 20


def test_pasted_objects_come_from_another_image_and_lie_where_they_lay_there() -> None:
    frames, paste = Frames(), Paste((POLE, SIGN), 1.0)
    image, mask, _ = frames[1]
    _, labels, _ = frames[3]
    found = [paste(image, mask, frames, 1, (0, 0, n, 2)) for n in range(60)]
    taken = []
    for pasted, changed in found:
        rare = np.isin(changed, (POLE, SIGN))
        assert (changed[~rare] == 1).all()
        assert (pasted[rare] == 30).all()
        assert (pasted[~rare] == 10).all()
        straight = all((labels == changed)[rare])
        assert straight or all((labels[:, ::-1] == changed)[rare])
        objects = (np.s_[5:20, 4], np.s_[5:20, 40], np.s_[30:33, 50:54])
        shown = changed if straight else changed[:, ::-1]
        taken.append([(shown[each] == frames[3][1][each]).all() for each in objects] if rare.any() else [])
    some = [each for each in taken if each]
    assert len(some) > 30, "of four looks one may find the frame"
    assert all(any(each) for each in some)
    assert {sum(each) for each in some} == {1, 2, 3}
    assert (image == 10).all()
    assert (mask == 1).all(), "the dataset's own arrays are left as they are"


def test_pasting_depends_on_its_seed_and_its_probability() -> None:
    frames = Frames()
    image, mask, _ = frames[0]
    some = [Paste((POLE,), 0.5)(image, mask, frames, 0, (7, 0, n, 2))[1] for n in range(80)]
    again = [Paste((POLE,), 0.5)(image, mask, frames, 0, (7, 0, n, 2))[1] for n in range(80)]
    assert all(np.array_equal(one, other) for one, other in zip(some, again, strict=True))
    changed = np.mean([POLE in each for each in some])
    assert 0.15 < changed < 0.5
    assert not any((Paste((POLE,), 0.0)(image, mask, frames, 0, (7, 0, n, 2))[1] != mask).any() for n in range(10))
    frames.labelled = False  # type: ignore[attr-defined]
    assert not any((Paste((POLE,), 1.0)(image, mask, frames, 0, (7, 0, n, 2))[1] != mask).any() for n in range(10))


def batches(workers: int = 0, replicas: int = 1, rank: int = 0, **options: Any) -> list[dict[str, torch.Tensor]]:
    scenes = {look: CityScenes(6, seed=1, look=look, size=(48, 64)) for look in ("real", "synthetic")}
    augment = street_pipeline(SIZE, rare_crops=options.pop("rare_crops", 0.0))
    data = SegmentationData(
        scenes, scenes["real"], size=SIZE, augment=augment, batch_size=4, num_workers=workers, allow_overlap=True,
        **options,
    )  # fmt: skip
    data._processes = lambda: (replicas, rank)  # type: ignore[method-assign]
    return list(data.train_dataloader())


def test_batches_are_the_same_with_workers_and_on_any_number_of_processes() -> None:
    options = {"rare_crops": 0.5, "paste": 0.7}
    plain, one, worker = batches(), batches(**options), batches(workers=1, **options)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(plain, one, strict=True))
    assert all(torch.equal(a[key], b[key]) for a, b in zip(one, worker, strict=True) for key in ("image", "mask"))
    parts = [batches(replicas=2, rank=rank, **options) for rank in range(2)]
    for whole, first, second in zip(one, *parts, strict=True):
        assert torch.equal(whole["image"][0::2], first["image"])
        assert torch.equal(whole["mask"][1::2], second["mask"])


def test_by_default_the_rarer_half_of_the_classes_is_rare() -> None:
    scenes = CityScenes(6, seed=1, look="real", size=(48, 64))
    pixels = np.bincount(np.concatenate([scenes[i][1].ravel() for i in range(6)]), minlength=256)[:11]
    present = pixels[pixels > 0]
    expected = [k for k in range(11) if 0 < pixels[k] < np.median(present)]
    augment = street_pipeline(SIZE, rare_crops=0.5)
    data = SegmentationData({"s": scenes}, scenes, size=SIZE, augment=augment, num_workers=0, allow_overlap=True)
    loader: Any = data.train_dataloader()
    assert list(augment._crops[0].classes) == expected
    assert loader.dataset.paste is None
    named = SegmentationData(
        {"s": scenes}, scenes, size=SIZE, paste=0.5, rare_classes=["pole", "fence"], num_workers=0, allow_overlap=True
    )
    loader = named.train_dataloader()
    assert [scenes.label_space.classes[k] for k in loader.dataset.paste.classes] == ["pole", "fence"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: street_pipeline(SIZE, rare_crops=2),
            r"data\.augment\.rare_crops=2: expected a probability from 0 to 1",
        ),
        (lambda: street_pipeline(None, rare_crops=0.5), r"data\.augment\.rare_crops=0\.5: nothing is cropped here"),
        (lambda: batches(paste=-1), r"data\.paste=-1: expected a probability from 0 to 1"),
        (
            lambda: batches(rare_classes=["poles"]),
            r"data\.rare_classes: no class 'poles'; expected names out of .*pole",
        ),
        (lambda: batches(rare_classes="pole"), r"data\.rare_classes=pole: expected a list of class names, or null"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
