"""CamVid in its true layouts, with tiny files and, where it is at hand, with the real ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnseg.data.datasets.camvid import CamVid, CamVid32, camvid32_as_street11
from fcnseg.errors import InputError
from fcnseg.label_spaces import CAMVID32
from fcnseg.labels import STREET11
from tests.data import layouts

REAL = Path(__file__).parents[4] / "shared" / "data" / "camvid"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CamVid in {REAL}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training images and one for validation, 4x3 pixels, with all 12 label values."""
    for split, names in (("train", ("0001TP_006690", "Seq05VD_f00000")), ("val", ("0016E5_07959",))):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            Image.fromarray(np.full((3, 4, 3), 50 + seed, np.uint8)).save(tmp_path / split / f"{name}.png")
            label = np.roll(np.arange(12, dtype=np.uint8), seed).reshape(3, 4)
            Image.fromarray(label).save(tmp_path / f"{split}annot" / f"{name}.png")
    return tmp_path


def test_a_split_is_its_folder_with_its_annotations(root: Path) -> None:
    train, val = CamVid(root), CamVid(str(root), "val")
    assert (len(train), len(val)) == (2, 1)
    assert train.label_space is STREET11
    image, mask, name = train[1]
    assert name == "Seq05VD_f00000"
    assert (image == 51).all()
    assert mask.tolist() == [[255, 0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
    assert val[0][2] == "0016E5_07959"


def test_a_wrong_layout_says_which_folder_is_missing(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        CamVid(root, "test")
    assert str(caught.value) == f"{root / 'test'}: no such folder"
    with pytest.raises(InputError, match="vall: no such folder; did you mean val"):
        CamVid(root, "vall")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        CamVid(root / "nowhere")
    (root / "trainannot").rename(root / "train_labels")
    with pytest.raises(InputError, match="trainannot: no such folder; did you mean valannot, train"):
        CamVid(root)


@real_data
def test_the_real_release_has_its_367_and_101_images() -> None:
    train, val = CamVid(REAL, "train"), CamVid(REAL, "val")
    assert (len(train), len(val)) == (367, 101)
    assert not {path.name for path in train.images} & {path.name for path in val.images}
    for dataset in (train, val):
        assert [p.name for p in dataset.images] == [p.name for p in dataset.labels]


@real_data
@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 366), ("val", 50)])
def test_a_real_mask_has_the_files_pixels(split: str, index: int) -> None:
    dataset = CamVid(REAL, split)
    image, mask, name = dataset[index]
    with Image.open(REAL / split / f"{name}.png") as file:
        assert np.array_equal(image, np.asarray(file))
    with Image.open(REAL / f"{split}annot" / f"{name}.png") as file:
        values = np.asarray(file)
    assert image.shape == (360, 480, 3)
    assert mask.shape == values.shape == (360, 480)
    for value in range(11):
        assert np.count_nonzero(mask == value) == np.count_nonzero(values == value)
    assert np.count_nonzero(mask == 255) == np.count_nonzero(values == 11) > 0
    assert (values == 3).sum() > 10_000  # a street is mostly road


# The original release

SIZE = (2, 32)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    lists = {"train": ("0001TP_006690", "Seq05VD_f00000"), "val": ("0016E5_07959",)}
    return layouts.camvid32(tmp_path, lists, SIZE)


def test_the_original_has_32_colours(original: Path) -> None:
    train, everything = CamVid32(original), CamVid32(original, "all")
    assert layouts.names(train) == ["0001TP_006690", "Seq05VD_f00000"]
    assert layouts.names(everything) == ["0001TP_006690", "0016E5_07959", "Seq05VD_f00000"]
    mask = train.mask(0)
    for column, (name, colour, _) in enumerate(layouts.CAMVID32):
        if name == "Void":
            assert (mask[:, column] == 255).all()
        else:
            assert [CAMVID32.classes[i] for i in mask[:, column]] == [name, name]
            assert CAMVID32.palette[mask[0, column]] == colour


def test_the_11_classes_are_segnets_grouping(original: Path) -> None:
    dataset = camvid32_as_street11(original)
    assert dataset.label_space is STREET11
    mask = dataset.mask(0)
    for column, (_, _, group) in enumerate(layouts.CAMVID32):
        assert (mask[:, column] == (255 if group is None else STREET11.classes.index(group))).all()
    assert not dataset.mapping.missing


def test_the_original_sorted_into_folders(original: Path, tmp_path: Path) -> None:
    expected = CamVid32(original, "val").mask(0)
    for split in ("train", "val"):
        for name in (original / f"{split}.txt").read_text().split():
            for source, target in (
                (f"701_StillsRaw_full/{name}.png", f"{split}/{name}.png"),
                (f"LabeledApproved_full/{name}_L.png", f"{split}_labels/{name}_L.png"),
            ):
                (tmp_path / "sorted" / target).parent.mkdir(parents=True, exist_ok=True)
                (original / source).rename(tmp_path / "sorted" / target)
    dataset = CamVid32(tmp_path / "sorted", "val")
    assert layouts.names(dataset) == ["0016E5_07959"]
    assert np.array_equal(dataset.mask(0), expected)
    with pytest.raises(InputError, match=r"neither a list test.txt nor a folder test; all images are split=all"):
        CamVid32(tmp_path / "sorted", "test")


def test_what_the_original_misses_is_named(original: Path) -> None:
    layouts.save(np.array([[(1, 2, 3)] * 32] * 2, np.uint8), original / "LabeledApproved_full/0016E5_07959_L.png")
    with pytest.raises(InputError, match=r"0016E5_07959_L.png: .*\(1, 2, 3\)"):
        CamVid32(original, "val")[0]
    (original / "LabeledApproved_full/0016E5_07959_L.png").unlink()
    with pytest.raises(InputError, match=r"0016E5_07959_L.png: no such label file"):
        CamVid32(original, "val")
    (original / "701_StillsRaw_full/0016E5_07959.png").unlink()
    with pytest.raises(InputError, match=r"0016E5_07959.png: no such image, but .*val.txt names it"):
        CamVid32(original, "val")
