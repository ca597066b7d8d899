"""Datasets by layout, shipped ones on tiny trees in the true layout."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
import yaml

from fcnseg.data import LaidOut, Remapped
from fcnseg.data.datasets.layout import SHIPPED, read_layout
from fcnseg.errors import InputError
from fcnseg.label_spaces import CITYSCAPES19
from tests.data import layouts

SIZE = (2, 160)
TRAIN_ID = {c.id: c.train_id for c in torchvision.datasets.Cityscapes.classes} | {34: 255}

pytestmark = pytest.mark.filterwarnings("ignore:.* images here, .* in its release")


def expected_mask(name: str, values: np.ndarray) -> np.ndarray:
    """The mask that a shipped layout's ids mean, by what their documentation says."""
    if name == "gta5":
        return np.vectorize(TRAIN_ID.__getitem__)(values)
    if name == "ade20k":
        return np.where(values == 0, 255, values - 1)
    unlabelled = {"mapillary": 65, "mapillary_v2.0": 123}.get(name, 255)
    return np.where(values == unlabelled, 255, values)


@pytest.mark.parametrize("name", layouts.TREES)
def test_shipped_layouts_read_the_true_ones(name: str, tmp_path: Path) -> None:
    root = layouts.gta5(tmp_path, 3, 2, SIZE) if name == "gta5" else layouts.plain_tree(name, tmp_path, 3, 2, SIZE)
    layout = {"mapillary": "mapillary_v1.2"}.get(name, name)
    train, val = LaidOut(layout, root), LaidOut(layout, root, "val")
    assert (len(train), len(val)) == (3, 2)
    assert not set(train.images) & set(val.images)
    image, mask, sample = train[1]
    assert image.shape == (*SIZE, 3)
    assert "00002" in sample
    values = layouts.striped(layouts.TREES[name][3], *SIZE, turn=1)
    assert np.array_equal(mask, expected_mask(name, values))
    assert len(LaidOut(layout, root, labels="none")) == 3


def test_numbers_of_classes_and_what_becomes_of_them() -> None:
    """Of Mapillary's 65 classes the 19 in the ids of the published conversion; IDD's terrain, and no train."""
    classes = {path.stem: next(iter(read_layout(path.stem).labels.values())).label_space for path in SHIPPED.iterdir()}
    counts = {name: space.num_classes for name, space in classes.items()}
    assert counts == {
        "acdc": 19, "ade20k": 150, "bdd100k": 19, "cityscapes": 19, "gta5": 19, "idd": 26, "mapillary_v1.2": 65,
        "mapillary_v2.0": 123,
    }  # fmt: skip
    published = {
        13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9, 27: 10, 19: 11,
        20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
    }  # fmt: skip
    space, extra = classes["mapillary_v1.2"], read_layout("mapillary_v1.2").becomes["cityscapes19"]
    assert space.mapping_to(CITYSCAPES19, extra=extra).indices == tuple(published.get(i, 255) for i in range(65))
    idd = classes["idd"].mapping_to(CITYSCAPES19, extra=read_layout("idd").becomes["cityscapes19"])
    assert idd.missing == ("train",)
    assert idd.indices[3] == CITYSCAPES19.classes.index("terrain")
    newer = classes["mapillary_v2.0"].mapping_to(
        CITYSCAPES19, extra=read_layout("mapillary_v2.0").becomes["cityscapes19"]
    )
    assert not newer.missing


def test_remapping_follows_what_a_layout_tells(tmp_path: Path) -> None:
    dataset = Remapped(LaidOut("mapillary_v1.2", layouts.plain_tree("mapillary", tmp_path, 1, 1, SIZE)), "cityscapes19")
    values = layouts.striped(range(66), *SIZE)
    rider = (values >= 20) & (values <= 22)
    assert np.array_equal(dataset.mask(0) == CITYSCAPES19.classes.index("rider"), rider)


