"""Worker processes: how many, started in which way, what they are handed, and that none is left behind."""

import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from fcnseg import cores
from fcnseg.data import CamVid, CityScenes, SegmentationData
from fcnseg.data.batches import TrainingSamples, default_workers
from fcnseg.data.storage.cache import DiskCached, Preloaded
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack
from fcnseg.data.transforms import street_pipeline
from tests.data.test_datamodule import same

METHODS = torch.multiprocessing.get_all_start_methods()
SIZE = (24, 32)


def every_storage(camvid: Path, folder: Path, **options: Any) -> SegmentationData:
    """A domain from files, one from each cache and one from a pack, and one that is drawn."""
    files, val = CamVid(camvid), CamVid(camvid, "val")
    pack({"packed": files}, val, folder / "packed")
    train = {
        "files": files,
        "ram": Preloaded(files),
        "disk": DiskCached(files, folder / "cache"),
        "packed": Packed(folder / "packed/train/packed"),
        "drawn": CityScenes(3, size=SIZE),
    }
    options = {"batch_size": 5, "steps_per_epoch": 2, "cache": "disk", "cache_folder": folder / "cache", **options}
    data = SegmentationData(train, val, size=SIZE, augment=street_pipeline(SIZE), **options)
    data.setup("validate")
    return data


@pytest.mark.parametrize("method", METHODS)
def test_however_workers_are_started_batches_are_the_same(camvid: Path, tmp_path: Path, method: str) -> None:
    alone = every_storage(camvid, tmp_path, num_workers=0)
    helped = every_storage(camvid, tmp_path, num_workers=1, start_method=method, prefetch_factor=1)
    assert same(list(helped.train_dataloader()), list(alone.train_dataloader()))
    if method == "fork":  # the quickest to start
        assert same(list(helped.val_dataloader()), list(alone.val_dataloader()))


@pytest.mark.parametrize("kind", [Preloaded, DiskCached])
def test_what_workers_are_handed_does_not_grow_with_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small, large = (
        len(ForkingPickler.dumps(TrainingSamples([kind(CityScenes(12, size=size))], street_pipeline(SIZE), 0)))
        for size in ((30, 40), (240, 320))
    )
    assert large < small + 1000


def test_settings_of_workers_reach_the_loader() -> None:
    scenes = CityScenes(2, size=SIZE)
    loader = SegmentationData(
        {"a": scenes}, scenes, size=SIZE, batch_size=2, num_workers=3, start_method="spawn", prefetch_factor=5
    ).train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor) == (3, 5)
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    none = SegmentationData({}, scenes, size=SIZE, num_workers=0, start_method="spawn", prefetch_factor=5)
    assert len(list(none.val_dataloader())) == 1


def test_processes_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_workers(2) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # that are there, of which a training may use fewer
    monkeypatch.setattr(cores, "available_cores", lambda: 12)
    assert [default_workers(processes) for processes in (1, 2, 4, 16)] == [8, 6, 3, 1]
    data = SegmentationData({}, CityScenes(2, size=SIZE), size=SIZE)
    data.trainer = SimpleNamespace(num_devices=4, world_size=8, global_rank=5)  # type: ignore[assignment]
    assert data.val_dataloader().num_workers == 3


ENDLESS = """
import sys
from fcnseg.data import CityScenes, SegmentationData
scenes = CityScenes(4, size=(24, 32))
data = SegmentationData({"a": scenes}, scenes, size=(24, 32), batch_size=2, num_workers=1, start_method=sys.argv[1],
                        steps_per_epoch=10**6)
if __name__ == "__main__":
    for number, _ in enumerate(data.train_dataloader()):
        if number == 3:
            print("running", flush=True)
"""


@pytest.mark.skipif("forkserver" not in METHODS, reason="no fork server here")
def test_a_training_that_is_killed_leaves_no_worker_behind(tmp_path: Path) -> None:
    """Nor the server that starts workers, which lives as long as they do."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, tmp_path / "endless.py"]
    runs = [
        subprocess.Popen([*command, method], stdout=subprocess.PIPE, text=True) for method in ("fork", "forkserver")
    ]
    left: list[psutil.Process] = []
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "running\n"
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 1
        left += workers
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
    started = time.monotonic()
    _, alive = psutil.wait_procs(left, timeout=30)
    for process in alive:
        process.kill()
    assert alive == [], f"still there {time.monotonic() - started:.0f} s later"
