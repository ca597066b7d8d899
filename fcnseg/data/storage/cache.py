"""Decoded samples kept for the next epoch: in memory, or in a file that processes and runs share.

The file is not of packed shards (`packing.py`), which hold the same samples in as many bytes: it needs no litdata, is
written in two thirds of the time, since nothing is read back, and is read no slower, since arrays are used in place
(`scripts/benchmark_formats.py`). Packs are what is kept, moved and read from elsewhere.
"""

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from fcnseg.atomic import replacing
from fcnseg.data.dataset import Sample, SegmentationDataset, pass_on, read_all, read_mask
from fcnseg.data.storage.fingerprint import identity
from fcnseg.errors import InputError
from fcnseg.user_cache import user_cache

# Samples as bytes

ROW = np.dtype(
    [
        ("block", "<i4"),
        ("start", "<i8"),
        ("image", "<i4", 3),
        ("dtype", "S8"),
        ("mask", "<i4", 2),
        ("name", "<i4"),
        ("checksum", "<u4"),
    ]
)
"""Where a sample's bytes start, and the shapes of what follows there: image, mask, name."""

BLOCK = 64 << 20
ALIGNMENT = 64  # of every sample's first byte, so that images of any dtype can be used in place


def pieces(image: np.ndarray, mask: np.ndarray, name: str) -> list[bytes | memoryview]:
    """The bytes of a sample, one after the other."""
    return [np.ascontiguousarray(image).data.cast("B"), np.ascontiguousarray(mask).data.cast("B"), name.encode()]