def test_older_releases_and_other_kinds_of_labels(tmp_path: Path) -> None:
    layouts.tree(
        tmp_path, "seg/images/train/{name}.jpg", "seg/labels/train/{name}_train_id.png", layouts.numbered(2),
        range(19), SIZE,
    )  # fmt: skip
    assert layouts.names(LaidOut("bdd100k", tmp_path, labels="seg")) == ["00001", "00002"]
    layouts.tree(
        tmp_path, "training/images/{name}.jpg", "training/labels/{name}.png", layouts.numbered(1), range(66), SIZE
    )
    assert LaidOut("mapillary_v1.2", tmp_path, labels="v1.1").mask(0).max() == 255
    layouts.tree(
        tmp_path, "leftImg8bit/train/{drive}/{name}_leftImg8bit.jpg",
        "gtFine/train/{drive}/{name}_gtFine_labelcsTrainIds.png",
        [*layouts.numbered(1, drive="7"), *layouts.numbered(1, drive="8")], range(19), SIZE,
    )  # fmt: skip
    idd = LaidOut("idd", tmp_path, labels="csTrainIds")
    assert layouts.names(idd) == ["7_00001", "8_00001"], "frames of two drives may have one number"


def test_conditions_and_reference_frames_of_acdc(tmp_path: Path) -> None:
    for weather in ("fog", "night", "snow"):
        images, labels, _, values = layouts.TREES["acdc"]
        layouts.tree(tmp_path, images, labels, layouts.numbered(2, split="train", weather=weather), values, SIZE)
        reference = images.replace("_rgb_anon.png", "_rgb_ref_anon.png").replace("{split}", "train_ref")
        layouts.tree(tmp_path, reference, None, layouts.numbered(2, weather=weather), (), SIZE)
    assert len(LaidOut("acdc", tmp_path)) == 6
    assert len(LaidOut("acdc", tmp_path, only={"condition": ["fog", "n*"]})) == 4
    fair = LaidOut("acdc", tmp_path, "train_ref", only={"condition": "snow"})
    assert (len(fair), fair.labelled) == (2, False)
    with pytest.raises(InputError, match="no condition fits rain; there are fog, night, snow"):
        LaidOut("acdc", tmp_path, only={"condition": "rain"})
    with pytest.raises(InputError, match="no field 'weather'; expected one of condition, sequence, name"):
        LaidOut("acdc", tmp_path, only={"weather": "rain"})
    with pytest.raises(InputError, match=r"only=night: expected a mapping such as {condition: pattern}"):
        LaidOut("acdc", tmp_path, only="night")  # type: ignore[arg-type]


def test_pairs_of_two_sizes_and_damaged_frames_of_gta5_are_left_out(tmp_path: Path) -> None:
    root = layouts.gta5(tmp_path, 4, 1, SIZE)
    layouts.save(layouts.noise(4, 5, 0), root / "images" / "00002.png")
    layouts.tree(root, "images/{name}.png", "labels/{name}.png", [{"name": "15188"}], range(35), SIZE)
    with pytest.warns(UserWarning, match="left out") as told:
        dataset = LaidOut("gta5", root, "all")
    assert layouts.names(dataset) == ["00001", "00003", "00004", "00005"]
    assert [str(warning.message) for warning in told] == [
        "gta5: split all has 6 images here, 24966 in its release", "left out: 15188",
        "left out, since their labels have another size: 00002.png",
    ]  # fmt: skip
    assert "15188" in layouts.names(LaidOut("gta5", root, "all", exclude=[]))
    (root / "images" / "00003.png").unlink()
    with pytest.raises(InputError, match=r"no image 00003, but .*split.mat names it"):
        LaidOut("gta5", root, "train")
    (root / "split.mat").write_bytes(b"no")
    with pytest.raises(InputError, match=r"split.mat: cannot be read as a file with numbers"):
        LaidOut("gta5", root, "train")


# One's own


def written(tmp_path: Path, **changes: object) -> Path:
    layout = {
        "name": "streets",
        "images": "rgb/{split}/{city}/{city}_{name}.jpg",
        "names": "{city}_{name}",
        "labels": {
            "colours": {
                "files": "gt/{split}/{city}_{name}.png", "labels_as": "colour", "ignored_colours": [[0, 0, 0]],
                "classes": [[1, "road", [128, 64, 128]], [2, "car", [0, 0, 142]]],
            }
        },
        "splits": {"train": {"count": 2}, "small": {"folder": "train", "list": "small.txt"}, "test": {"labels": None}},
    }  # fmt: skip
    path = tmp_path / "streets.yaml"
    path.write_text(yaml.safe_dump(layout | changes, sort_keys=False))
    return path


