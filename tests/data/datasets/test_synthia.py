"""SYNTHIA's three packages, in tiny files of the true layouts and in one real frame, and the scenes that stand in."""

import os
import runpy
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnseg.data import CityScenes, SynthiaRand, SynthiaRandCityscapes, SynthiaSeqs, write_synthia
from fcnseg.data.datasets.synthia import read_text
from fcnseg.errors import InputError
from tests.data import layouts

SIZE = (4, 26)
SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "synthia_seqs_sample"
real_frame = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of SYNTHIA-SEQS in {SAMPLE}")


# The packages


@pytest.mark.parametrize("labels", ["auto", "text", "colour"])
def test_rand_reads_text_and_colours_alike(tmp_path: Path, labels: str) -> None:
    dataset = SynthiaRand(layouts.synthia_rand(tmp_path, 4, SIZE), "all", labels)
    image, mask, name = dataset[3]
    ids = layouts.striped(range(12), *SIZE, turn=3)
    assert name == "0000003"
    assert np.array_equal(image, layouts.noise(*SIZE, 3))
    assert np.array_equal(mask, np.where(ids == 0, 255, ids - 1))
    assert np.array_equal(dataset.mask(3), mask)
    assert dataset.labels[0].suffix == (".png" if labels == "colour" else ".txt")
    assert dataset.label_space.classes[10] == "cyclist"


def test_rand_without_text_reads_colours(tmp_path: Path) -> None:
    root = layouts.synthia_rand(tmp_path, 2, SIZE, labels=("GT",))
    # Both of the greens that published tables give lane markings.
    layouts.save(
        np.array([[(0, 172, 0), (0, 175, 0), (0, 128, 128), (0, 0, 0)]], np.uint8), root / "GT" / "0000000.png"
    )
    dataset = SynthiaRand(root, "all")
    names = [dataset.label_space.classes[i] for i in dataset.mask(0)[0, :3]]
    assert names == ["lane marking", "lane marking", "traffic light"]
    assert dataset.mask(0)[0, 3] == 255


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"1 2 3\n4 5\n", "rows of [2, 3] ids; expected equal rows"),
        (b"1 2 x\n", "cannot be read as rows of ids"),
        (b"1 -2\n", "cannot be read as rows of ids"),
        (b"1 70000\n", "cannot be read as rows of ids (1 to 70000; expected -1 to 65535)"),
        (b" \n", "empty"),
        (b"1 99\n", "label value 99 is outside the label space 'synthia'"),
        (b"1 2\n", "label is 2x1, its image 26x4; expected the same size"),
    ],
)
def test_a_damaged_text_label_is_named(tmp_path: Path, text: bytes, reason: str) -> None:
    dataset = SynthiaRand(layouts.synthia_rand(tmp_path, 2, SIZE), "all")
    dataset.labels[1].write_bytes(text)
    with pytest.raises(InputError) as caught:
        dataset[1]
    message = str(caught.value)
    assert message.startswith(f"{dataset.labels[1]}: ")
    assert reason in message
    assert "\n" not in message


def test_minus_one_is_void_in_text_labels(tmp_path: Path) -> None:
    dataset = SynthiaRand(layouts.synthia_rand(tmp_path, 1, (2, 3)), "all")
    dataset.labels[0].write_text("-1 0 1 \n3 -1 11 \n")
    assert dataset.mask(0).tolist() == [[255, 255, 0], [2, 255, 10]]


def test_frames_that_are_known_as_damaged_are_left_out_with_a_warning(tmp_path: Path) -> None:
    root = layouts.synthia_rand(tmp_path, 20, (2, 2))
    damaged = "ap_000_02-11-2015_18-02-19_000062_3_Rand_2"  # a name of the download
    for path in (root / "RGB" / "0000007.png", root / "GTTXT" / "0000007.txt", root / "GT" / "0000007.png"):
        path.rename(path.with_stem(damaged))
    with pytest.warns(UserWarning, match=f"left out as damaged: {damaged}; exclude=\\[\\] takes all frames"):
        assert damaged not in layouts.names(SynthiaRand(root, "all"))
    parts = {}
    for exclude in ([], ["0000003", damaged]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if exclude else "error")
            parts[len(exclude)] = [
                set(layouts.names(SynthiaRand(root, split, exclude=exclude, block=5, val_share=0.25)))
                for split in ("train", "val")
            ]
    assert len(parts[0][0]) + len(parts[0][1]) == 20
    assert [part - {"0000003", damaged} for part in parts[0]] == parts[2], "the others stay on their sides"


