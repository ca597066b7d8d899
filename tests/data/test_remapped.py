"""Datasets in another label space, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest

from fcnseg.data import CityScenes, Remapped, SegmentationData, SynthiaRand, SynthiaRandCityscapes
from fcnseg.errors import InputError
from fcnseg.label_spaces import CITYSCAPES13
from tests.data import layouts

SIZE = (5, 46)


def test_every_pixel_becomes_the_class_of_its_name(tmp_path: Path) -> None:
    whole = SynthiaRandCityscapes(layouts.synthia_rand_cityscapes(tmp_path, 2, SIZE), "all")
    mapped = Remapped(whole, "cityscapes13")
    # SYNTHIA's ids to the position in the 13 classes, as results from SYNTHIA to Cityscapes are scored.
    by_id = {3: 0, 4: 1, 2: 2, 15: 3, 9: 4, 6: 5, 1: 6, 10: 7, 17: 8, 8: 9, 19: 10, 12: 11, 11: 12}
    for index in range(2):
        image, mask, name = mapped[index]
        ids = layouts.striped(range(23), *SIZE, turn=index)
        for y, x in np.ndindex(*SIZE):
            assert mask[y, x] == by_id.get(int(ids[y, x]), 255)
        assert mask.dtype == np.uint8
        assert np.array_equal(mapped.mask(index), mask)
        assert np.array_equal(image, whole[index][0])
        assert name == whole.name(index)
    assert mapped.label_space is CITYSCAPES13
    assert len(mapped) == 2
    assert mapped.mapping.ignored == (
        "fence", "pole", "parking slot", "road work", "terrain", "truck", "train", "wall", "lane marking",
    )  # fmt: skip


def test_extra_joins_and_ignores_classes(tmp_path: Path) -> None:
    whole = SynthiaRand(layouts.synthia_rand(tmp_path, 1, SIZE), "all")
    plain = Remapped(whole, "street11").mask(0)
    mapped = Remapped(whole, "street11", extra={"sky": None, "car": "road"}).mask(0)
    assert (plain == 0).sum() == (whole.mask(0) == 0).sum() > 0
    assert np.array_equal(mapped, np.where(plain == 0, 255, np.where(plain == 8, 3, plain)))


def test_aliases_replace_the_default_ones(tmp_path: Path) -> None:
    whole = SynthiaRand(layouts.synthia_rand(tmp_path, 1, SIZE), "all")
    assert "sidewalk" in Remapped(whole, "street11", aliases={}).mapping.ignored
    by_hand = Remapped(whole, "street11", aliases={"sidewalk": ["footway", "pavement"]})
    assert by_hand.mapping.ignored == ("vegetation", "traffic sign", "cyclist", "lane marking", "traffic light")


def test_real_and_synthetic_share_batches(tmp_path: Path) -> None:
    synthetic = Remapped(SynthiaRand(layouts.synthia_rand(tmp_path, 2, (6, 26)), "all"), "street11")
    real = CityScenes(2, look="real", size=(6, 26))
    data = SegmentationData({"real": real, "synthetic": synthetic}, real, size=(6, 26), batch_size=2, num_workers=0)
    batch = next(iter(data.train_dataloader()))
    assert batch["mask"].shape == (2, 6, 26)
    with pytest.raises(InputError, match="has label space 'synthia'"):
        SegmentationData({"synthetic": synthetic.dataset}, real, size=(6, 26))


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    whole = SynthiaRand(layouts.synthia_rand(tmp_path, 1, SIZE), "all")
    with pytest.raises(InputError, match="label space 'cityscape19' is unknown; expected one of cityscapes19"):
        Remapped(whole, "cityscape19")
    with pytest.raises(InputError, match="label space synthia has no class 'lane markings'; expected one of lane mark"):
        Remapped(whole, "street11", extra={"lane markings": "road"})
    with pytest.raises(InputError, match="label space street11 has no class 'roads'; expected one of road"):
        Remapped(whole, "street11", extra={"lane marking": "roads"})
