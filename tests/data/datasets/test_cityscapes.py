"""Cityscapes in its true layout, against the table in torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torchvision

from fcnseg.data import Cityscapes
from fcnseg.errors import InputError
from tests.data import layouts

SIZE = (3, 40)
CLASSES = torchvision.datasets.Cityscapes.classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layouts.cityscapes(tmp_path, {"train/aachen": 2, "train/zurich": 1, "val/lindau": 1}, SIZE)


def test_a_split_holds_all_its_cities(root: Path) -> None:
    train, val = Cityscapes(root), Cityscapes(root, "val")
    assert layouts.names(train) == ["aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019"]
    assert layouts.names(val) == ["lindau_000000_000019"]
    image, mask, name = train[1]
    assert name == "aachen_000001_000019"
    assert np.array_equal(image, layouts.noise(*SIZE, 1))
    train_id = {c.id: c.train_id for c in CLASSES}
    expected = np.vectorize(train_id.__getitem__)(layouts.striped(range(34), *SIZE, turn=1))
    assert np.array_equal(mask, expected)


def test_train_ids_give_the_same_masks(root: Path) -> None:
    train_id = {c.id: c.train_id for c in CLASSES}
    ids = layouts.striped(range(34), *SIZE).astype(np.uint8)
    path = root / "gtFine" / "val" / "lindau" / "lindau_000000_000019_gtFine_labelTrainIds.png"
    layouts.save(np.vectorize(train_id.__getitem__)(ids).astype(np.uint8), path)
    by_train_id = Cityscapes(root, "val", labels="trainIds")
    assert list(by_train_id.labels) == [path]
    assert np.array_equal(by_train_id.mask(0), Cityscapes(root, "val").mask(0))
    assert by_train_id.label_space.classes == Cityscapes(root, "val").label_space.classes


def test_missing_parts_are_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"lindau_000000_000019_gtFine_labelTrainIds.png: no such label file$"):
        Cityscapes(root, "val", labels="trainIds")
    with pytest.raises(InputError, match=r"no such label file \(3 of 3 labels are missing\)"):
        Cityscapes(root, "train", labels="trainIds")
    with pytest.raises(InputError, match="cityscapes: labels 'color'; expected one of ids, trainIds, coarse"):
        Cityscapes(root, labels="color")
    with pytest.raises(InputError, match="cityscapes: split 'vall'; expected one of train, val, test, train_extra"):
        Cityscapes(root, "vall")
    (root / "leftImg8bit" / "val").rename(root / "leftImg8bit" / "vall")
    with pytest.raises(InputError, match="val: no such folder; did you mean vall"):
        Cityscapes(root, "val")
    (root / "leftImg8bit" / "vall").rename(root / "leftImg8bit" / "val")
    for path in (root / "leftImg8bit" / "val" / "lindau").iterdir():
        path.rename(path.with_name(f".{path.name}"))  # as macOS and broken copies leave them
    with pytest.raises(InputError, match=r"val: no files named \*/\*_leftImg8bit.png"):
        Cityscapes(root, "val")


def test_coarse_labels_and_those_that_are_not_published(root: Path) -> None:
    layouts.tree(
        root,
        "leftImg8bit/train_extra/{city}/{city}_{number}_000019_leftImg8bit.png",
        "gtCoarse/train_extra/{city}/{city}_{number}_000019_gtCoarse_labelIds.png",
        [{"city": "bayreuth", "number": "000000"}, {"city": "troisdorf", "number": "000000"}],
        range(34), SIZE,
    )  # fmt: skip
    extra = Cityscapes(root, "train_extra")
    assert layouts.names(extra) == ["bayreuth_000000_000019", "troisdorf_000000_000019"]
    assert [path.parts[-4] for path in extra.labels] == ["gtCoarse"] * 2
    train_id = {c.id: c.train_id for c in CLASSES}
    assert np.array_equal(extra.mask(1), np.vectorize(train_id.__getitem__)(layouts.striped(range(34), *SIZE, 1)))

    layouts.tree(root, "leftImg8bit/test/berlin/{name}_leftImg8bit.png", None, [{"name": "berlin_0"}], (), SIZE)
    test = Cityscapes(root, "test")
    assert not test.labelled
    assert (test[0][1] == 255).all()
    with pytest.raises(
        InputError, match="cityscapes: the labels of split 'test' are not published; expected labels=none"
    ):
        Cityscapes(root, "test", labels="ids")
    assert layouts.names(Cityscapes(root, "train", "none")) == layouts.names(Cityscapes(root, "train"))
    assert (Cityscapes(root, "train", "none").mask(0) == 255).all()