def test_rand_cityscapes_takes_the_class_from_the_first_channel(tmp_path: Path) -> None:
    dataset = SynthiaRandCityscapes(layouts.synthia_rand_cityscapes(tmp_path, 3, SIZE), "all")
    ids = layouts.striped(range(23), *SIZE, turn=2)
    assert np.array_equal(dataset.mask(2), np.where(ids == 0, 255, ids - 1))
    # Its README's table.
    names = dict(zip(dataset.label_space.ids, dataset.label_space.classes, strict=True))
    assert [names[i] for i in (3, 12, 15, 17, 21, 22)] == [
        "road", "motorcycle", "traffic light", "rider", "wall", "lane marking",
    ]  # fmt: skip


def test_seqs_finds_sequences_cameras_and_views_by_pattern(tmp_path: Path) -> None:
    folders = [
        f"SYNTHIA-SEQS-{sequence}/{camera}/{view}"
        for sequence in ("01-SUMMER", "04-DAWN", "04-SUMMER")
        for camera in ("Stereo_Left", "Stereo_Right")
        for view in ("Omni_B", "Omni_F")
    ]
    root = layouts.synthia_seqs(tmp_path, folders, 2, SIZE)

    def sources(**patterns: object) -> set[str]:
        return {name.rsplit("_", 1)[0] for name in layouts.names(SynthiaSeqs(root, "all", **patterns))}

    left_front = "Stereo_Left_Omni_F"
    assert sources() == {f"SYNTHIA-SEQS-{s}_{left_front}" for s in ("01-SUMMER", "04-DAWN", "04-SUMMER")}
    assert sources(sequences="*-04-*") == {f"SYNTHIA-SEQS-04-{s}_{left_front}" for s in ("DAWN", "SUMMER")}
    assert sources(sequences=["*-01-*", "*-DAWN"]) == {
        f"SYNTHIA-SEQS-{s}_{left_front}" for s in ("01-SUMMER", "04-DAWN")
    }
    assert len(sources(cameras="*", views="*")) == 12
    everything = SynthiaSeqs(root, "all", cameras="*", views="*")
    assert len(everything) == len(set(layouts.names(everything))) == 24
    alone = SynthiaSeqs(root / "SYNTHIA-SEQS-04-DAWN", "all", views="Omni_B")
    assert layouts.names(alone) == [f"SYNTHIA-SEQS-04-DAWN_Stereo_Left_Omni_B_00000{i}" for i in (0, 1)]

    ids = layouts.striped([*range(13), 15], *SIZE, turn=1)
    expected = np.select([ids == 0, ids == 15], [255, 12], ids - 1)
    assert np.array_equal(everything.mask(1), expected)
    with pytest.raises(InputError, match="no folder fits Omni_X; it has Omni_B, Omni_F"):
        SynthiaSeqs(root, "all", views="Omni_X")


def test_all_views_of_a_frame_are_on_one_side(tmp_path: Path) -> None:
    folders = [f"SYNTHIA-SEQS-01-FALL/{c}/{v}" for c in ("Stereo_Left", "Stereo_Right") for v in ("Omni_F", "Omni_R")]
    root = layouts.synthia_seqs(tmp_path, folders, 12, (2, 2))
    parts = [SynthiaSeqs(root, s, cameras="*", views="*", val_share=0.3, block=2) for s in ("train", "val")]
    frames = [{name[-6:] for name in layouts.names(part)} for part in parts]
    assert not frames[0] & frames[1]
    assert [len(part) for part in parts] == [4 * len(f) for f in frames] == [32, 16]


