"""Decoded samples kept in memory and on disk: the same samples, read from their files once, and never a wrong one."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcnseg.data import CamVid, CityScenes, PairedFolder
from fcnseg.data.dataset import SegmentationDataset, read_all
from fcnseg.data.storage import cache as module
from fcnseg.data.storage.cache import DiskCached, Preloaded
from fcnseg.data.storage.fingerprint import identity
from fcnseg.errors import InputError
from fcnseg.labels import STREET11, VOC21

Keep = Callable[[SegmentationDataset], SegmentationDataset]


class Remote:
    """Samples of several sizes, channels and dtypes."""

    label_space = STREET11

    def __init__(self, dtype: str = "uint8", length: int = 7) -> None:
        self.dtype, self.length = dtype, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        random = np.random.default_rng(index)
        shape = (3 + index, 10 - index)
        image = random.integers(0, 200, (*shape, 1 + index % 5)).astype(self.dtype)
        return image, random.integers(0, 11, shape, np.uint8), f"Straße {index}"


def assert_same(ours: SegmentationDataset, theirs: SegmentationDataset) -> None:
    assert len(ours) == len(theirs)
    assert ours.label_space == theirs.label_space
    for index in range(len(theirs)):
        (image, mask, name), (image2, mask2, name2) = ours[index], theirs[index]
        assert image.dtype == image2.dtype
        assert np.array_equal(image, image2)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, mask2)
        assert np.array_equal(ours.mask(index), mask2)  # type: ignore[attr-defined]
        assert name == name2


@pytest.fixture(params=["ram", "disk"])
def keep(request: pytest.FixtureRequest, tmp_path: Path) -> Keep:
    kind = Preloaded if request.param == "ram" else DiskCached
    return lambda dataset: kind(dataset, tmp_path / "cache")


def cache_file(folder: Path) -> Path:
    (file,) = folder.glob("*/samples.bin")
    return file


# What both give


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "float64"])
def test_samples_come_back_bit_by_bit(keep: Keep, dtype: str) -> None:
    assert_same(keep(Remote(dtype)), Remote(dtype))


def test_files_are_read_once_and_then_no_more(keep: Keep, camvid: Path) -> None:
    expected = [CamVid(camvid)[i] for i in range(8)]
    kept = keep(CamVid(camvid))
    for file in camvid.rglob("*.png"):
        file.write_bytes(b"gone")
    for sample, (image, mask, name) in zip((kept[i] for i in range(8)), expected, strict=True):
        assert np.array_equal(sample[0], image)
        assert np.array_equal(sample[1], mask)
        assert sample[2] == name
    assert np.array_equal(kept.mask(3), expected[3][1])  # type: ignore[attr-defined]


def test_what_is_kept_cannot_be_changed_by_its_reader(keep: Keep) -> None:
    image, mask, _ = keep(Remote())[0]
    for array in (image, mask):
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_reading_ahead_is_bounded() -> None:
    """A slow writer must not pile the decoded dataset up in memory."""
    read: list[int] = []

    class Counting(Remote):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            read.append(index)
            return super().__getitem__(index % 7)

    samples = read_all(Counting(length=1000), threads=2)
    next(samples)
    time.sleep(0.05)
    assert 1 <= len(read) <= 16
    assert len(list(samples)) == 999
    assert sorted(read) == list(range(1000))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory from Linux's /proc")
def test_a_worker_shares_the_memory_of_what_is_kept(keep: Keep) -> None:
    """A forked process that reads every one of 20,000 samples must not copy the table or touch objects for each.

    As Python tuples of arrays, the samples alone would take about 12 MB, all of it copied for their reference counts.
    """
    kept = keep(Remote(length=2))
    rows = kept.samples.rows if isinstance(kept, Preloaded) else kept._samples.rows  # type: ignore[attr-defined]
    many = module.Samples(np.tile(rows, 10_000), (getattr(kept, "samples", None) or kept._samples).content)  # type: ignore[attr-defined]
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        many[0]
        before = private_bytes()
        for index in range(20_000):
            many[index]
        os.write(write_end, str(private_bytes() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read_end, 100)) < 2_000_000


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))


# On disk


def test_a_second_run_reads_nothing_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DiskCached(Remote(), tmp_path)
    written = cache_file(tmp_path).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "__getitem__", None)
        again = DiskCached(Remote(), tmp_path)
        samples = [again[i] for i in range(7)]
    assert_same(again, Remote())
    assert len(samples) == 7
    assert cache_file(tmp_path).stat().st_mtime_ns == written


def test_a_process_started_anew_maps_the_file(tmp_path: Path) -> None:
    """Pickling, as `spawn` does, carries the path and not the pixels."""
    kept = DiskCached(CityScenes(4, 0, "real", (48, 64)), tmp_path)
    pickled = pickle.dumps(kept)
    assert len(pickled) < len(pickle.dumps((kept.dataset, STREET11))) + 1000
    there = pickle.loads(pickled)
    assert_equal_samples(there, kept)
    assert there._samples is not None, "came from the source"


@pytest.mark.parametrize("change", ["pixels", "size and date kept", "added", "label space", "settings"])
def test_a_changed_dataset_is_decoded_again(tmp_path: Path, camvid: Path, change: str) -> None:
    space = STREET11
    before = DiskCached(PairedFolder(camvid / "train", camvid / "trainannot", space), tmp_path).state
    file = sorted((camvid / "train").iterdir())[0]
    stat = file.stat()
    if change == "pixels":
        Image.fromarray(np.full((48, 64, 3), 77, np.uint8)).save(file)
    elif change == "size and date kept":
        other = sorted((camvid / "train").iterdir())[1]
        (first, second), size = (
            (path.read_bytes() for path in (file, other)),
            max(file.stat().st_size, other.stat().st_size),
        )
        file.write_bytes(first.ljust(size, b"\0"))  # what follows the end of a PNG does not count
        other.write_bytes(second.ljust(size, b"\0"))
        before = DiskCached(PairedFolder(camvid / "train", camvid / "trainannot", space), tmp_path).state
        stat = file.stat()
        file.write_bytes(second.ljust(size, b"\0"))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    elif change == "added":
        for folder in ("train", "trainannot"):
            first_file = sorted((camvid / folder).iterdir())[0]
            (camvid / folder / "zzz.png").write_bytes(first_file.read_bytes())
    elif change == "label space":
        space = type(space)(**{**space.to_dict(), "ignored_ids": (11, 12, 255)})
    dataset = PairedFolder(camvid / "train", camvid / "trainannot", space)
    if change == "settings":
        dataset.gamma = 2.0  # type: ignore[attr-defined]
    kept = DiskCached(dataset, tmp_path)
    assert kept.state != before
    assert_same(kept, dataset)
    if change in ("pixels", "size and date kept"):  # the same files: what is stale goes, nothing piles up
        cache_file(tmp_path)


def test_identities_tell_datasets_apart() -> None:
    datasets = [
        CityScenes(4, seed, look, (h, 64)) for seed in (0, 1) for look in ("real", "synthetic") for h in (48, 64)
    ]
    assert len({identity(d) for d in [*datasets, Remote(), Remote("int16"), Remote(length=8)]}) == 11
    assert identity(CityScenes(4, 0, "real", (48, 64))) == identity(datasets[0])

    class Other(Remote):
        label_space = VOC21

    Other.__qualname__ = Remote.__qualname__
    assert identity(Other()) != identity(Remote())


@pytest.mark.parametrize("damage", ["truncated", "header", "table", "empty", "longer"])
def test_a_damaged_file_is_written_again(tmp_path: Path, damage: str) -> None:
    DiskCached(Remote(), tmp_path)
    file = cache_file(tmp_path)
    whole = file.read_bytes()
    flipped = {"header": 30, "table": module.HEADER.size + 5}
    content = {"truncated": whole[:-64], "empty": b"", "longer": whole + bytes(64)}
    place = flipped.get(damage, 0)
    file.write_bytes(content.get(damage) or whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    if damage == "empty":
        file.write_bytes(b"")
    kept = DiskCached(Remote(), tmp_path)
    assert file.read_bytes() == whole
    assert_same(kept, Remote())


def test_a_sample_whose_bytes_changed_comes_from_its_source(tmp_path: Path) -> None:
    DiskCached(Remote(), tmp_path)
    file = cache_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[-64] ^= 255  # within the last sample
    file.write_bytes(content)
    kept = DiskCached(Remote(), tmp_path)
    assert not kept._samples.intact(6)  # type: ignore[union-attr]
    assert_same(kept, Remote())
    assert not file.exists(), "the next run writes it again"
    assert DiskCached(Remote(), tmp_path)._samples.intact(6)  # type: ignore[union-attr]


def test_a_limit_stops_before_the_disk_is_filled(tmp_path: Path) -> None:
    big = CityScenes(40, 0, "real", (48, 64))  # 12 kB each
    with pytest.raises(InputError) as refusal:
        DiskCached(big, tmp_path, limit=1e-4)
    assert str(refusal.value) == (
        f"cache=disk: 40 decoded samples take 0.000492 GB, {tmp_path} has room for 0.0001 of cache_limit=0.0001 GB; "
        "empty it, raise the limit, or take cache=none"
    )
    assert not list(tmp_path.rglob("*.bin"))
    DiskCached(big, tmp_path, limit=6e-4)
    with pytest.raises(InputError, match="has room for"):  # the cache as a whole is limited
        DiskCached(CityScenes(40, 1, "real", (48, 64)), tmp_path, limit=6e-4)


def test_samples_larger_than_the_estimate_are_still_limited(tmp_path: Path) -> None:
    class Growing(Remote):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            side = 200 if index == 1 else 2
            return np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8), "x"

    with pytest.raises(InputError, match="has room for"):
        DiskCached(Growing(length=40), tmp_path, limit=1e-4)
    assert not list(tmp_path.rglob("*.bin"))


# Several processes, and processes that end early

FORK = multiprocessing.get_context("fork")
SCENES = (30, 0, "real", (48, 64))


class Slow(CityScenes):
    """Tells when it is half-way, and waits there."""

    def __init__(self, folder: Path, pause: float) -> None:
        super().__init__(*SCENES)
        self.folder, self.pause = folder, pause

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        if index == 22:  # none of those that the estimate of the size reads
            (self.folder / f"half-way {os.getpid()}").touch()
            time.sleep(self.pause)
        return super().__getitem__(index)

    def __getstate__(self) -> dict[str, Any]:
        return CityScenes(*SCENES).__dict__

    __qualname__, __module__ = CityScenes.__qualname__, CityScenes.__module__


def assert_equal_samples(ours: SegmentationDataset, theirs: SegmentationDataset) -> None:
    assert len(ours) == len(theirs)
    for index in range(len(theirs)):
        for part, part2 in zip(ours[index], theirs[index], strict=True):
            assert np.array_equal(part, part2)


def test_a_run_killed_while_it_writes_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    process = FORK.Process(target=lambda: DiskCached(Slow(tmp_path, 60), tmp_path / "cache"))
    process.start()
    while not list(tmp_path.glob("half-way*")):
        time.sleep(0.01)
    time.sleep(0.1)  # it goes on to write what was read before
    process.kill()
    process.join()
    assert process.exitcode == -9
    assert not list(tmp_path.rglob("samples.bin"))
    assert len(list(tmp_path.rglob(".*.bin"))) == 1

    scenes = CityScenes(*SCENES)
    assert_equal_samples(DiskCached(scenes, tmp_path / "cache"), scenes)
    assert len(list(tmp_path.rglob("*.bin"))) == 1, "the next run clears up"


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    import resource

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            DiskCached(CityScenes(*SCENES), tmp_path)
        except OSError as error:
            (tmp_path / "error").write_text(f"{error.strerror} {error.filename}")

    process = FORK.Process(target=fill)
    process.start()
    process.join()
    message = (tmp_path / "error").read_text()
    assert message.startswith(f"File too large {tmp_path}")
    assert message.endswith("samples.bin")
    assert not list(tmp_path.rglob("*.bin"))


def test_of_two_processes_one_decodes_and_one_waits(tmp_path: Path) -> None:
    processes = [FORK.Process(target=lambda: DiskCached(Slow(tmp_path, 0.2), tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("half-way*"))) == 1
