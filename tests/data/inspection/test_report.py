"""Every defect that a folder can hold is named in one report, and a clean folder gives none."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnseg.data import CamVid, CityScenes, Remapped, Subset
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.inspection.contact_sheet import choose, save_contact_sheet, save_histogram
from fcnseg.data.inspection.pairing import pair_folders, split_pairs
from fcnseg.data.inspection.report import Inspection, inspect, plain, write_report
from fcnseg.data.inspection.samples import InspectedSplit
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from tests.conftest import SHARED

SPACE = LabelSpace("four", ("a", "b", "c", "d"), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 0)))
FIVE = LabelSpace("five", (*SPACE.classes, "e"), (*SPACE.palette, (9, 9, 9)))
SHAPE = (48, 40)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (*SHAPE, 3)).astype(np.uint8)


def label(seed: int, classes: int = 4) -> np.ndarray:
    """A quarter of the picture for each class, in an order of the seed's."""
    return np.roll(np.repeat(np.arange(classes, dtype=np.uint8), SHAPE[0] // classes), 3 * seed)[:, None].repeat(
        SHAPE[1], axis=1
    )


class Folders:
    """Two folders of images and labels, to put good and bad pairs into."""

    def __init__(self, root: Path) -> None:
        self.images, self.labels = root / "images", root / "labels"
        for folder in (self.images, self.labels):
            folder.mkdir(parents=True)

    def add(self, name: str, image: np.ndarray | None = None, mask: np.ndarray | None = None, seed: int = 0) -> None:
        seed = seed or zlib.crc32(name.encode())
        Image.fromarray(noise(seed) if image is None else image).save(self.images / f"{name}.png")
        Image.fromarray(label(seed) if mask is None else mask).save(self.labels / f"{name}.png")

    def part(self, split: str = "train", space: LabelSpace = SPACE, **reading: object) -> InspectedSplit:
        return pair_folders(self.images, self.labels, space, split, **reading)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "set")


def found(inspection: Inspection) -> dict[str, list[str]]:
    """By kind, the names of the files it was found in."""
    return {f.kind: [Path(p.file).name for p in f.problems] for f in inspection.findings}


def details(inspection: Inspection, kind: str) -> list[str]:
    return [p.detail for f in inspection.findings if f.kind == kind for p in f.problems]


def bomb(path: Path, side: int) -> None:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def test_a_clean_dataset_gives_no_finding(tmp_path: Path) -> None:
    parts = []
    for split, count in (("train", 6), ("val", 3)):
        folders = Folders(tmp_path / split)
        for i in range(count):
            folders.add(f"{split} {i}")
        parts.append(folders.part(split))
    inspection = inspect(parts, near=4)
    assert found(inspection) == {}
    assert [len(part.dataset) for part in inspection.splits] == [6, 3]