def checksum(parts: list[bytes | memoryview]) -> int:
    """The CRC-32 of bytes in several parts."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def row(sample: Sample, parts: list[bytes | memoryview], block: int, start: int) -> tuple[Any, ...]:
    image, mask, _ = sample
    return block, start, image.shape, image.dtype.str.encode(), mask.shape, len(parts[2]), checksum(parts)


@dataclass(frozen=True)
class Samples:
    """Samples as a table over a few large blocks of bytes.

    No Python object stands for a sample. A worker process that reads one therefore writes to no page that it shares
    with its parent (not even a reference count), and holds no copy of the table.
    """

    rows: np.ndarray
    blocks: list[np.ndarray]

    def __getitem__(self, index: int) -> Sample:
        image, mask, name = self._parts(index)
        row = self.rows[index]
        return image.view(row["dtype"].decode()).reshape(row["image"]), mask.reshape(row["mask"]), bytes(name).decode()

    def mask(self, index: int) -> np.ndarray:
        return self._parts(index)[1].reshape(self.rows[index]["mask"])

    def intact(self, index: int) -> bool:
        """Whether the bytes are those that were written."""
        return checksum([part.data for part in self._parts(index)]) == self.rows[index]["checksum"]

    def _parts(self, index: int) -> list[np.ndarray]:
        row = self.rows[index]
        sizes = [_bytes(row["image"]) * np.dtype(row["dtype"].decode()).itemsize, _bytes(row["mask"]), row["name"]]
        ends = np.cumsum([row["start"], *sizes])
        return [self.blocks[row["block"]][a:b] for a, b in pairwise(ends)]


def _bytes(shape: np.ndarray) -> int:
    return int(np.prod(shape, dtype=np.int64))


# In memory


class Preloaded:
    """A dataset decoded once into memory, which worker processes share, forked ones and those that are started anew."""

    def __init__(self, dataset: SegmentationDataset, threads: int = 4) -> None:
        self.label_space = dataset.label_space
        pass_on(dataset, self)
        self._shared: list[torch.Tensor] = []
        rows = np.zeros(len(dataset), ROW)
        blocks: list[np.ndarray] = []
        used = 0
        for index, sample in enumerate(read_all(dataset, threads)):
            parts = pieces(*sample)
            size = sum(map(len, parts))
            if not blocks or used + size > len(blocks[-1]):
                blocks.append(np.empty(max(size, BLOCK), np.uint8))  # memory is taken when it is written to
                used = 0
            rows[index] = row(sample, parts, len(blocks) - 1, used)
            blocks[-1][used : used + size] = np.frombuffer(b"".join(parts), np.uint8)
            used = _aligned(used + size)
        if blocks:
            blocks[-1] = blocks[-1][:used]
        for array in (rows, *blocks):
            array.flags.writeable = False
        self.samples = Samples(rows, blocks)

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started anew gets the blocks through shared memory, where torch's pickler puts tensors."""
        if not self._shared:
            self._shared = [torch.from_numpy(np.array(block)).share_memory_() for block in self.samples.blocks]
            self.samples = Samples(self.samples.rows, [block.numpy() for block in self._shared])
        return {key: value for key, value in self.__dict__.items() if key != "samples"} | {"rows": self.samples.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = state.pop("rows")
        self.__dict__.update(state)
        self.samples = Samples(rows, [block.numpy() for block in self._shared])

    def __len__(self) -> int:
        return len(self.samples.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def mask(self, index: int) -> np.ndarray:
        return self.samples.mask(index)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


# On disk

HEADER = struct.Struct("<24s64sQQI4x")  # magic, state of the dataset, samples, bytes of the file, checksum of the rows
MAGIC = b"fcnseg decoded samples 1"
LIMIT = 50.0


class DiskCached:
    """A dataset decoded once into a file, which is mapped into memory and serves every process and run.

    The file is keyed by the dataset's files with their sizes and times, its settings and its label space. One that
    is stale or damaged is written again; a sample whose bytes have changed since is decoded from its source.

    Args:
        dataset: what to keep.
        folder: of the cache; by default `fcnseg` in the user's cache folder.
        limit: how many GB (10^9 bytes) all files of the cache may take together.

    Raises:
        InputError: when the decoded samples pass the limit, or a sample is unreadable.
        OSError: naming the file, when the disk is full.
    """

    def __init__(self, dataset: SegmentationDataset, folder: str | Path | None = None, limit: float = LIMIT) -> None:
        self.dataset, self.label_space = dataset, dataset.label_space
        pass_on(dataset, self)
        place, self.state = identity(dataset)
        self.path = Path(folder or user_cache()).expanduser() / place / "samples.bin"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name("lock")):  # of several processes, one decodes and the others wait
            samples = open_samples(self.path, self.state)
            if samples is None:
                self._write(limit)
                samples = open_samples(self.path, self.state)
        if samples is None:
            raise InputError(f"{self.path}: cannot be read back; expected a disk that keeps what is written")
        self._samples: Samples | None = samples
        self._checked = np.zeros(len(dataset), bool)

    def __len__(self) -> int:
        return len(self._checked)

    def __getitem__(self, index: int) -> Sample:
        return samples[index] if (samples := self._intact(index)) else self.dataset[index]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask alone."""
        return samples.mask(index) if (samples := self._intact(index)) else read_mask(self.dataset, index)

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started anew maps the file itself instead of receiving its bytes."""
        return {**self.__dict__, "_samples": None}

    def _intact(self, index: int) -> Samples | None:
        """The samples, if this one's bytes are those that were written; each process looks once."""
        if self._samples is None:
            self._samples = open_samples(self.path, self.state)
        if self._samples is None or self._checked[index]:
            return self._samples
        if not self._samples.intact(index):
            self.path.unlink(missing_ok=True)  # the next run writes it again
            return None
        self._checked[index] = True
        return self._samples

    def _write(self, limit: float) -> None:
        for left in self.path.parent.glob(".*.bin"):  # of processes that were killed: we hold the lock
            left.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        root = self.path.parent.parent
        room = limit * 1e9 - sum(file.stat().st_size for file in root.glob("*/samples.bin"))
        self._require(room, self._estimate(), limit)
        rows = np.zeros(len(self.dataset), ROW)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.seek(_aligned(HEADER.size + rows.nbytes))
            for index, sample in enumerate(read_all(self.dataset)):
                parts = pieces(*sample)
                rows[index] = row(sample, parts, 0, file.tell())
                file.writelines(parts)
                file.write(bytes(-file.tell() % ALIGNMENT))
                self._require(room, file.tell(), limit)
            size = file.tell()
            file.seek(0)
            file.write(HEADER.pack(MAGIC, self.state.encode(), len(rows), size, zlib.crc32(rows.tobytes())))
            file.write(rows.tobytes())

    def _estimate(self) -> float:
        """Bytes of all samples, from a few that are spread over the dataset."""
        some = range(0, len(self.dataset), max(1, len(self.dataset) // 4))
        sizes = [sum(map(len, pieces(*self.dataset[index]))) for index in some]
        return sum(sizes) / max(1, len(some)) * len(self.dataset)

    def _require(self, room: float, size: float, limit: float) -> None:
        if size > room:
            raise InputError(
                f"cache=disk: {len(self.dataset)} decoded samples take {size / 1e9:.3g} GB, {self.path.parent.parent} "
                f"has room for {max(0, room) / 1e9:.3g} of cache_limit={limit:g} GB; empty it, raise the limit, or "
                "take cache=none"
            )


def open_samples(path: Path, state: str) -> Samples | None:
    """Map a file of samples into memory; None when there is none, or it is stale or damaged."""
    if not path.is_file() or path.stat().st_size < HEADER.size:
        return None
    content = np.memmap(path, np.uint8, "r").view(np.ndarray)
    magic, of_state, count, size, crc = HEADER.unpack(content[: HEADER.size].tobytes())
    if (magic, of_state, size) != (MAGIC, state.encode(), len(content)):
        return None
    table = content[HEADER.size : HEADER.size + count * ROW.itemsize]
    return Samples(table.view(ROW), [content]) if zlib.crc32(table.data) == crc else None
