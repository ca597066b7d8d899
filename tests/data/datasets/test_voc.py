"""PASCAL VOC and SBD in their true layouts, and the validation images of the reference FCNs."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from fcnseg.data import Sbd, Voc
from fcnseg.data.datasets.voc import difference
from fcnseg.data.files.listing import read_names
from fcnseg.data.files.matlab import unpacked_size
from fcnseg.errors import InputError
from tests.data import layouts

SIZE = (3, 30)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    lists = {"train": ("2007_000032", "2007_000039"), "val": ("2007_000033", "2007_000042", "2011_003276")}
    return layouts.voc(tmp_path / "VOCdevkit" / "VOC2012", lists, SIZE)


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    lists = {"train": ("2008_000002", "2007_000042"), "val": ("2008_000003",)}
    return layouts.sbd(tmp_path / "benchmark_RELEASE" / "dataset", lists, SIZE)


def test_voc_reads_palette_indices_with_boundaries_ignored(voc: Path) -> None:
    dataset = Voc(voc, "val")
    assert layouts.names(dataset) == ["2007_000033", "2007_000042", "2011_003276"]
    image, mask, _ = dataset[1]
    assert image.shape == (*SIZE, 3)
    assert np.array_equal(mask, layouts.striped([*range(21), 255], *SIZE, turn=1))
    assert [layouts.names(Voc(folder)) for folder in (voc, voc.parent, voc.parents[1])] == [
        ["2007_000032", "2007_000039"]
    ] * 3


def test_sbd_masks_are_those_of_torchvision(sbd: Path) -> None:
    dataset = Sbd(sbd, "train")
    reference = torchvision.datasets.SBDataset(str(sbd), "train", mode="segmentation")
    assert layouts.names(dataset) == ["2008_000002", "2007_000042"]
    for index in range(2):
        assert np.array_equal(dataset.mask(index), np.asarray(reference[index][1]))
        assert np.array_equal(dataset[index][0], np.asarray(reference[index][0]))
    assert [len(Sbd(folder, "val")) for folder in (sbd, sbd.parent, sbd.parents[1])] == [1, 1, 1]


def test_seg11valid_is_val_without_sbds_train(voc: Path, sbd: Path) -> None:
    assert layouts.names(Voc(voc, "val", exclude=sbd / "train.txt")) == ["2007_000033", "2011_003276"]
    assert layouts.names(Sbd(sbd, exclude=[str(voc / "ImageSets/Segmentation/val.txt")])) == ["2008_000002"]
    both = [sbd / "train.txt", voc / "ImageSets/Segmentation/val.txt"]
    with pytest.raises(InputError, match=r"val.txt: no name is left without those of .*train.txt, .*val.txt"):
        Voc(voc, "val", exclude=both)


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30)))
def test_the_difference_keeps_order_and_is_a_set_difference(names: list[int], excluded: list[int]) -> None:
    kept = difference(map(str, names), map(str, excluded))
    assert set(kept) == {str(n) for n in set(names) - set(excluded)}
    assert kept == [str(n) for n in names if str(n) in kept]


def test_lists_may_have_columns_folders_and_endings(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("2007_000032 1\n\n/JPEGImages/2007_000039.jpg /SegmentationClass/2007_000039.png\nframe_0.5\n")
    assert read_names(path) == ["2007_000032", "2007_000039", "frame_0.5"]


def test_a_list_of_ones_own(voc: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("2011_003276\n2007_000032\n")
    assert layouts.names(Voc(voc, tmp_path / "mine.txt")) == ["2011_003276", "2007_000032"]
    assert layouts.names(Voc(voc, str(tmp_path / "mine.txt"))) == ["2011_003276", "2007_000032"]


def test_missing_parts_are_named(voc: Path, sbd: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trainaug.txt: cannot be read as a list of names"):
        Voc(voc, "trainaug")
    (voc / "ImageSets/Segmentation/empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"empty.txt: an empty list"):
        Voc(voc, "empty")
    with pytest.raises(InputError, match="no folder cls in it, nor in dataset or benchmark_RELEASE/dataset below it"):
        Sbd(voc)
    (voc / "JPEGImages" / "2007_000039.jpg").unlink()
    with pytest.raises(InputError, match=r"2007_000039.jpg: no such image, but .*train.txt names it"):
        Voc(voc)
    (voc / "SegmentationClass" / "2007_000033.png").unlink()
    with pytest.raises(InputError, match=r"2007_000033.png: no such label file"):
        Voc(voc, "val")


def test_a_label_that_unpacks_to_too_much_is_refused_before_it_is(sbd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros, a thousand times smaller when packed than the limit allows."""
    path = sbd / "cls" / "2008_000003.mat"
    label = {"GTcls": {"Segmentation": np.zeros((3000, 1000), np.uint8)}}
    for packed in (True, False):
        savemat(path, label, do_compression=packed)
        monkeypatch.setenv("FCNSEG_MAX_BYTES", "4000000")
        assert unpacked_size(path, 10**9) == pytest.approx(3e6, rel=0.01)
        monkeypatch.setenv("FCNSEG_MAX_BYTES", "2999999")
        monkeypatch.setattr("scipy.io.loadmat", lambda _: pytest.fail("unpacked"))
        with pytest.raises(InputError, match=r"2008_000003.mat: cannot be read as a label of SBD \(it takes \d+ bytes"):
            Sbd(sbd, "val").read_values(path)


@pytest.mark.parametrize("content", ["nothing", "cut", "other", "wrong"])
def test_a_damaged_label_of_sbd_is_named(sbd: Path, content: str) -> None:
    path = sbd / "cls" / "2008_000003.mat"
    if content in ("other", "wrong"):
        savemat(path, {"other": 1} if content == "other" else {"GTcls": {"Segmentation": np.ones((2, 2))}})
    else:
        path.write_bytes(path.read_bytes()[: 300 if content == "cut" else 0])
    with pytest.raises(InputError) as caught:
        Sbd(sbd, "val")[0]
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
