"""Images without labels: which are found, and masks that are ignored everywhere."""

from pathlib import Path

import numpy as np
import pytest

from fcnseg.data import Remapped, Subset, Unlabelled, Windows
from fcnseg.errors import InputError
from tests.data import layouts


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.jpg", "b/c/3.png"):
        layouts.save(layouts.noise(4, 6, 1), tmp_path / name)
    (tmp_path / "list.txt").write_text("b/c/3.png\na/1.png\n\n")
    return tmp_path


def test_folders_patterns_and_lists_of_images(pictures: Path) -> None:
    def found(images: object, **options: bool) -> list[str]:
        return layouts.names(Unlabelled(images, "street11", **options))

    assert found(pictures / "a") == ["1", "2"]
    assert found(pictures, recursive=True) == ["1", "2", "3"]
    assert found(f"{pictures}/*/*.png") == ["1"]
    assert found(str(pictures / "list.txt")) == ["3", "1"]
    assert found([pictures / "a" / "2.jpg"]) == ["2"]


def test_masks_without_labels_are_ignored_everywhere(pictures: Path) -> None:
    dataset = Unlabelled(pictures / "a", "street11")
    image, mask, name = dataset[0]
    assert (image.shape, mask.shape, mask.dtype, name) == ((4, 6, 3), (4, 6), np.uint8, "1")
    assert (mask == 255).all()
    assert (dataset.mask(1) == 255).all()
    assert not Subset(Remapped(dataset, "cityscapes19"), 0.5).labelled, "wrappers tell it as well"
    windows = Windows(dataset, (2, 3))
    assert len(windows) == 8
    assert (windows[0][1] == 255).all()
    assert not windows.labelled
    with pytest.raises(InputError, match=r"by_class=0.5: the images have no labels to draw by; expected 0"):
        Windows(dataset, (2, 3), by_class=0.5)


def test_missing_images_are_named(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"images: an empty list; expected at least one image"):
        Unlabelled([], "street11")
    with pytest.raises(InputError, match=r"4.png: no such image"):
        Unlabelled([pictures / "4.png"], "street11")
    with pytest.raises(InputError, match=r"none.txt: neither a folder of images nor a list of their paths"):
        Unlabelled(pictures / "none.txt", "street11")
