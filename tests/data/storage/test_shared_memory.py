"""What worker processes of a pack put into shared memory: batches in bytes, and no more of them than are under way."""

import multiprocessing
import os
import sys
import time
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


def all_that_stays() -> dict[int, int]:
    """The shared memory of this process and its workers, as soon as nothing more is added for a second."""
    looks: list[dict[int, int]] = []
    while len(looks) < 6 or any(look != looks[-1] for look in looks[-6:]):
        processes = ["self", *(process.pid for process in multiprocessing.active_children())]
        looks.append({inode: size for process in processes for inode, size in shared_files(process).items()})
        time.sleep(0.2)
    return looks[-1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.skipif(sys.platform != "linux", reason="reads what processes have mapped from /proc")
def test_eight_workers_share_no_more_than_the_bytes_of_the_batches_under_way(tmp_path: Path) -> None:
    """Of 7.8 MB each: 132 MB when this was written, where masks of int64 would have made nearly three times of it."""
    pack({"frames": Frames()}, Frames(), tmp_path / "packed")
    train, val = Packed(tmp_path / "packed/train/frames"), Packed(tmp_path / "packed/val")
    data = SegmentationData(
        {"frames": train}, val, size=(HEIGHT, WIDTH), batch_size=BATCH, num_workers=WORKERS, steps_per_epoch=40
    )
    data.setup("fit")
    loader = data.train_dataloader()
    batches = iter(loader)
    for _ in range(10):
        batch = next(batches)
        assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
        assert batch["image"].shape == (BATCH, 3, HEIGHT, WIDTH)
        assert batch["image"].is_shared()
    size = batch["image"].nbytes + batch["mask"].nbytes
    assert size == BATCH * HEIGHT * WIDTH * 4
    # Nobody takes a batch from here on: all that may be under way comes to be, and stays.
    shared = sum(all_that_stays().values())
    assert loader.prefetch_factor is not None
    under_way = WORKERS * loader.prefetch_factor + 1  # and the one that was received; a thousandth for headers
    assert WORKERS * size < shared <= 1.001 * under_way * size, f"{shared / 1e6:.0f} MB"
    assert sum(1 for _ in batches) == 30
