"""cache=ram: decoded once for all processes of a host, in memory that is there once and ends with the last of them."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from fcnseg.data import CamVid, CityScenes
from fcnseg.data.storage import cache as module
from fcnseg.data.storage.cache import Preloaded
from fcnseg.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory that others find is Linux's")

FORK = multiprocessing.get_context("fork")
SCENES = (16, 0, "real", (240, 320))
BYTES = 16 * 240 * 320 * 4


class Told(CityScenes):
    """Leaves a file for each process that draws its scenes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(*SCENES)
        self.folder = folder

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        (self.folder / f"drawn {os.getpid()}").touch()
        return super().__getitem__(index)


def holding(folder: Path, pipe: Connection) -> None:
    """Take the dataset from the cache, read it all, tell the memory that it takes, and stay until told to go."""
    kept = Preloaded(Told(folder), folder / "cache")
    sums = [int(image.sum()) + int(mask.sum()) for image, mask, _ in (kept[i] for i in range(len(kept)))]
    pipe.send((os.getpid(), kept.samples.content.nbytes, mapped(kept._file.path if kept._file else ""), sums))
    pipe.recv()


def mapped(path: str) -> dict[str, int]:
    """Bytes of a file in memory that are mapped by this process, and its share of them: PSS divides shared pages."""
    inode, found, counts = os.stat(path).st_ino, {"Rss": 0, "Pss": 0, "Private_Dirty": 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counts = len(words) > 4 and words[4] == str(inode) and "memfd" in line
        elif counts and words[0][:-1] in found:
            found[words[0][:-1]] += int(words[1]) * 1024
    return found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[tuple[multiprocessing.Process, Connection]]]:
    """Processes that are ended with the test."""
    processes: list[tuple[multiprocessing.Process, Connection]] = []
    yield processes
    for process, _ in processes:
        process.kill()
        process.join()


def start(processes: list, folder: Path) -> tuple:
    """Another process, when it has read all samples; what it tells."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=holding, args=(folder, theirs))
    process.start()
    processes.append((process, ours))
    assert ours.poll(60)
    return ours.recv()


def test_two_processes_take_the_memory_once(tmp_path: Path, started: list) -> None:
    start(started, tmp_path)
    _, size, memory, sums = start(started, tmp_path)
    assert len(list(tmp_path.glob("drawn*"))) == 1, "one decodes"
    assert size > BYTES
    assert memory["Rss"] > 0.95 * BYTES, "it has read all of it"
    assert memory["Pss"] < 0.55 * size, "half of what both have"
    expected = [CityScenes(*SCENES)[i] for i in range(16)]
    assert sums == [int(image.sum()) + int(mask.sum()) for image, mask, _ in expected]
    kept = Preloaded(Told(tmp_path), tmp_path / "cache")
    for index, (image, mask, name) in enumerate(expected):
        assert np.array_equal(kept[index][0], image)
        assert np.array_equal(kept[index][1], mask)
        assert kept[index][2] == name
    assert len(list(tmp_path.glob("drawn*"))) == 1


def test_a_killed_owner_leaves_the_memory_to_those_that_have_it_and_then_nothing(tmp_path: Path, started: list) -> None:
    first, second = start(started, tmp_path), start(started, tmp_path)
    (listed,) = (tmp_path / "cache").rglob("memory-*.json")
    assert [path.split("/")[2] for path in json.loads(listed.read_text())] == [str(first[0]), str(second[0])]
    kill(started[0][0])
    third = start(started, tmp_path)
    assert third[3] == first[3]
    assert len(list(tmp_path.glob("drawn*"))) == 1, "from the second one's hands"
    for process, _ in started[1:]:
        kill(process)
    assert not [path for path in json.loads(listed.read_text()) if os.path.exists(path)]
    assert not list((tmp_path / "cache").rglob("*.bin"))
    assert start(started, tmp_path)[3] == first[3]
    assert len(list(tmp_path.glob("drawn*"))) == 2, "the next run decodes anew"


def kill(process: multiprocessing.Process) -> None:
    process.kill()
    process.join()


def test_what_stands_in_the_place_of_the_memory_is_not_taken_for_it(tmp_path: Path) -> None:
    """A process that has the number of one that is gone, and a pipe in which reading would wait."""
    Preloaded(Told(tmp_path), tmp_path / "cache")
    (listed,) = (tmp_path / "cache").rglob("memory-*.json")
    (tmp_path / f"drawn {os.getpid()}").unlink()
    reader, _writer = os.pipe()
    other = os.memfd_create("fcnseg")
    os.write(other, b"something else")
    for text in (json.dumps([f"/proc/{os.getpid()}/fd/{n}" for n in (reader, other, 999_999)]), "damaged", "7", ""):
        listed.write_text(text)
        kept = Preloaded(Told(tmp_path), tmp_path / "cache")
        assert (tmp_path / f"drawn {os.getpid()}").exists()
        (tmp_path / f"drawn {os.getpid()}").unlink()
        assert len(kept) == 16


def test_changed_files_are_decoded_beside_what_is_shared(tmp_path: Path, camvid: Path) -> None:
    before = Preloaded(CamVid(camvid), tmp_path / "cache")
    first, second = sorted((camvid / "train").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    after = Preloaded(CamVid(camvid), tmp_path / "cache")
    assert not np.array_equal(before[1][0], after[1][0])
    assert np.array_equal(after[1][0], CamVid(camvid)[1][0])


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_map_the_memory_however_they_are_started(tmp_path: Path, method: str) -> None:
    """`tests/data/test_dataset.py` has those of spawn."""
    kept = Preloaded(CityScenes(6, size=(24, 32)), tmp_path / "cache")
    loader = DataLoader(kept, batch_size=None, num_workers=1, multiprocessing_context=method)
    for index, (image, mask, name) in enumerate(loader):
        assert np.array_equal(image, kept[index][0])
        assert np.array_equal(mask, kept[index][1])
        assert name == kept[index][2]


def test_nobody_can_write_to_the_memory(tmp_path: Path) -> None:
    kept = Preloaded(CityScenes(2, size=(24, 32)), tmp_path / "cache")
    assert kept._file is not None
    with open(kept._file.path, "r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"x")


def test_more_than_the_memory_that_is_left_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 2e6)
    with pytest.raises(InputError) as refusal:
        Preloaded(CityScenes(*SCENES), tmp_path)
    assert str(refusal.value) == (
        "cache=ram: 16 decoded samples take 0.00492 GB, this host has 0.002 GB of memory left for this process; "
        "take cache=disk or cache=none"
    )
    assert not list(tmp_path.rglob("memory-*.json"))


class Locked(CityScenes):
    """What it is made of cannot be told."""

    def __getstate__(self) -> dict:
        raise TypeError("cannot pickle this")


def test_without_memory_that_others_find_each_process_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()  # no folder
    for dataset in (CityScenes(4, size=(24, 32)), Locked(4, size=(24, 32))):
        assert Preloaded(dataset, tmp_path / "cache")[3][2] == dataset[3][2]
    monkeypatch.delattr(os, "memfd_create")
    kept = Preloaded(CityScenes(4, size=(24, 32)), tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    loader = DataLoader(kept, batch_size=None, sampler=[3], num_workers=1, multiprocessing_context="forkserver")
    ((image, mask, name),) = loader
    assert np.array_equal(image, CityScenes(4, size=(24, 32))[3][0])
    assert np.array_equal(mask, kept[3][1])
    assert name == kept[3][2]