def test_a_layout_of_ones_own(tmp_path: Path) -> None:
    colours = np.array([(128, 64, 128), (0, 0, 142), (0, 0, 0)], np.uint8)
    for number in ("1", "2"):
        layouts.save(layouts.noise(3, 6, 1), tmp_path / "rgb" / "train" / "ulm" / f"ulm_{number}.jpg")
        layouts.save(colours[layouts.striped(range(3), 3, 6)], tmp_path / "gt" / "train" / f"ulm_{number}.png")
    (tmp_path / "small.txt").write_text("2\n")
    path = written(tmp_path)
    train = LaidOut(path, tmp_path)
    assert layouts.names(train) == ["ulm_1", "ulm_2"]
    assert train.mask(0)[0].tolist() == [0, 1, 255] * 2
    assert train.label_space.classes == ("road", "car")
    assert layouts.names(LaidOut(path, tmp_path, "small")) == ["ulm_2"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image": "a"}, "no such key 'image'; did you mean images?"),
        ({"images": "rgb/*.png"}, r"images: 'rgb/\*.png'; expected a pattern with {name}"),
        ({"images": "rgb/{name.png"}, "images: 'rgb/{name.png'; expected a path with fields in braces"),
        ({"names": "{town}_{name}"}, "names: {town} is no field of the images; they have city, name, split"),
        ({"labels": {}}, "labels: expected a mapping with at least one entry"),
        ({"labels": {"ids": {"files": "{name}.png"}}}, "labels.ids: classes is missing"),
        ({"labels": {"ids": {"files": "{name}.png", "classes": "street12"}}}, "classes: label space 'street12'"),
        ({"labels": {"ids": {"files": "{name}.png", "classes": [["road"]]}}}, "expected a label space, or a list"),
        ({"labels": {"ids": {"files": "{town}.png", "classes": "street11"}}}, "labels.ids.files: {town} is no field"),
        ({"splits": {"train": {"labels": "fine"}}}, "splits.train.labels: 'fine'; expected null or one of colours"),
        ({"splits": {"train": {"list": 3}}}, "splits.train.list: 3; expected a file of names"),
        ({"becomes": {"cityscapes19": "road"}}, "becomes: expected a mapping such as {cityscapes19: {curb: sidewalk}}"),
        ({"sizes": "any"}, "sizes: 'any'; expected equal or differ"),
        ({"images": "/etc/{name}.png"}, "images: '/etc/{name}.png'; expected a path below the dataset's folder"),
        ({"labels": {"ids": {"files": "../{name}.png", "classes": "street11"}}}, "labels.ids.files: '../{name}.png'"),
        ({"splits": {"train": {"folder": "../x"}}}, "splits.train.folder: '../x'; expected a path below"),
        ({"splits": {"train": {"list": {"file": "x.mat", "variable": "x", "digits": "x"}}}}, "train.list: expected"),
        ({"splits": {"train": {"list": "/etc/hosts"}}}, "splits.train.list: '/etc/hosts'; expected a path below"),
        ({"splits": {"train": {"list": {"file": 3, "variable": "x"}}}}, "splits.train.list: 3; expected a path below"),
    ],
)  # fmt: skip
def test_mistakes_in_a_layout_are_named(changes: dict, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^\S*streets.yaml.*{complaint}"):
        read_layout(written(tmp_path, **changes))


def test_a_layout_that_stands_for_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    """By references to references: the last of these lines stands for 2^24 words."""
    lines = [f"{chr(97 + i)}: &{chr(97 + i)} [*{chr(96 + i)}, *{chr(96 + i)}]" for i in range(1, 24)]
    (tmp_path / "a.yaml").write_text("\n".join(["a: &a [x, x]", *lines, "sizes: *x", ""]))
    with pytest.raises(InputError, match="has more than 100000 values, with all references"):
        read_layout(tmp_path / "a.yaml")


def test_what_is_no_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"layout gta6: no such file, and none that is shipped, such as gta5"):
        read_layout("gta6")
    (tmp_path / "a.yaml").write_text("[")
    with pytest.raises(InputError, match=r"a.yaml: cannot be read as YAML"):
        read_layout(tmp_path / "a.yaml")
    with pytest.raises(InputError, match=r"cityscapes: split 'tain'; expected one of train, val"):
        LaidOut("cityscapes", tmp_path, "tain")
