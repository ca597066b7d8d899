"""KITTI's semantic benchmark in its true layout."""

from pathlib import Path

import numpy as np
import pytest
import torchvision

from fcnseg.data import Kitti
from fcnseg.errors import InputError
from tests.data import layouts

SIZE = (2, 36)


def test_labels_have_the_ids_of_cityscapes(tmp_path: Path) -> None:
    dataset = Kitti(layouts.kitti(tmp_path, 3, SIZE), "all")
    image, mask, name = dataset[2]
    assert name == "000002_10"
    assert np.array_equal(image, layouts.noise(*SIZE, 2))
    train_id = {c.id: c.train_id for c in torchvision.datasets.Cityscapes.classes}
    assert np.array_equal(mask, np.vectorize(train_id.__getitem__)(layouts.striped(range(34), *SIZE, turn=2)))


def test_the_default_split_takes_40_of_200(tmp_path: Path) -> None:
    root = layouts.kitti(tmp_path, 200, (1, 1))
    train, val = Kitti(root, "train"), Kitti(root, "val")
    assert (len(train), len(val)) == (160, 40)
    assert not set(layouts.names(train)) & set(layouts.names(val))
    tens = {int(name[:6]) // 10 for name in layouts.names(val)}
    assert len(tens) == 4, "whole blocks of ten"
    with pytest.raises(InputError, match="split 'test': expected train, val or all"):
        Kitti(root, "test")