def put_every_defect(train: Folders, val: Folders) -> dict[str, list[str]]:
    """Fill two splits with one of every defect; what must be found, and in which files."""
    for i in range(8):
        train.add(f"good{i}", mask=label(i, 3))
        val.add(f"fine{i}", mask=label(i, 2))
    whole = (train.images / "good0.png").read_bytes()
    # Files
    for name in ("empty", "text", "folder", "link", "pipe", "large", "fuzzy", "unfinished"):
        train.add(name, mask=label(1, 3))
    (train.images / "empty.png").write_bytes(b"")
    (train.images / "text.png").write_text("no picture\n")
    (train.images / "unfinished.png").write_bytes(whole[: len(whole) // 2])
    for name in ("folder", "link", "pipe"):
        (train.images / f"{name}.png").unlink()
    (train.images / "folder.png").mkdir()
    (train.images / "link.png").symlink_to("nowhere.png")
    os.mkfifo(train.images / "pipe.png")
    bomb(train.images / "large.png", 100_000)
    (train.labels / "fuzzy.png").write_bytes((train.labels / "good0.png").read_bytes()[:60])
    (train.images / "notes.txt").write_text("hello\n")
    # Pairs
    train.add("lonely image", mask=label(0, 3))
    (train.labels / "lonely image.png").unlink()
    val.add("lonely label", mask=label(0, 2))
    (val.images / "lonely label.png").unlink()
    train.add("twice", mask=label(1, 3))
    Image.fromarray(noise(77)).save(train.images / "twice.jpg")
    train.add("flat", mask=label(1, 3)[:24])
    # Labels
    train.add("stray", mask=np.where(label(2, 3) == 1, 42, label(2, 3)).astype(np.uint8))
    train.add("ignored", mask=np.full(SHAPE, 255, np.uint8))
    train.add("binary", mask=np.where(label(1) > 1, 255, 0).astype(np.uint8))
    train.add("painted", mask=SPACE.colours()[label(1, 3)])
    ramp = np.tile(np.linspace(10, 60, SHAPE[1]).astype(np.uint8), (SHAPE[0], 1))
    train.add("smooth", mask=ramp)
    train.add("lossy", mask=label(0, 3))
    (train.labels / "lossy.png").unlink()
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(train.labels / "lossy.jpg")
    # Images
    train.add("black", image=np.zeros((*SHAPE, 3), np.uint8), mask=label(1, 3))
    train.add("small", image=noise(1, 24, 20, 3), mask=label(1, 3)[::2, ::2])
    train.add("grey", image=noise(2, *SHAPE), mask=label(1, 3))
    train.add("unit 1", seed=991, mask=label(1, 3))
    train.add("unit 2", seed=991, mask=label(2, 3))
    val.add("rare", mask=np.full(SHAPE, 3, np.uint8))
    val.add("leak", image=noise(zlib.crc32(b"good1")), mask=label(1, 2))
    brighter = np.clip(noise(zlib.crc32(b"good2")).astype(int) + 1, 0, 255).astype(np.uint8)
    val.add("almost", image=brighter, mask=label(1, 2))
    return {
        "unreadable image": ["empty.png", "link.png", "pipe.png", "text.png", "unfinished.png"],
        "unreadable label": ["fuzzy.png"],
        "too many bytes": ["large.png"],
        "image without label": ["lonely image.png"],
        "ambiguous name": ["twice.png"],
        "label of another size": ["flat.png"],
        "value outside the label space": ["smooth.png", "stray.png"],
        "label in colours": ["painted.png"],
        "smoothed label": ["smooth.png"],
        "label compressed with loss": ["lossy.jpg"],
        "label of 0 and 255 alone": ["binary.png"],
        "empty label": ["ignored.png"],
        "constant image": ["black.png"],
        "duplicate across splits": ["leak.png"],
        "duplicate within a split": ["unit 2.png"],
        "near duplicate across splits": ["almost.png"],
        "class missing from train": ["d"],
        "class missing from val": ["c"],
        "class nowhere": ["e"],
        "kinds of image differ": ["grey.png"],
        "too small image": ["small.png"],
        "label without image": ["folder.png", "lonely label.png"],
        "folder named like an image": ["folder.png"],
        "sizes vary": ["small.png"],
        "not an image": ["notes.txt"],
    }


def test_one_report_names_every_defect(tmp_path: Path) -> None:
    train, val = Folders(tmp_path / "train"), Folders(tmp_path / "val")
    expected = put_every_defect(train, val)
    inspection = inspect([train.part(space=FIVE), val.part("val", FIVE)], near=2, workers=2)
    named = found(inspection)
    for kind, files in expected.items():
        assert sorted(named.pop(kind, [])) == files, kind
    assert not named, "nothing else is wrong"
    severities = [f.severity for f in inspection.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)

    assert details(inspection, "value outside the label space")[1] == "42 on 640 pixels"
    assert "FCNSEG_MAX_BYTES" in details(inspection, "too many bytes")[0]
    assert "labels_as=colour" in details(inspection, "label in colours")[0]
    assert details(inspection, "label of another size") == ["40x24, its image 40x48"]
    assert "a link to nothing" in details(inspection, "unreadable image")
    assert "with another label" in details(inspection, "duplicate within a split")[0]

    write_report(inspection, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {f["kind"]: [Path(x["file"]).name for x in f["files"]] for f in report["findings"]} == found(inspection)
    save_contact_sheet(inspection, tmp_path / "sheet.png", 60)
    save_histogram(inspection, tmp_path / "classes.png")
    for name in ("sheet.png", "classes.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()


def test_colours_of_no_class_are_found_and_many_of_them_look_smoothed(folders: Folders) -> None:
    for i in range(5):
        folders.add(f"good{i}", mask=SPACE.colours()[label(i)])
    one = SPACE.colours()[label(1)]
    one[:2, :3] = (1, 2, 3)
    folders.add("one", mask=one)
    with Image.fromarray(SPACE.colours()[label(2)]) as picture:
        folders.add("smooth", mask=np.array(picture.resize((20, 24), Image.Resampling.BILINEAR).resize(SHAPE[::-1])))
    inspection = inspect([folders.part(labels_as="colour")])
    assert found(inspection) == {"colour of no class": ["one.png", "smooth.png"], "smoothed label": ["smooth.png"]}
    assert "(1, 2, 3) on 6 pixels" in details(inspection, "colour of no class")[0]


def test_images_of_another_number_of_channels_are_errors(folders: Folders) -> None:
    for i in range(3):
        folders.add(f"radar{i}", image=noise(i, *SHAPE))
    folders.add("photo")
    inspection = inspect([folders.part(channels=1)])
    assert found(inspection)["wrong number of channels"] == ["photo.png"]
    assert "3 channels of uint8; expected 1" in details(inspection, "wrong number of channels")[0]


def test_few_values_outside_do_not_look_smoothed(folders: Folders) -> None:
    folders.add("few", mask=label(0) + np.uint8(4))
    assert set(found(inspect([folders.part()]))) == {"value outside the label space", "class nowhere"}


def test_near_means_at_most_so_many_bits(folders: Folders) -> None:
    folders.add("one", seed=5)
    folders.add("two", image=np.clip(noise(5).astype(int) + 1, 0, 255).astype(np.uint8), seed=6)
    assert found(inspect([folders.part()], near=0)) == {"near duplicate within a split": ["two.png"]}
    assert found(inspect([folders.part()])) == {}


def test_values_of_rare_classes_and_16_bits_are_counted(folders: Folders) -> None:
    mask = np.zeros(SHAPE, np.uint16)
    mask[0, :3], mask[1, 0], mask[2] = (1, 2, 3), 60_000, 1
    folders.add("one", mask=mask)
    inspection = inspect([folders.part()])
    assert details(inspection, "value outside the label space") == ["60000 on 1 pixel"]
    assert inspection.frequencies["train"].tolist() == [[1876, 1], [41, 1], [1, 1], [1, 1]]
    assert found(inspection)["class imbalance"] == ["c", "d"]
    assert details(inspection, "class imbalance")[0] == "1876 times fewer pixels than a"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_found(folders: Folders) -> None:
    folders.add("open")
    folders.add("closed")
    (folders.images / "closed.png").chmod(0)
    assert found(inspect([folders.part()]))["unreadable image"] == ["closed.png"]


@pytest.mark.parametrize("name", ["with space", "naïve-日本", "two\nlines", "[red]tag[bold]", "tab\tname", "-rf", "%d"])
def test_any_name_is_read_and_reported(folders: Folders, tmp_path: Path, name: str) -> None:
    folders.add(name, mask=np.full(SHAPE, 9, np.uint8))
    inspection = inspect([folders.part()])
    assert found(inspection)["value outside the label space"] == [f"{name}.png"]
    write_report(inspection, tmp_path / "report.json")
    file = json.loads((tmp_path / "report.json").read_text())["findings"][0]["files"][0]["file"]
    assert Path(file).name == plain(f"{name}.png")
    assert file.isprintable()
    save_contact_sheet(inspection, tmp_path / "sheet.png")


def test_names_that_are_no_utf8_are_reported(folders: Folders, tmp_path: Path) -> None:
    folders.add("name")
    strange = os.fsdecode(b"caf\xe9.png")
    (folders.images / "name.png").rename(folders.images / strange)
    inspection = inspect([folders.part()])
    write_report(inspection, tmp_path / "report.json")
    assert "caf\\xe9.png" in (tmp_path / "report.json").read_text().replace("\\\\", "\\")
    assert set(found(inspection)) == {"image without label", "label without image", "no pairs"}


def test_subfolders_pair_by_their_path(folders: Folders) -> None:
    for folder in (folders.images, folders.labels):
        (folder / "deep").mkdir()
    folders.add("deep/one")
    folders.add("one")
    (folders.labels / "one.png").unlink()
    inspection = inspect([folders.part(recursive=True)])
    assert [f.name for f in inspection.facts] == ["deep/one"]
    assert details(inspection, "image without label") == [f"none of its name in {folders.labels}"]


def test_pictures_are_allowed_up_to_the_limit(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.add("one")
    monkeypatch.setenv("FCNSEG_MAX_BYTES", str(SHAPE[0] * SHAPE[1] - 1))
    assert found(inspect([folders.part()]))["too many bytes"] == ["one.png", "one.png"]
    monkeypatch.setenv("FCNSEG_MAX_BYTES", str(3 * SHAPE[0] * SHAPE[1] - 1))
    assert found(inspect([folders.part()])) == {"too many bytes": ["one.png"]}  # the label takes a third
    monkeypatch.setenv("FCNSEG_MAX_BYTES", str(3 * SHAPE[0] * SHAPE[1]))
    assert found(inspect([folders.part()])) == {}
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "many")
    with pytest.raises(InputError, match="FCNSEG_MAX_BYTES=many"):
        inspect([folders.part()])


def test_datasets_without_files_are_inspected_by_their_samples() -> None:
    scenes = CityScenes(3, 0, "real", SHAPE)
    inspection = inspect([InspectedSplit("train", scenes), InspectedSplit("val", scenes)], workers=1)
    assert found(inspection)["duplicate across splits"] == [scenes[i][2] for i in range(3)]
    masks = np.concatenate([scenes[i][1].ravel() for i in range(3)])
    assert inspection.frequencies["train"][:, 0].tolist() == [(masks == c).sum() for c in range(11)]


def test_mapped_datasets_are_checked_in_their_files_classes_and_counted_in_their_own(folders: Folders) -> None:
    folders.add("one", mask=label(0))
    folders.add("two", mask=np.full(SHAPE, 7, np.uint8))
    target = LabelSpace("two", ("b", "rest"), ((0, 0, 0), (1, 1, 1)))
    mapped = Remapped(folders.part().dataset, target, extra={"c": "rest", "d": "rest"})
    inspection = inspect([InspectedSplit("train", mapped)])
    assert details(inspection, "value outside the label space") == ["7 on 1920 pixels"]
    assert inspection.frequencies["train"].tolist() == [[480, 1], [960, 1]]
    assert [f.ignored for f in inspection.facts] == [480, 0]


def test_a_part_of_a_dataset_is_inspected_by_its_own_files(folders: Folders) -> None:
    """Of eight pairs the last four, of which the last one is bad: not the first four files."""
    for i in range(8):
        folders.add(str(i), mask=label(i) if i < 7 else np.full(SHAPE, 7, np.uint8))
    target = LabelSpace("two", ("b", "rest"), ((0, 0, 0), (1, 1, 1)))
    mapped = Remapped(folders.part().dataset, target, extra={"c": "rest", "d": "rest"})
    for dataset in (Subset(mapped, 0.5, 0.5), Remapped(Subset(folders.part().dataset, 0.5, 0.5), target)):
        inspection = inspect([InspectedSplit("train", dataset)], workers=1)
        assert [Path(f.image).stem for f in inspection.facts] == [f.name for f in inspection.facts] == list("4567")
        assert details(inspection, "value outside the label space") == ["7 on 1920 pixels"]
    whole = inspect([InspectedSplit("train", mapped)], workers=1)
    half = inspect([InspectedSplit("train", Subset(mapped, 0.5, 0.5))], workers=1)
    assert [f.pixels.tolist() for f in half.facts] == [f.pixels.tolist() for f in whole.facts[4:]]


def test_several_processes_find_the_same_in_the_same_order(folders: Folders) -> None:
    for i in range(20):
        folders.add(f"{i:02d}", mask=label(i) if i % 3 else np.full(SHAPE, 200, np.uint8))
    ticks: list[int] = []
    alone = inspect([folders.part()], workers=1)
    together = inspect([folders.part()], workers=3, advance=lambda: ticks.append(1))
    assert [vars(f) | {"pixels": f.pixels.tolist()} for f in together.facts] == [
        vars(f) | {"pixels": f.pixels.tolist()} for f in alone.facts
    ]
    assert found(together) == found(alone)
    assert len(ticks) == 20


SLOW = """
import sys, time
import numpy as np
from fcnseg.data.inspection.samples import InspectedSplit
from fcnseg.data.inspection.report import inspect
from fcnseg.labels import LabelSpace

class Slow:
    label_space = LabelSpace("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    def __len__(self):
        return 400
    def __getitem__(self, index):
        time.sleep(0.05)
        return np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), str(index)

try:
    inspect([InspectedSplit("train", Slow())], workers=2, advance=lambda: print("tick", flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
def test_an_interruption_ends_all_processes() -> None:
    command = [sys.executable, "-c", SLOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "tick\n"
        os.killpg(process.pid, signal.SIGINT)
        started = time.monotonic()
        assert process.wait(20) == 130
        assert time.monotonic() - started < 10, "it waits for the chunks under way, not for all"
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_a_split_by_share_is_the_same_in_any_order_of_files(folders: Folders) -> None:
    for i in range(20):
        folders.add(f"{i:02d}")
    part = folders.part()
    order = np.random.default_rng(1).permutation(20)
    files = [[column[int(i)] for i in order] for column in (part.dataset.images, part.dataset.labels)]
    names = [{p.stem for p in half.dataset.images} for half in split_pairs(part, 0.2)]
    shuffled = split_pairs(InspectedSplit("train", Pairs(*files, SPACE)), 0.2)
    assert [{p.stem for p in half.dataset.images} for half in shuffled] == names
    assert [len(n) for n in names] == [16, 4]
    assert not names[0] & names[1]
    assert [{p.stem for p in half.dataset.images} for half in split_pairs(part, 0.2, seed=1)] != names


def test_the_contact_sheet_begins_with_errors_and_shows_every_kind(folders: Folders) -> None:
    for i in range(9):
        folders.add(f"good{i}")
    for i in range(5):
        folders.add(f"black{i}", image=np.zeros((*SHAPE, 3), np.uint8))
    folders.add("wrong", mask=np.full(SHAPE, 99, np.uint8))
    inspection = inspect([folders.part()])
    kinds = {id(f): tuple(p.kind for p in f.problems) for f in inspection.facts if f.problems}
    names = [f.name for f in choose(inspection, kinds, 4)]
    assert names == ["wrong", "black0", "black1", "black2"]
    names = [f.name for f in choose(inspection, kinds, 9)]
    assert names[:6] == ["wrong", *(f"black{i}" for i in range(5))]
    assert names[6:] == ["good0", "good4", "good8"]


@pytest.fixture(scope="module")
def real() -> Path:
    folder = SHARED / "data" / "camvid"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.mark.slow
def test_camvid_has_no_errors(real: Path) -> None:
    parts = [InspectedSplit(split, CamVid(real, split)) for split in ("train", "val")]
    inspection = inspect(parts)
    assert [len(part.dataset) for part in parts] == [367, 101]
    assert {f.kind: f.severity for f in inspection.findings} == {"class imbalance": "note"}
    first = inspection.facts[0]
    mask = np.asarray(Image.open(first.label))
    assert first.pixels.tolist() == [int((mask == c).sum()) for c in range(11)]


def test_a_range_is_refused(folders: Folders) -> None:
    folders.add("one")
    with pytest.raises(InputError, match="near=65: expected a whole number from 0 to 64"):
        inspect([folders.part()], near=65)
    shutil.rmtree(folders.labels)
    with pytest.raises(InputError, match="no such folder"):
        folders.part()