def test_the_streets_of_a_sequence_are_on_one_side_in_all_seasons(tmp_path: Path) -> None:
    sequences = [f"{number}-{season}" for number in ("01", "02", "04", "05", "06") for season in ("FALL", "DAWN")]
    root = layouts.synthia_seqs(tmp_path, [f"SYNTHIA-SEQS-{s}/Stereo_Left/Omni_F" for s in sequences], 4, (2, 2))
    drawn = set()
    for seed in range(8):
        parts = [layouts.names(SynthiaSeqs(root, split, seed=seed)) for split in ("train", "val")]
        train, val = ({name.split("-")[2] for name in part} for part in parts)
        assert [len(part) for part in parts] == [32, 8]
        assert len(val) == 1
        assert train | val == {"01", "02", "04", "05", "06"}
        drawn |= val
    assert len(drawn) > 1
    by_frame = [layouts.names(SynthiaSeqs(root, s, block=2, sequences="*-04-*")) for s in ("train", "val")]
    assert not {name[-6:] for name in by_frame[0]} & {name[-6:] for name in by_frame[1]}
    with pytest.raises(
        InputError, match=r"of one sequence, 04, and the split is by sequence; expected several, or block"
    ):
        SynthiaSeqs(root, "train", sequences="*-04-*")


@pytest.mark.parametrize("package", [SynthiaRand, SynthiaRandCityscapes])
def test_the_split_does_not_depend_on_the_listing(
    tmp_path: Path, package: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = {SynthiaRand: layouts.synthia_rand, SynthiaRandCityscapes: layouts.synthia_rand_cityscapes}[package]
    root = write(tmp_path, 20, (2, 2))
    names = {split: layouts.names(package(root, split, val_share=0.25, block=5)) for split in ("train", "val")}
    assert sorted(names["train"] + names["val"]) == [f"{i:07d}" for i in range(20)]
    assert len(names["val"]) == 5
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listing(self), reverse=True)))
    assert {split: layouts.names(package(root, split, val_share=0.25, block=5)) for split in ("train", "val")} == names


def test_missing_parts_are_named(tmp_path: Path) -> None:
    root = layouts.synthia_rand_cityscapes(tmp_path, 4, SIZE)
    with pytest.raises(InputError, match="block=50: 4 frames make 1 block; expected at least 2"):
        SynthiaRandCityscapes(root)
    (root / "GT" / "LABELS" / "0000002.png").unlink()
    with pytest.raises(InputError, match=r"LABELS/0000002.png: no such label file"):
        SynthiaRandCityscapes(root, "all")
    (root / "GT" / "LABELS").rename(root / "GT" / "COLOR")
    with pytest.raises(InputError, match="LABELS: no such folder"):
        SynthiaRandCityscapes(root, "all")
    with pytest.raises(InputError, match="RGB/GT: no such folder"):
        SynthiaRand(tmp_path / "RGB", "all")
    with pytest.raises(InputError, match="labels 'txt' of SYNTHIA-RAND: expected auto, text or colour"):
        SynthiaRand(root, "all", "txt")


@real_frame
def test_the_real_frame() -> None:
    dataset = SynthiaSeqs(SAMPLE, "all")
    image, mask, name = dataset[0]
    assert name == "SYNTHIA-SEQS-04-DAWN_Stereo_Left_Omni_F_000000"
    with Image.open(dataset.images[0]) as file:
        assert np.array_equal(image, np.asarray(file.convert("RGB")))
    ids = cv2.imread(str(dataset.labels[0]), cv2.IMREAD_UNCHANGED)[:, :, 2]
    assert sorted(np.unique(ids)) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 12]
    assert np.array_equal(mask, np.where(ids == 0, 255, ids.astype(int) - 1))
    share = np.bincount(mask.ravel(), minlength=13)[:13] / mask.size
    shown = {name for name, part in zip(dataset.label_space.classes, share, strict=True) if part > 0.05}
    assert shown == {"sky", "building", "road", "vegetation", "car"}


