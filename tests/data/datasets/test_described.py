"""dataset.yaml: what is written is what is read, and whatever changed since is noticed."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fcnseg.data.datasets.described import Described, read_description
from fcnseg.data.inspection.description import describe, write_description
from fcnseg.data.inspection.pairing import pair_folders
from fcnseg.data.inspection.report import inspect
from fcnseg.data.inspection.samples import InspectedSplit
from fcnseg.data.storage.cache import DiskCached
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

SPACE = LabelSpace("two", ("road", "sky"), ((9, 8, 7), (1, 2, 3)), ids=(4, 2), ignored_ids=(0,))


def write_pairs(root: Path, split: str, count: int, channels: int = 3) -> InspectedSplit:
    """Noise images with labels of 0, 2 and 4."""
    images, labels = root / split / "images", root / split / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for i in range(count):
        rng = np.random.default_rng([len(split), i])
        shape = (6, 5 + i, 3)[: 2 + (channels == 3)]
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(images / f"é {i}.png")
        Image.fromarray(rng.choice([0, 2, 4], (6, 5 + i)).astype(np.uint8)).save(labels / f"é {i}.png")
    return pair_folders(images, labels, SPACE, split, channels=channels)


def write(root: Path, channels: int = 3) -> Path:
    parts = [write_pairs(root, "train", 4, channels), write_pairs(root, "val", 2, channels)]
    inspection = inspect(parts, checksums=True, workers=1)
    facts = {part.name: [f for f in inspection.facts if f.split == part.name] for part in parts}
    write_description(describe(inspection, facts, {"channels": channels}, {"seed": 0}), root / "dataset.yaml")
    return root / "dataset.yaml"


@pytest.fixture
def described(tmp_path: Path) -> Path:
    return write(tmp_path / "set")


def test_samples_are_those_of_the_files(described: Path) -> None:
    dataset = Described(described, "train")
    assert len(dataset) == 4
    assert dataset.label_space == SPACE
    for i in range(4):
        image, mask, name = dataset[i]
        folder = described.parent / "train"
        values = np.asarray(Image.open(folder / "labels" / f"é {i}.png"))
        assert name == f"é {i}"
        assert np.array_equal(image, np.asarray(Image.open(folder / "images" / f"é {i}.png")))
        assert np.array_equal(mask, np.select([values == 4, values == 2], [0, 1], 255))
    assert len(Described(described.parent, "val")) == 2, "its folder stands for the file"


def test_channels_mean_and_std_are_those_of_the_training_images(tmp_path: Path) -> None:
    for channels in (1, 3):
        dataset = Described(write(tmp_path / str(channels), channels), "val")
        folder = tmp_path / str(channels) / "train" / "images"
        pixels = np.concatenate([np.asarray(Image.open(p)).reshape(-1, channels) for p in sorted(folder.iterdir())])
        assert dataset.channels == channels
        assert dataset.mean == pytest.approx(pixels.mean(axis=0), rel=0.01)
        assert dataset.std == pytest.approx(pixels.std(axis=0), rel=0.01)


def test_the_file_counts_classes_and_sums_as_other_tools_do(described: Path) -> None:
    text = yaml.safe_load(described.read_text(encoding="utf-8"))
    train = text["splits"]["train"]
    labels = [np.asarray(Image.open(described.parent / pair["label"])) for pair in train["pairs"]]
    for name, value in (("road", 4), ("sky", 2)):
        assert train["classes"][name]["pixels"] == sum(int((mask == value).sum()) for mask in labels)
        assert train["classes"][name]["images"] == sum(value in mask for mask in labels)
    assert train["ignored_pixels"] == sum(int((mask == 0).sum()) for mask in labels)
    assert train["sizes"] == {"5x6": 1, "6x6": 1, "7x6": 1, "8x6": 1}
    for pair in train["pairs"]:
        for what in ("image", "label"):
            assert not Path(pair[what]).is_absolute()
            assert pair[f"{what}_sha256"] == hashlib.sha256((described.parent / pair[what]).read_bytes()).hexdigest()


def test_the_folder_can_move_as_a_whole(described: Path, tmp_path: Path) -> None:
    before = Described(described, "train")[3][0]
    os.rename(described.parent, tmp_path / "elsewhere")
    assert np.array_equal(Described(tmp_path / "elsewhere" / "dataset.yaml", "train", verify=True)[3][0], before)


def test_files_outside_the_folder_are_found_through_links(tmp_path: Path) -> None:
    write(tmp_path / "real")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    part = pair_folders(tmp_path / "real/train/images", tmp_path / "real/train/labels", SPACE, "train")
    inspection = inspect([part], checksums=True, workers=1)
    facts = {"train": list(inspection.facts)}
    write_description(describe(inspection, facts, {"channels": 3}, {}), tmp_path / "link" / "dataset.yaml")
    assert len(Described(tmp_path / "link" / "dataset.yaml", verify=True, outside=True)) == 4
    assert len(Described(tmp_path / "a" / "b", verify=True, outside=True)) == 4
    with pytest.raises(InputError, match=r"b/dataset\.yaml: names .*real/train/images/é 0\.png, which lies outside"):
        Described(tmp_path / "a" / "b")


@pytest.mark.parametrize("place", ["/etc/hosts", "../train/images/é 0.png", "train/../../x.png", "//host/share/x.png"])
@pytest.mark.parametrize("what", ["image", "label"])
def test_a_description_names_files_of_its_folder_alone_unless_allowed(described: Path, place: str, what: str) -> None:
    description = yaml.safe_load(described.read_text(encoding="utf-8"))
    description["splits"]["train"]["pairs"][2][what] = place
    described.write_text(yaml.safe_dump(description), encoding="utf-8")
    for path in (described, Path(os.path.relpath(described))):
        with pytest.raises(InputError) as error:
            Described(path)
        assert str(error.value).startswith(f"{path}: names ")
        assert f"{place}, which lies outside of its folder" in str(error.value)
        assert "outside=true" in str(error.value)
    assert len(Described(described, check=False, outside=True)) == 4
    assert len(Described(described, "val")) == 2


def test_links_and_whole_paths_within_the_folder_are_of_it(described: Path, tmp_path: Path) -> None:
    """Links lie in the folder because somebody on this machine has put them there."""
    (described.parent / "train" / "images").rename(tmp_path / "elsewhere")
    (described.parent / "train" / "images").symlink_to(tmp_path / "elsewhere")
    description = yaml.safe_load(described.read_text(encoding="utf-8"))
    pair = description["splits"]["train"]["pairs"][0]
    pair["label"] = str(described.parent / pair["label"])
    described.write_text(yaml.safe_dump(description), encoding="utf-8")
    assert len(Described(described, verify=True)) == 4


def test_a_missing_file_is_named(described: Path) -> None:
    missing = described.parent / "train" / "labels" / "é 1.png"
    missing.unlink()
    with pytest.raises(InputError) as error:
        Described(described)
    assert str(error.value) == f"{missing}: no such file, but {described} names it"
    (described.parent / "train" / "images" / "é 0.png").unlink()
    with pytest.raises(InputError, match=r"é 0\.png.*\(2 files are missing\)"):
        Described(described)
    assert len(Described(described, check=False)) == 4
    assert len(Described(described, "val")) == 2


def test_changed_files_are_found_on_demand_and_by_an_inspection(described: Path) -> None:
    changed = described.parent / "val" / "images" / "é 0.png"
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(changed)
    assert len(Described(described, "val")) == 2
    Described(described, "train", verify=True)
    with pytest.raises(InputError, match="changed since it was described"):
        Described(described, "val", verify=True)
    inspection = inspect([InspectedSplit(split, Described(described, split)) for split in ("train", "val")], smallest=1)
    assert {f.kind: [p.file for p in f.problems] for f in inspection.findings} == {
        "constant image": [str(changed)],
        "changed file": [str(changed)],
        "sizes vary": [f.image for f in inspection.facts if f.size not in ((6, 5),)],
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "version 2; this fcnseg reads version 1"),
        ("format: fcnseg dataset", "format: other", "no description of a dataset"),
        ("splits:", "splitz:", "splits is missing"),
        ("label_space:", "label_spase:", "label_space is missing"),
        ("format:", "format: [", "cannot be read as YAML"),
        ("image_sha256", "image_sha1", "split 'train' has no sound list of pairs"),
        ("ids: [4, 2]", "ids: [4, 4]", "id 4 means two things"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(described: Path, old: str, new: str, message: str) -> None:
    text = described.read_text(encoding="utf-8")
    assert old in text
    described.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as error:
        Described(described)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_missing_is_named(described: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        Described(described, "test")
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file; fcnseg data create writes one"):
        Described(tmp_path / "nowhere.yaml")


def test_a_name_that_is_no_utf8_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    part = write_pairs(tmp_path, "train", 2)
    for folder in ("images", "labels"):
        path = tmp_path / "train" / folder / "é 0.png"
        path.rename(path.with_name(os.fsdecode(b"\xe9.png")))
    part = pair_folders(tmp_path / "train/images", tmp_path / "train/labels", SPACE, "train")
    inspection = inspect([part], checksums=True, workers=1)
    description = describe(inspection, {"train": list(inspection.facts)}, {"channels": 3}, {})
    with pytest.raises(InputError, match="no UTF-8; rename the file"):
        write_description(description, tmp_path / "out" / "dataset.yaml")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_described_dataset_can_be_cached(described: Path, tmp_path: Path) -> None:
    dataset = Described(described)
    cached = DiskCached(dataset, tmp_path / "cache")
    assert all(np.array_equal(cached[i][0], dataset[i][0]) for i in range(4))


def test_descriptions_read_back_as_they_were(described: Path) -> None:
    description = read_description(described)
    assert description["label_space"] == SPACE.to_dict()
    assert description["settings"] == {"seed": 0}
    assert description["left_out"] == []
