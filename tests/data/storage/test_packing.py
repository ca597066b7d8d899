"""Packed datasets: the samples of the source, whatever happens while they are written, and no damaged ones."""

import json
import multiprocessing
import os
import pickle
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from litdata.streaming import StreamingDataset
from PIL import Image

from fcnseg.data import CamVid, CityScenes
from fcnseg.data.resizing import resize_image, resize_mask
from fcnseg.data.storage import portions as module
from fcnseg.data.storage.encoding import Packing
from fcnseg.data.storage.packed import Packed, packed_nodes, read_manifest
from fcnseg.data.storage.packing import pack as write_pack
from fcnseg.errors import InputError
from fcnseg.labels import STREET11
from tests.data.refusals import complaint

FORK = multiprocessing.get_context("fork")
SCENES = (20, 0, "real", (48, 64))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few samples each, so that random access crosses them."""
    monkeypatch.setattr(module, "SHARD_BYTES", 40_000)


@pytest.fixture
def packed(camvid: Path, tmp_path: Path, small_shards: None) -> Path:
    write_pack({"camvid": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "packed")
    return tmp_path / "packed"


def change(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 255
    file.write_bytes(content)


# What is read


def test_samples_are_those_of_the_source_in_any_order(packed: Path, camvid: Path) -> None:
    for folder, split in (("train/camvid", "train"), ("val", "val")):
        ours, theirs = Packed(packed / folder), CamVid(camvid, split)
        assert len(list((packed / folder).glob("chunk-*.bin"))) > 1
        assert len(ours) == len(theirs)
        assert ours.label_space == STREET11
        for index in np.random.default_rng(0).integers(0, len(theirs), 40):
            (image, mask, name), expected = ours[index], theirs[index]
            assert image.dtype == mask.dtype == np.uint8
            assert np.array_equal(image, expected[0])
            assert np.array_equal(mask, expected[1])
            assert np.array_equal(ours.mask(index), expected[1])
            assert name == expected[2]
        for outside in (-1, len(theirs)):
            with pytest.raises(IndexError):
                ours[outside]


def test_litdata_alone_reads_the_shards(packed: Path, camvid: Path) -> None:
    samples = list(StreamingDataset(str(packed / "val")))
    assert [sample["name"] for sample in samples] == [CamVid(camvid, "val")[i][2] for i in range(4)]
    assert np.array_equal(samples[2]["image"], CamVid(camvid, "val")[2][0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_any_type_and_size(tmp_path: Path, small_shards: None, dtype: str, channels: int) -> None:
    class Source:
        label_space = STREET11

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            random = np.random.default_rng(index)
            shape = (30 + index, 40 - index)
            image = random.integers(0, 256, (*shape, channels)).astype(dtype)
            return image, random.integers(0, 11, shape, np.uint8), f"{index}"

    write_pack({}, Source(), tmp_path / "packed")
    ours = Packed(tmp_path / "packed/val")
    for index in range(5):
        image, mask, name = Source()[index]
        assert ours[index][0].dtype == image.dtype
        assert np.array_equal(ours[index][0], image)
        assert np.array_equal(ours[index][1], mask)
        assert ours[index][2] == name


@pytest.mark.parametrize(("resize", "size"), [("keep", (15, 20)), ("stretch", (24, 20)), ("native", (48, 64))])
def test_samples_can_be_resized_once_and_for_all(
    camvid: Path, tmp_path: Path, resize: str, size: tuple[int, int]
) -> None:
    """Images of 48x64 by the policy's name, without the padding of a batch."""
    write_pack({}, CamVid(camvid, "val"), tmp_path / "packed", Packing(size=(24, 20), resize=resize))
    ours, theirs = Packed(tmp_path / "packed/val"), CamVid(camvid, "val")
    for index in range(4):
        assert np.array_equal(ours[index][0], resize_image(theirs[index][0], size))
        assert np.array_equal(ours[index][1], resize_mask(theirs[index][1], size))
    other = Packing(size=(24, 20), resize="stretch" if resize == "keep" else "keep")
    with pytest.raises(InputError, match="holds other data or settings"):
        write_pack({}, CamVid(camvid, "val"), tmp_path / "packed", other)


def test_jpeg_images_are_close_and_small_and_masks_exact(camvid: Path, tmp_path: Path) -> None:
    write_pack({}, CamVid(camvid, "val"), tmp_path / "packed", Packing(jpeg_quality=95))
    ours, theirs = Packed(tmp_path / "packed/val"), CamVid(camvid, "val")
    for index in range(4):
        image, mask, _ = ours[index]
        Image.fromarray(theirs[index][0]).save(tmp_path / "pil.jpg", quality=95, subsampling="4:2:0")
        as_pil_loses = np.abs(np.asarray(Image.open(tmp_path / "pil.jpg")).astype(int) - theirs[index][0]).mean()
        error = np.abs(image.astype(int) - theirs[index][0]).mean()
        assert 0 < error < 1.2 * as_pil_loses
        assert np.array_equal(mask, theirs[index][1])
    assert sum(f.stat().st_size for f in (tmp_path / "packed/val").glob("*.bin")) < 4 * 48 * 64 * 4 / 2


