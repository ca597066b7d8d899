"""What worker processes of a pack put into shared memory: batches in bytes, and no more of them than are under way."""

import multiprocessing
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fcnseg.data import Packed, SegmentationData
from fcnseg.data.storage.packing import pack
from fcnseg.labels import STREET11

HEIGHT, WIDTH, BATCH, WORKERS = 760, 1280, 2, 8


class Frames:
    """Noise in the size of SYNTHIA's frames."""

    label_space = STREET11

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        random = np.random.default_rng(index)
        image, mask = random.bytes(HEIGHT * WIDTH * 3), random.integers(0, 11, (HEIGHT, WIDTH), np.uint8)
        return np.frombuffer(image, np.uint8).reshape(HEIGHT, WIDTH, 3), mask, f"{index}"


def shared_files(process: int | str) -> dict[int, int]:
    """torch's shared memory of a process, open or mapped: bytes by inode."""
    found: dict[int, int] = {}
    try:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            if "torch_" in line and "/shm" in line:
                addresses, _, _, _, inode, *_ = line.split()
                start, end = (int(address, 16) for address in addresses.split("-"))
                found[int(inode)] = max(found.get(int(inode), 0), end - start)
        for link in Path(f"/proc/{process}/fd").iterdir():
            if "torch_" in os.readlink(link):
                found[link.stat().st_ino] = link.stat().st_size
    except OSError:  # it has ended, or closed the file
        pass
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.skipif(sys.platform != "linux", reason="reads what processes have mapped from /proc")
def test_eight_workers_share_no_more_than_the_bytes_of_the_batches_under_way(tmp_path: Path) -> None:
    """Of 7.8 MB each: 138 MB at most when this was written, where masks of int64 would have made 380 of it."""
    pack({"frames": Frames()}, Frames(), tmp_path / "packed")
    train, val = Packed(tmp_path / "packed/train/frames"), Packed(tmp_path / "packed/val")
    data = SegmentationData(
        {"frames": train}, val, size=(HEIGHT, WIDTH), batch_size=BATCH, num_workers=WORKERS, steps_per_epoch=40
    )
    data.setup("fit")
    peak, done = [0], threading.Event()

    def watch() -> None:
        before: dict[int, int] = {}
        while not done.wait(0.02):
            processes = ["self", *(process.pid for process in multiprocessing.active_children())]
            files: dict[int, int] = {}
            for process in processes:
                files |= shared_files(process)
            # Batches come and go while one process is looked at after the other;
            # what two looks in a row have found was there together, between them.
            peak[0] = max(peak[0], sum(size for inode, size in files.items() if inode in before))
            before = files

    watcher = threading.Thread(target=watch)
    loader = data.train_dataloader()
    batches = iter(loader)
    watcher.start()
    try:
        for batch in batches:
            assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
            assert batch["image"].shape == (BATCH, 3, HEIGHT, WIDTH)
            size = batch["image"].nbytes + batch["mask"].nbytes
            assert batch["image"].is_shared()
    finally:
        done.set()
        watcher.join()
    assert size == BATCH * HEIGHT * WIDTH * 4
    assert loader.prefetch_factor is not None
    under_way = WORKERS * loader.prefetch_factor + 2  # and the one that is received, and the one before it
    assert 2 * size < peak[0] <= under_way * size, f"{peak[0] / 1e6:.0f} MB"
