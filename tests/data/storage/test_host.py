"""Facts that one process of a host computes, and the others and later runs read."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from fcnseg.data import CamVid, CityScenes, Concat, PairedFolder, Remapped, SegmentationData, Subset
from fcnseg.data.dataset import SegmentationDataset, files_of
from fcnseg.data.storage.host import once
from fcnseg.labels import STREET11

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fcnseg"


def slowly(folder: Path, camvid: Path) -> None:
    """Compute a fact and leave a file that tells of it."""

    def compute() -> int:
        time.sleep(0.5)
        (folder / f"computed {os.getpid()}").touch()
        return 42

    assert once(CamVid(camvid), range(8), "answer", compute) == 42


def test_of_several_processes_one_computes_and_the_others_wait(tmp_path: Path, camvid: Path) -> None:
    processes = [FORK.Process(target=slowly, args=(tmp_path, camvid)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("computed*"))) == 1


def test_a_fact_lasts_until_its_samples_or_settings_change(camvid: Path) -> None:
    def fact(dataset: SegmentationDataset, indices: range = range(4), what: str = "length") -> int:
        counted.append(len(counted))
        return once(dataset, indices, what, lambda: counted[-1])

    counted: list[int] = []
    files = sorted((camvid / "train").iterdir())
    assert [fact(CamVid(camvid)) for _ in range(3)] == [0, 0, 0]
    files[7].write_bytes(files[6].read_bytes())  # none of those that decide
    assert fact(CamVid(camvid)) == 0
    assert fact(CamVid(camvid), range(5)) == 4
    assert fact(CamVid(camvid), what="other") == 5
    assert fact(Subset(CamVid(camvid), 0.5)) == 6
    files[2].write_bytes(files[2].read_bytes()[:-1] + b"x")
    assert fact(CamVid(camvid)) == 7


def test_samples_without_files_are_looked_at_each_time(own_cache: Path) -> None:
    answers = iter((1, 2))
    assert [once(CityScenes(4, size=(8, 8)), range(4), "x", lambda: next(answers)) for _ in range(2)] == [1, 2]
    assert not own_cache.exists()


def test_where_nothing_can_be_kept_facts_are_computed(own_cache: Path, camvid: Path) -> None:
    own_cache.parent.mkdir()
    own_cache.write_text("a file in the place of the folder")
    answers = iter((1, 2))
    assert [once(CamVid(camvid), range(4), "x", lambda: next(answers)) for _ in range(2)] == [1, 2]


def test_files_of_a_sample_are_told_through_all_wrappers(camvid: Path) -> None:
    dataset = CamVid(camvid)
    row = Concat([CityScenes(3), Subset(Remapped(dataset, "street11"), 0.5, 0.25)])
    assert files_of(row, 2) == ()
    assert files_of(row, 4) == (dataset.images[3], dataset.labels[3])


def test_class_frequencies_are_counted_once(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data(camvid).class_pixels()
    monkeypatch.setattr(PairedFolder, "read_values", None)
    assert np.array_equal(data(camvid).class_pixels(), first)
    assert first.sum() > 0


def test_statistics_are_measured_once(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data(camvid, images="{}annot", channels=1).image_facts()
    monkeypatch.setattr("fcnseg.data.datamodule.normalisation", None)
    assert data(camvid, images="{}annot", channels=1).image_facts() == first
    assert isinstance(first["mean"], tuple)


def data(camvid: Path, images: str = "{}", channels: int = 3) -> SegmentationData:
    if not (camvid / "labels").exists():  # beside the folder that is read as images
        for split in ("train", "val"):
            shutil.copytree(camvid / f"{split}annot", camvid / "labels" / split)
    train, val = (
        PairedFolder(camvid / images.format(split), camvid / "labels" / split, STREET11, channels=channels)
        for split in ("train", "val")
    )
    return SegmentationData({"camvid": train}, val, size=(24, 32), num_workers=0, batch_size=2)