def test_a_process_started_anew_opens_the_shards_itself(packed: Path) -> None:
    dataset = Packed(packed / "val")
    image = dataset[1][0]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < len(pickle.dumps(STREET11)) + 1000
    assert np.array_equal(pickle.loads(pickled)[1][0], image)


def test_several_threads_get_what_they_ask_for(tmp_path: Path, small_shards: None) -> None:
    """`data.cache=ram` decodes with several, and litdata's reader is in one shard at a time."""
    source = CityScenes(*SCENES)
    names = [source[index][2] for index in range(20)]
    write_pack({}, source, tmp_path / "packed")
    for attempt in range(5):
        order = np.random.default_rng(attempt).integers(0, 20, 400).tolist()
        with ThreadPoolExecutor(4) as pool:
            read = pool.map(Packed(tmp_path / "packed/val").__getitem__, order)
            assert [name for _, _, name in read] == [names[index] for index in order]


def test_a_config_gets_the_datasets_of_a_pack(packed: Path) -> None:
    node = {"_target_": "fcnseg.data.Packed"}
    assert packed_nodes(packed) == {
        "train": {"camvid": {**node, "folder": str(packed / "train/camvid")}},
        "val": {**node, "folder": str(packed / "val")},
    }
    assert complaint(lambda: packed_nodes(packed / "val")).endswith("expected the folder that holds train and val")


# What is refused


def test_a_folder_that_is_no_pack_is_refused(packed: Path, tmp_path: Path) -> None:
    assert complaint(lambda: Packed(packed)) == f"{packed}: several datasets; expected one of train/camvid, val"
    assert complaint(lambda: Packed(tmp_path)) == (
        f"{tmp_path}: no dataset.json; expected a folder written by fcnseg data pack"
    )
    (tmp_path / "file").touch()
    assert complaint(lambda: packed_nodes(tmp_path / "file")).startswith(f"{tmp_path / 'file'}: no dataset.json")
    manifest = packed / "val/dataset.json"
    manifest.write_text(manifest.read_text()[:100])
    assert complaint(lambda: Packed(packed / "val")).startswith(f"{manifest}: damaged (")
    (packed / "dataset.json").write_text('{"version": 1, "train": ["../../elsewhere"]}')
    assert complaint(lambda: packed_nodes(packed)) == f"{packed / 'dataset.json'}: damaged (train); pack the data again"
    manifest.write_text("[" * 100_000)
    assert complaint(lambda: Packed(packed / "val")).startswith(f"{manifest}: damaged (RecursionError)")
    manifest.write_text('{"version": 2}')
    assert complaint(lambda: Packed(packed / "val")) == f"{manifest}: version 2; expected 1; pack the data again"