# The stand-in


@pytest.mark.parametrize(
    ("layout", "dataset"), [("rand", SynthiaRand), ("rand_cityscapes", SynthiaRandCityscapes), ("seqs", SynthiaSeqs)]
)
def test_written_scenes_come_back_as_they_were(tmp_path: Path, layout: str, dataset: type) -> None:
    assert write_synthia(tmp_path, 3, "real", (30, 40), seed=7, layout=layout) == 3
    read = dataset(tmp_path, "all")
    scenes = CityScenes(3, 7, "real", (30, 40))
    same = {"pavement": "sidewalk", "tree": "vegetation", "sign": "traffic sign", "bicyclist": "cyclist"}
    if layout == "rand_cityscapes":
        same["bicyclist"] = "bicycle"
    for index in range(3):
        image, mask, _ = read[index]
        scene, classes, _ = scenes[index]
        assert np.array_equal(image, scene)
        for c, name in enumerate(scenes.label_space.classes):
            there = mask == read.label_space.classes.index(same.get(name, name))
            assert np.array_equal(there, classes == c)
    if layout == "rand":
        by_colour = SynthiaRand(tmp_path, "all", "colour")
        assert all(np.array_equal(by_colour.mask(i), read.mask(i)) for i in range(3))


def test_writing_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    assert write_synthia(tmp_path, 2, size=(20, 30)) == 2
    first = (tmp_path / "RGB" / "0000000.png").stat().st_mtime_ns
    (tmp_path / "GT" / "LABELS" / "0000001.png").unlink()  # stopped between image and label
    (tmp_path / "RGB" / ".0123.png").write_bytes(b"half a file")
    assert write_synthia(tmp_path, 4, size=(20, 30)) == 3
    assert (tmp_path / "RGB" / "0000000.png").stat().st_mtime_ns == first
    dataset = SynthiaRandCityscapes(tmp_path, "all")
    assert layouts.names(dataset) == [f"{i:07d}" for i in range(4)]
    assert np.array_equal(dataset[3][0], CityScenes(4, size=(20, 30))[3][0])
    with pytest.raises(InputError, match=r"scenes.json: the folder has scenes of .*'seed': 0.*; expected .*'seed': 1"):
        write_synthia(tmp_path, 4, size=(20, 30), seed=1)
    with pytest.raises(InputError, match="layout 'al' is unknown; expected one of rand, rand_cityscapes, seqs"):
        write_synthia(tmp_path, 4, layout="al")


def test_a_full_disk_leaves_no_half_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, []

    def fail_at_the_fourth(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_fourth)
    with pytest.raises(OSError, match="No space left"):
        write_synthia(tmp_path, 3, size=(20, 30))
    monkeypatch.undo()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"scenes.json", "RGB/0000000.png", "GT/LABELS/0000000.png"}
    assert write_synthia(tmp_path, 3, size=(20, 30)) == 2


def test_the_script_writes_and_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["write_synthia.py", *map(str, arguments)])
        runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "write_synthia.py"), run_name="__main__")

    run(tmp_path, "--length=2", "--layout=seqs", "--size", 20, 30)
    assert capsys.readouterr().out == f"2 scenes written, 0 were there: {tmp_path}\n"
    assert len(SynthiaSeqs(tmp_path, "all")) == 2
    with pytest.raises(SystemExit, match=r"^write_synthia: .*scenes.json: the folder has scenes of"):
        run(tmp_path, "--layout=seqs")
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    assert "python scripts/write_synthia.py data/synthia --length 400" in capsys.readouterr().out


def test_a_text_label_of_too_many_bytes_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "label.txt"
    file.write_text("1 2 3\n" * 100)
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "600")
    assert read_text(file).shape == (100, 3)
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "599")
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(
        InputError, match=r"label.txt: cannot be read as rows of ids \(it takes 600 bytes, more than 599"
    ):
        read_text(file)
