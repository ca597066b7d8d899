"""`fcnseg data create`: folders become one file to train on, or a line that says what is wrong with them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fcnseg.data import SegmentationData
from fcnseg.data.datasets.described import Described
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack as write_pack
from fcnseg.models import create_model
from fcnseg.models.spec import ModelSpec
from tests.conftest import SHARED

Run = Callable[..., int]


@pytest.fixture
def plain(tmp_path: Path) -> list[str]:
    """Ten pairs of three classes in two folders; the settings that name them."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(10):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(rng.choice([0, 1, 2, 255], (40, 48)).astype(np.uint8)).save(tmp_path / "labels" / f"{i}.png")
    (tmp_path / "classes.txt").write_text("ground\nwater\nforest\n")
    return ["images=images", "labels=labels", "classes=classes.txt", "output=dataset.yaml", "workers=1"]


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_two_folders_become_a_dataset_split_by_share(fcnseg: Run, plain: list[str], capsys, tmp_path: Path) -> None:
    assert fcnseg("data", "create", *plain) == 0
    shown = capsys.readouterr().out
    assert "dataset.yaml  8 train, 2 val pairs, 3 classes" in shown
    assert "fcnseg train data=described data.root=dataset.yaml" in shown
    train, val = (Described("dataset.yaml", split, verify=True) for split in ("train", "val"))
    assert train.label_space.classes == ("ground", "water", "forest")
    assert sorted([train.name(i) for i in range(8)] + [val.name(i) for i in range(2)]) == list("0123456789")
    image, mask, name = val[0]
    assert np.array_equal(image, np.asarray(Image.open(tmp_path / "images" / f"{name}.png")))
    assert np.array_equal(mask, np.asarray(Image.open(tmp_path / "labels" / f"{name}.png")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classes.txt", "dataset.yaml", "images", "labels"]
    first = Path("dataset.yaml").read_bytes()
    assert fcnseg("data", "create", *plain) == 0
    assert Path("dataset.yaml").read_bytes() == first
    assert fcnseg("data", "create", *plain, "seed=1") == 0
    assert [p.name for p in Described("dataset.yaml", "val").images] != [p.name for p in val.images]


def test_percentiles_travel_to_the_model_and_into_packs(fcnseg: Run, plain: list[str], capsys) -> None:
    """Of images of one value in a hundred each, evenly from 0 to 99: 2 % lie below 2, up to interpolation."""
    for i in range(10):
        values = np.arange(40 * 50).reshape(40, 50) % 100
        Image.fromarray(values.astype(np.uint8)).save(f"images/{i}.png")
        Image.fromarray((values // 40).astype(np.uint8)).save(f"labels/{i}.png")
    assert fcnseg("data", "create", *plain, "channels=1", "statistics=percentiles", "val=0.5") == 0
    assert "mean 49.5, std 47.52, cut off at 1 std" in capsys.readouterr().out
    write_pack({"described": Described("dataset.yaml")}, Described("dataset.yaml", "val"), Path("pack"))
    for dataset in (Described("dataset.yaml"), Packed("pack/train/described")):
        facts = SegmentationData(
            {"d": dataset}, Described("dataset.yaml", "val"), size=(8, 8), batch_size=2
        ).image_facts()
        assert [*facts["mean"], *facts["std"], facts["clip"]] == pytest.approx([49.5, 47.5, 1], abs=0.05)
    model = create_model("fcn32s_alexnet", num_classes=2, width=0.05, **facts)
    assert ModelSpec(**model.spec.to_dict()).clip == 1


def test_validation_by_folders_or_none_at_all(fcnseg: Run, plain: list[str], capsys) -> None:
    assert fcnseg("data", "create", *plain, "val_images=images", "val_labels=labels") == 0
    assert "duplicate across splits" in capsys.readouterr().out
    assert [len(Described("dataset.yaml", split)) for split in ("train", "val")] == [10, 10]
    assert fcnseg("data", "create", *plain, "val=null") == 0
    assert list(yaml.safe_load(Path("dataset.yaml").read_text())["splits"]) == ["train"]


def test_pairs_come_from_a_csv_file_and_classes_by_name(fcnseg: Run, plain: list[str], capsys) -> None:
    Path("pairs.csv").write_text("".join(f"images/{i}.png,labels/{9 - i}.png\n" for i in range(4)))
    assert fcnseg("data", "create", "pairs=pairs.csv", "classes=voc21", "output=sub/dataset.yaml", "val=0.5") == 0
    assert "data.root=sub/dataset.yaml data.outside=true\n" in capsys.readouterr().out
    datasets = [Described("sub", split, outside=True) for split in ("train", "val")]
    assert {(d.images[i].name, d.labels[i].name) for d in datasets for i in range(2)} == {
        (f"{i}.png", f"{9 - i}.png") for i in range(4)
    }
    assert datasets[0].label_space.name == "voc21"


def test_what_lies_outside_is_asked_for(fcnseg: Run, plain: list[str], capsys) -> None:
    Path("lists").mkdir()
    Path("lists/pairs.csv").write_text("".join(f"../images/{i}.png,../labels/{i}.png\n" for i in range(4)))
    create = ["data", "create", "pairs=lists/pairs.csv", "classes=voc21", "output=lists/dataset.yaml", "val=0.5"]
    assert fcnseg(*create) == 2
    assert "lists/pairs.csv: names lists/../images/0.png, which lies outside of its folder" in complaint(capsys)
    assert fcnseg(*create, "outside=true") == 0
    capsys.readouterr()
    assert fcnseg("data", "inspect", "dataset=lists/dataset.yaml", "output=a") == 2
    assert "outside=true" in complaint(capsys)
    assert fcnseg("data", "inspect", "dataset=lists/dataset.yaml", "output=a", "outside=true") == 0
    described = ["data", "inspect", "data=described", "data.root=lists/dataset.yaml", "output=b"]
    capsys.readouterr()
    assert fcnseg(*described) == 2
    assert "data.outside=true" in complaint(capsys)
    assert fcnseg(*described, "data.outside=true") == 0


def test_colours_and_grey_images(fcnseg: Run, plain: list[str], tmp_path: Path) -> None:
    palette = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 30], [0, 0, 0]], np.uint8)
    for i in range(10):
        mask = np.minimum(np.asarray(Image.open(tmp_path / "labels" / f"{i}.png")), 3)
        Image.fromarray(palette[mask]).save(tmp_path / "labels" / f"{i}.png")
        Image.open(tmp_path / "images" / f"{i}.png").convert("L").save(tmp_path / "images" / f"{i}.png")
    Path("colours.txt").write_text("10 0 0\n0 20 0\n0 0 30\n")
    colours = ["labels_as=colour", "colours=colours.txt", "ignored_colours=[[0,0,0]]", "channels=1"]
    assert fcnseg("data", "create", *plain, *colours) == 0
    dataset = Described("dataset.yaml")
    assert dataset[0][0].shape == (40, 48, 1)
    assert len(dataset.mean) == len(dataset.std) == 1
    drawn = np.random.default_rng(int(dataset.name(0)))
    drawn.integers(0, 256, (40, 48, 3))
    assert np.array_equal(dataset[0][1], drawn.choice([0, 1, 2, 255], (40, 48)))


def test_copies_lie_beside_the_file_whole_or_not_at_all(fcnseg: Run, plain: list[str], capsys, tmp_path: Path) -> None:
    copying = [*plain[:3], "output=new/dataset.yaml", "copy=true"]
    (tmp_path / "labels" / "3.png").write_bytes(b"")
    assert fcnseg("data", "create", *copying) == 2
    assert not (tmp_path / "new").exists()
    capsys.readouterr()
    assert fcnseg("data", "create", *copying, "skip_bad=true") == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["dataset.yaml", "images", "labels"]
    (tmp_path / "images").rename(tmp_path / "away")
    for split in ("train", "val"):
        dataset = Described("new", split, verify=True)
        for i in range(len(dataset)):
            source = tmp_path / "away" / f"{dataset.name(i)}.png"
            assert dataset.images[i].parent == Path("new") / "images" / split
            assert dataset.images[i].read_bytes() == source.read_bytes()
    (tmp_path / "away").rename(tmp_path / "images")
    assert fcnseg("data", "create", *copying, "skip_bad=true") == 2
    assert "new/images: exists already" in complaint(capsys)


def test_copies_are_gone_when_the_file_cannot_be_written(fcnseg: Run, plain: list[str], capsys, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder / "1.png").rename(tmp_path / folder / os.fsdecode(b"caf\xe9.png"))
    assert fcnseg("data", "create", *plain[:3], "output=new/dataset.yaml", "copy=true") == 2
    assert "no UTF-8; rename the file" in complaint(capsys)
    assert list((tmp_path / "new").iterdir()) == []


def test_pairs_with_mistakes_are_refused_or_left_out(fcnseg: Run, plain: list[str], capsys, tmp_path: Path) -> None:
    (tmp_path / "images" / "3.png").write_bytes(b"")
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(tmp_path / "labels" / "5.png")
    (tmp_path / "labels" / "8.png").unlink()
    assert fcnseg("data", "create", *plain) == 2
    message = complaint(capsys)
    assert message.startswith("fcnseg: images/3.png: unreadable image (it is empty) (3 mistakes)")
    assert "fcnseg data inspect" in message
    assert not Path("dataset.yaml").exists()
    assert fcnseg("data", "create", *plain, "skip_bad=true") == 0
    names = [d.name(i) for d in (Described("dataset.yaml", s) for s in ("train", "val")) for i in range(len(d))]
    assert sorted(names) == ["0", "1", "2", "4", "6", "7", "9"]
    left = yaml.safe_load(Path("dataset.yaml").read_text())["left_out"]
    assert sorted((entry["file"], entry["kind"]) for entry in left) == [
        ("images/3.png", "unreadable image"),
        ("images/8.png", "image without label"),
        ("labels/5.png", "value outside the label space"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["classes=null"], "classes: a value is missing; the labels hold the ids 0, 1, 2, 255; give classes=FILE"),
        (["classes=street12"], "label space 'street12' is unknown; expected one of street11"),
        (["classes=none.txt"], "classes=none.txt: no such file"),
        (["images=imags"], "imags: no such folder; did you mean images"),
        (["images=null"], "images: a value is missing; give it as images=FOLDER"),
        (["val=1.5"], "val=1.5: expected a share above 0 and below 1"),
        (["val_images=images"], "val_images and val_labels: expected both or none"),
        (["output=dataset.json"], "output=dataset.json: expected a file ending in .yaml"),
        (["channels=0"], "channels=0: expected a whole number from 1 on"),
        (["statistics=minmax"], "statistics=minmax: expected one of moments, percentiles"),
        (["scaling=window:40:-1"], "expected one of log, decibel, decibel_intensity, or window:LEVEL:WIDTH"),
        (["labels_as=colors"], "labels_as='colors': expected index or colour"),
        (["vall=0.1"], "vall: no such key; did you mean val"),
        (["colours=classes.txt"], "'ground'; expected three whole numbers from 0 to 255"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(fcnseg: Run, plain: list[str], capsys, settings, message) -> None:
    assert fcnseg("data", "create", *plain, *settings) == 2
    assert message in complaint(capsys)
    assert not Path("dataset.yaml").exists()


def test_a_missing_output_is_named(fcnseg: Run, plain: list[str], capsys) -> None:
    assert fcnseg("data", "create", *plain[:3]) == 2
    assert "output: a value is missing" in complaint(capsys)


@pytest.mark.slow
def test_a_described_dataset_trains(fcnseg: Run, plain: list[str]) -> None:
    assert fcnseg("data", "create", *plain) == 0
    data = ["data=described", "data.root=dataset.yaml", "data.size=[40,48]", "data.batch_size=4"]
    run = ["trainer.max_epochs=1", "data.num_workers=0", "hydra.run.dir=run"]
    tiny = ["model=fcn8s_vgg16_bn", "model.width=0.05", "trainer.accelerator=cpu", "callbacks.progress=null"]
    assert fcnseg("train", *tiny, *data, *run) == 0
    assert Path("run/metrics.json").exists()


@pytest.fixture
def cells(tmp_path: Path) -> np.ndarray:
    """Six grey pictures with masks of 0 and 255 in one folder, as x.png and x_mask.png, and what a Mac leaves there."""
    rng = np.random.default_rng(0)
    masks = rng.random((6, 40, 48)) < 0.6
    (tmp_path / "all").mkdir()
    for i, mask in enumerate(masks):
        picture = rng.integers(0, 256, (40, 48)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "all" / f"{i}.png")
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / "all" / f"{i}_mask.png")
        (tmp_path / "all" / f"._{i}.png").write_bytes(b"\0\5\x16\7")
    return masks


def test_masks_of_0_and_255_beside_their_images_in_three_hints(fcnseg: Run, cells: np.ndarray, capsys) -> None:
    """Every refusal says which setting comes next, in `create` as in `inspect`."""
    folder = ["images=all", "labels=all", "workers=1"]
    for command in (["create", "output=dataset.yaml"], ["inspect", "output=out"]):
        settings, hints = [*folder, "channels=1"], []
        for _ in range(3):
            if fcnseg("data", command[0], *settings, command[1]) == 0:
                break
            hints.append(re.findall(r"'(\w+=[^']*)'", complaint(capsys))[0])
            settings.append(hints[-1])
        assert hints == ["label_names=*_mask", "values={0: background, 255: cell}"]
    dataset = Described("dataset.yaml")
    assert dataset.label_space.classes == ("background", "cell")
    assert len(dataset) == 5
    for i in range(5):
        _, mask, name = dataset[i]
        assert np.array_equal(mask, cells[int(name)])


def test_a_class_file_for_masks_of_0_and_255_is_refused_with_the_remedy(fcnseg: Run, cells: np.ndarray, capsys) -> None:
    Path("classes.txt").write_text("background\ncell\n")
    settings = ["images=all", "labels=all", "label_names=*_mask", "channels=1", "classes=classes.txt", "workers=1"]
    assert fcnseg("data", "create", *settings, "output=dataset.yaml", "skip_bad=true") == 2
    assert "masks of 0 and 255 (as all 6 labels; 255 does not count); 'values={0: background, 255: cell}'" in complaint(
        capsys
    )
    assert fcnseg("data", "create", *settings, "output=dataset.yaml", "ignored=[]") == 2
    assert "'values={0: background, 255: cell}'" in complaint(capsys)
    assert fcnseg("data", "inspect", *settings, "output=out") == 2
    assert "'values={0: background, 255: cell}'" in " ".join(capsys.readouterr().out.split())


def test_values_name_classes_in_any_order_and_ignore_others(fcnseg: Run, plain: list[str], capsys) -> None:
    settings = [plain[0], plain[1], plain[3], "workers=1"]
    assert fcnseg("data", "create", *settings, "values={2: forest, 0: ground, 1: null}") == 0, capsys.readouterr().err
    dataset = Described("dataset.yaml")
    assert dataset.label_space.classes == ("forest", "ground")
    values = np.asarray(Image.open(dataset.labels[0]))
    assert np.array_equal(dataset[0][1], np.select([values == 2, values == 0], [0, 1], 255))
    for wrong, message in (
        (["values={0: a, 1: a}"], "the class a stands twice"),
        (["values=[0, 1]"], "expected a mapping such as {0: background, 255: cell, 128: null}"),
        (["values={x: a}"], "with whole numbers from 0 to 65535"),
        (["values={0: a, 255: b}", "ignored=[255]"], "ignored=[255]: 255 is the class b in values"),
        (["values={0: a}", "classes=voc21"], "values and classes: expected one of them"),
    ):
        capsys.readouterr()
        assert fcnseg("data", "create", *settings, *wrong) == 2
        assert message in complaint(capsys)


def test_colours_without_a_list_of_them_are_asked_for(fcnseg: Run, plain: list[str], tmp_path: Path, capsys) -> None:
    for i in range(10):
        colours = np.zeros((40, 48, 3), np.uint8)
        colours[:20] = 9, 8, 7
        Image.fromarray(colours).save(tmp_path / "labels" / f"{i}.png")
    assert fcnseg("data", "create", *plain, "labels_as=colour") == 2
    message = complaint(capsys)
    assert "the labels hold the colours (0, 0, 0), (9, 8, 7)" in message
    assert "give colours=FILE" in message
    assert fcnseg("data", "create", *plain, "labels_as=colour", "classes=null") == 2
    assert "give colours=FILE" in complaint(capsys)


def test_the_membrane_images_are_described(fcnseg: Run, capsys) -> None:
    folder = SHARED / "data" / "membrane"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    settings = [f"images={folder}/images", f"labels={folder}/labels", "channels=1", "output=dataset.yaml"]
    assert fcnseg("data", "create", *settings, "values={0: membrane, 255: cell}", "val=0.25") == 0
    assert "15 train, 5 val pairs, 2 classes" in capsys.readouterr().out