def test_missing_and_cut_files_are_refused_at_once(packed: Path) -> None:
    shard = sorted((packed / "val").glob("chunk-*"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    found = f"{shard}: {len(content) - 10} bytes; expected {len(content)} bytes; pack the data again"
    assert complaint(lambda: Packed(packed / "val")) == found
    shard.unlink()
    assert complaint(lambda: Packed(packed / "val")).startswith(f"{shard}: missing; expected")


@pytest.mark.parametrize("jpeg_quality", [None, 90])
def test_a_changed_byte_of_a_shard_never_gives_another_sample(
    camvid: Path, tmp_path: Path, jpeg_quality: int | None
) -> None:
    """In the shard's header, an array's header, pixels, masks, names or checksums.

    What is left unused, such as the size of the last field, may change and is not refused.
    """
    write_pack({}, CamVid(camvid, "val"), tmp_path / "packed", Packing(jpeg_quality=jpeg_quality))
    folder = tmp_path / "packed/val"
    shard = folder / "chunk-0-0.bin"
    whole = shard.read_bytes()
    expected = [Packed(folder)[index] for index in range(4)]
    unused = 0
    places = [*range(0, 60), *np.random.default_rng(0).integers(60, len(whole), 40).tolist(), len(whole) - 1]
    for place in places:
        change(shard, place)
        try:
            read = [Packed(folder)[index] for index in range(4)]
        except InputError as error:
            assert re.fullmatch(rf"{folder}: sample \d is damaged \(.+\); pack the data again", str(error))  # noqa: PT017
        else:
            unused += 1
            for sample, sample2 in zip(read, expected, strict=True):
                assert all(
                    np.array_equal(a, b) and np.shape(a) == np.shape(b) for a, b in zip(sample, sample2, strict=True)
                )
        shard.write_bytes(whole)
    assert unused <= 8


def test_an_index_that_is_damaged_is_named(packed: Path) -> None:
    change(packed / "val/index.json", 20)
    assert complaint(lambda: Packed(packed / "val")).startswith(f"{packed / 'val/index.json'}: damaged (")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": [0, 5]}, "size=[0, 5]: expected [height, width] in pixels"),
        ({"size": [5]}, "size=[5]: expected [height, width] in pixels"),
        ({"jpeg_quality": 0}, "jpeg_quality=0: expected a whole number from 1 to 100"),
        ({"jpeg_quality": 95.5}, "jpeg_quality=95.5: expected a whole number from 1 to 100"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, message: str) -> None:
    assert complaint(lambda: Packing(**wrong)) == message


def test_jpeg_holds_bytes_of_three_channels_only() -> None:
    sample = np.zeros((4, 4, 5), np.float32), np.zeros((4, 4), np.uint8), "tile7"
    assert complaint(lambda: Packing(jpeg_quality=90).encode(sample)) == (
        "jpeg_quality=90: tile7 is float32 with 5 channels; expected uint8 RGB"
    )


# Writing


def test_progress_tells_of_every_sample_twice(camvid: Path, tmp_path: Path) -> None:
    told: list[str] = []
    write_pack({"a": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "packed", progress=told.append)
    assert told == ["train/a"] * 16 + ["val"] * 8


def test_packing_again_does_nothing_and_other_data_are_refused(packed: Path, camvid: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in packed.rglob("*")}
    write_pack({"camvid": CamVid(camvid)}, CamVid(camvid, "val"), packed)
    assert {file: file.stat().st_mtime_ns for file in packed.rglob("*")} == before
    refused = f"{packed}: holds other data or settings; remove it, or choose another output"
    others = [
        ({"camvid": CamVid(camvid)}, Packing(jpeg_quality=90)),
        ({"other": CamVid(camvid)}, Packing()),
        ({"camvid": CityScenes(*SCENES)}, Packing()),
    ]
    for train, packing in others:
        assert complaint(lambda t=train, p=packing: write_pack(t, CamVid(camvid, "val"), packed, p)) == refused


def test_a_foreign_folder_and_a_file_are_left_alone(camvid: Path, tmp_path: Path) -> None:
    message = complaint(lambda: write_pack({}, CamVid(camvid, "val"), camvid))
    assert message == f"{camvid}: holds train; expected a new or an empty folder"
    assert sorted(path.name for path in camvid.iterdir()) == ["train", "trainannot", "val", "valannot"]
    (tmp_path / "file").write_text("mine")
    message = complaint(lambda: write_pack({}, CamVid(camvid, "val"), tmp_path / "file"))
    assert message == f"{tmp_path / 'file'}: expected a folder, found a file"


def test_a_source_that_is_unreadable_leaves_no_pack(camvid: Path, tmp_path: Path) -> None:
    file = sorted((camvid / "val").iterdir())[2]
    file.write_bytes(b"no image")
    val = CamVid(camvid, "val")
    assert str(file) in complaint(lambda: write_pack({}, val, tmp_path / "packed"))
    assert not list((tmp_path / "packed").rglob("dataset.json"))


def test_what_a_disk_does_not_keep_is_noticed(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a shard changes between writing and verifying."""
    real = module.verify

    def on_a_bad_disk(folder: Path, *arguments) -> None:
        change(folder / "chunk-0-0.bin", 5000)
        real(folder, *arguments)

    monkeypatch.setattr(module, "verify", on_a_bad_disk)
    message = complaint(lambda: write_pack({}, CamVid(camvid, "val"), tmp_path / "packed"))
    assert message.endswith("sample 0 cannot be read back; expected a disk that keeps what is written")
    assert not list((tmp_path / "packed").rglob("dataset.json"))


class Slow(CityScenes):
    """Tells when its last but one sample is read, and waits there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(*SCENES)
        self.folder = folder

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        if index == 19:
            (self.folder / "nearly").touch()
            time.sleep(60)
        return super().__getitem__(index)

    def __getstate__(self) -> dict:
        return CityScenes(*SCENES).__dict__

    __qualname__, __module__ = CityScenes.__qualname__, CityScenes.__module__


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_number_of_processes_writes_the_same_bytes(camvid: Path, tmp_path: Path, small_shards: None) -> None:
    for workers in (1, 2, 3):
        told: list[str] = []
        train = {"scenes": CityScenes(*SCENES)}
        write_pack(train, CamVid(camvid, "val"), tmp_path / str(workers), progress=told.append, workers=workers)
        assert told == ["train/scenes"] * 40 + ["val"] * 8
    assert len(list((tmp_path / "1/train/scenes").glob("chunk-*"))) == 7
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")


def test_large_samples_among_small_ones_get_more_shards(tmp_path: Path, small_shards: None) -> None:
    class Source:
        label_space = STREET11

        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            side = 10 if index < 16 else 80
            return np.full((side, side, 3), index, np.uint8), np.full((side, side), index % 11, np.uint8), f"{index}"

    write_pack({}, Source(), tmp_path / "packed")
    names = [path.name for path in sorted((tmp_path / "packed/val").glob("chunk-*"))]
    assert names == ["chunk-0-0.bin", "chunk-1-0.bin", "chunk-2-0.bin", "chunk-2-1.bin"]
    ours = Packed(tmp_path / "packed/val")
    assert [(ours[index][0].shape[0], ours[index][0][0, 0, 0], ours[index][2]) for index in range(20)] == [
        (10 if index < 16 else 80, index, f"{index}") for index in range(20)
    ]


def test_a_mistake_in_any_process_is_told(tmp_path: Path, camvid: Path, small_shards: None) -> None:
    file = sorted((camvid / "train").iterdir())[7]
    file.write_bytes(b"no image")
    assert str(file) in complaint(lambda: write_pack({"c": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "p"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_pack_goes_on_after_the_shards_that_are_whole(
    tmp_path: Path, small_shards: None, workers: int
) -> None:
    folder = tmp_path / "packed"
    val = CityScenes(*SCENES)
    train = {"first": CityScenes(6, 1, "real", (48, 64)), "second": val}
    slow = {"workers": workers, "train": train | {"second": Slow(tmp_path)}, "val": val, "folder": folder}
    process = FORK.Process(target=lambda: write_pack(**slow))
    process.start()
    second = folder / "train/second"
    while not (tmp_path / "nearly").exists() or len(list(second.glob("portion-*"))) < 6:
        time.sleep(0.01)
    busy = complaint(lambda: write_pack(train, val, folder))
    assert busy == f"{folder}: another process is packing to it"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    assert complaint(lambda: packed_nodes(folder)) == (
        f"{folder}: was interrupted while it was packed; run the same command again"
    )
    for part in ("train/second", "val"):
        assert complaint(lambda part=part: Packed(folder / part)).startswith(f"{folder / part}: no dataset.json")
    message = complaint(lambda: write_pack(train, val, folder, Packing(size=(24, 32))))
    assert message == f"{folder}: holds other data or settings; remove it, or choose another output"
    whole = {path: path.stat() for path in folder.rglob("chunk-*.bin")}
    assert sorted(path.name for path in whole if path.parent == second) == [f"chunk-{i}-0.bin" for i in range(6)]
    spoilt = second / "chunk-4-0.bin"
    spoilt.write_bytes(spoilt.read_bytes()[:-1])

    told: list[str] = []
    write_pack(train, val, folder, progress=told.append, workers=workers)
    assert told == ["train/first"] * 12 + ["train/second"] * 40 + ["val"] * 40
    for path, state in whole.items():
        again = path == spoilt
        assert ((path.stat().st_ino, path.stat().st_mtime_ns) != (state.st_ino, state.st_mtime_ns)) == again, path
    assert read_manifest(folder)["train"] == ["first", "second"]
    ours = Packed(second)
    for index in range(len(val)):
        assert np.array_equal(ours[index][0], val[index][0])
    write_pack(train, val, tmp_path / "at once")
    assert content(folder) == content(tmp_path / "at once")
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "train", "val"]
    assert set(json.loads((folder / "val/dataset.json").read_text())["files"]) == {
        path.name for path in (folder / "val").iterdir() if path.name != "dataset.json"
    }


def test_a_killed_process_is_told(tmp_path: Path, small_shards: None) -> None:
    class Deadly(CityScenes):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            if index == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    assert complaint(lambda: write_pack({}, Deadly(*SCENES), tmp_path / "packed", workers=2)) == (
        "a process that packs was killed, perhaps for memory; try workers=1"
    )


def test_a_name_that_a_file_has_stays_a_name(tmp_path: Path, camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    val = CamVid(camvid, "val")
    for index in range(4):
        Path(val[index][2]).write_text("not this")
    write_pack({}, val, "packed")
    assert [Packed("packed/val")[index][2] for index in range(4)] == [val[index][2] for index in range(4)]


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_is_named_and_leaves_no_manifest(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    import resource

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_pack({}, CityScenes(*SCENES), tmp_path / "packed")
        except OSError as error:
            (tmp_path / "error").write_text(f"{error.strerror}: {error.filename}")

    process = FORK.Process(target=fill)
    process.start()
    process.join()
    assert (tmp_path / "error").read_text() == f"File too large: {tmp_path / 'packed/val'}"
    assert not list(tmp_path.rglob("dataset.json"))
    write_pack({}, CityScenes(*SCENES), tmp_path / "packed")
    assert len(Packed(tmp_path / "packed/val")) == 20
