"""Decoded samples kept for the next epoch, in one form: in memory, or in a file; processes and runs share both.

The file is not of packed shards (`packing.py`), which hold the same samples in as many bytes: it needs no litdata, is
written in two thirds of the time, since nothing is read back, and is read no slower, since arrays are used in place
(`scripts/benchmark_formats.py`). Packs are what is kept, moved and read from elsewhere.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock

from fcnseg.atomic import replacing
from fcnseg.data.dataset import Sample, SegmentationDataset, pass_on, read_all, read_mask
from fcnseg.data.showing import Shown
from fcnseg.data.storage.fingerprint import identity
from fcnseg.data.storage.host import HOST, alone
from fcnseg.data.storage.shared import SharedFile, can_share
from fcnseg.errors import InputError
from fcnseg.memory import available_memory
from fcnseg.user_cache import user_cache

# Samples as bytes

HEADER = struct.Struct("<24s64sQQI4x")  # magic, state of the dataset, samples, bytes of the file, checksum of the rows
MAGIC = b"fcnseg decoded samples 2"

ROW = np.dtype(
    [
        ("start", "<i8"),
        ("image", "<i4", 3),
        ("dtype", "S8"),
        ("mask", "<i4", 2),
        ("name", "<i4"),
        ("checksum", "<u4"),
    ]
)
"""Where a sample's bytes start, and the shapes of what follows there: image, mask, name."""

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


def row(sample: Sample, parts: list[bytes | memoryview], start: int) -> tuple[Any, ...]:
    image, mask, _ = sample
    return start, image.shape, image.dtype.str.encode(), mask.shape, len(parts[2]), checksum(parts)


@dataclass(frozen=True)
class Samples:
    """Samples as a table over a file's bytes.

    No Python object stands for a sample. A worker process that reads one therefore writes to no page that it shares
    with its parent (not even a reference count), and holds no copy of the table.
    """

    rows: np.ndarray
    content: np.ndarray

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
        return [self.content[a:b] for a, b in pairwise(ends)]


def _bytes(shape: np.ndarray) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def estimated_bytes(dataset: SegmentationDataset) -> float:
    """Bytes of all decoded samples, from a few that are spread over the dataset."""
    some = range(0, len(dataset), max(1, len(dataset) // 4))
    sizes = [sum(map(len, pieces(*dataset[index]))) for index in some]
    return sum(sizes) / max(1, len(some)) * len(dataset)


def write_samples(dataset: SegmentationDataset, state: str, file: BinaryIO, require: Callable[[float], None]) -> None:
    """Decode a dataset into an empty file; what begins it is written last.

    Args:
        dataset: any.
        state: of the dataset, by which the file is known.
        file: open for writing.
        require: is told the bytes that are to be expected, and those that there are after each sample, and refuses
            them by an exception.
    """
    require(estimated_bytes(dataset))
    rows = np.zeros(len(dataset), ROW)
    file.seek(_aligned(HEADER.size + rows.nbytes))
    for index, sample in enumerate(read_all(dataset)):
        parts = pieces(*sample)
        rows[index] = row(sample, parts, file.tell())
        file.writelines(parts)
        file.write(bytes(-file.tell() % ALIGNMENT))
        require(file.tell())
    size = file.tell()
    file.seek(0)
    file.write(HEADER.pack(MAGIC, state.encode(), len(rows), size, zlib.crc32(rows.tobytes())))
    file.write(rows.tobytes())
    file.flush()


def samples_in(content: np.ndarray, state: str) -> Samples | None:
    """The samples of a file's bytes; None when it is stale or damaged."""
    if len(content) < HEADER.size:
        return None
    magic, of_state, count, size, crc = HEADER.unpack(content[: HEADER.size].tobytes())
    if (magic, of_state, size) != (MAGIC, state.encode(), len(content)):
        return None
    table = content[HEADER.size : HEADER.size + count * ROW.itemsize]
    return Samples(table.view(ROW), content) if zlib.crc32(table.data) == crc else None


def open_samples(path: str | Path, state: str) -> Samples | None:
    """Map a file of samples into memory; None when there is none, or it is stale or damaged."""
    try:
        return samples_in(np.memmap(path, np.uint8, "r").view(np.ndarray), state)
    except (OSError, ValueError):  # none, or an empty one
        return None


# In memory


PRIVATE = ("", "0" * 64)
"""The identity of samples that no other process is to find."""


class Preloaded(Shown):
    """A dataset decoded once into memory that all processes of a host share: ranks, their workers, and other runs.

    The process that comes first decodes; the others map its memory, which stays for as long as one of them lives and
    is gone with the last, however that ends. They find it by a list in the cache's folder, under the dataset's settings
    and the content of its files. Where the system has no memory that can be found (not Linux), or a dataset cannot be
    told apart from others, each process decodes for itself and for its workers.

    Args:
        dataset: what to keep.
        folder: where the list is; by default `fcnseg` in the user's cache folder.

    Raises:
        InputError: when the decoded samples take more memory than there is, or a sample is unreadable.
    """

    def __init__(self, dataset: SegmentationDataset, folder: str | Path | None = None) -> None:
        self.label_space = dataset.label_space
        pass_on(dataset, self)
        self._private: torch.Tensor | None = None
        try:
            place, self.state = identity(dataset, folder) if can_share() else PRIVATE
        except (TypeError, RecursionError):  # of what it consists cannot be told
            place, self.state = PRIVATE
        if not place:
            self._decode_privately(dataset)
            return
        holders = (Path(folder) if folder else user_cache()).expanduser() / place / f"memory-{HOST}.json"
        with alone(holders) as keeps:  # of several processes, one decodes and the others wait
            self._file = SharedFile.found(holders, partial(open_samples, state=self.state)) if keeps else None
            if self._file is None:
                self._file = SharedFile()
                write_samples(
                    dataset, self.state, self._file.file, partial(_require_memory, dataset, available_memory())
                )
                self._file.seal()
            if keeps:
                self._file.tell(holders)
        self._map(self._file.path)

    def _map(self, path: str) -> None:
        samples = open_samples(path, self.state)
        if samples is None:
            raise InputError(f"{path}: the memory of cache=ram cannot be read; expected the process that holds it")
        self.samples = samples

    def _decode_privately(self, dataset: SegmentationDataset) -> None:
        file = BytesIO()
        write_samples(dataset, self.state, file, partial(_require_memory, dataset, available_memory()))
        self._take(np.frombuffer(file.getbuffer(), np.uint8))

    def _take(self, content: np.ndarray) -> None:
        content.flags.writeable = False
        samples = samples_in(content, self.state)
        assert samples is not None
        self.samples, self._file = samples, None

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started anew gets the name of the memory; private memory moves to where torch shares it."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("samples", "_file")}
        if self._file is not None:
            return state | {"path": self._file.path}
        if self._private is None:
            self._private = torch.from_numpy(np.array(self.samples.content)).share_memory_()
            self._take(self._private.numpy())
        return state | {"_private": self._private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = state.pop("path", None)
        self.__dict__.update(state)
        if path is None:
            assert self._private is not None
            self._take(self._private.numpy())
        else:
            self._file = SharedFile(path)
            self._map(self._file.path)

    def __len__(self) -> int:
        return len(self.samples.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask alone."""
        return self.samples.mask(index)


def _require_memory(dataset: SegmentationDataset, available: float, size: float) -> None:
    if size > available:
        raise InputError(
            f"cache=ram: {len(dataset)} decoded samples take {size / 1e9:.3g} GB, this host has {available / 1e9:.3g} "
            "GB of memory left for this process; take cache=disk or cache=none"
        )


# On disk

LIMIT = 50.0


class DiskCached(Shown):
    """A dataset decoded once into a file, which is mapped into memory and serves every process and run.

    The file is keyed by the content of the dataset's files, its settings and its label space, so that hosts with
    copies of the data share it. One that is stale or damaged is written again; a sample whose bytes have changed since
    is decoded from its source.

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
        place, self.state = identity(dataset, folder)
        self.path = (Path(folder) if folder else user_cache()).expanduser() / place / "samples.bin"
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
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            write_samples(self.dataset, self.state, file, lambda size: self._require(room, size, limit))

    def _require(self, room: float, size: float, limit: float) -> None:
        if size > room:
            raise InputError(
                f"cache=disk: {len(self.dataset)} decoded samples take {size / 1e9:.3g} GB, {self.path.parent.parent} "
                f"has room for {max(0, room) / 1e9:.3g} of cache_limit={limit:g} GB; empty it, raise the limit, or "
                "take cache=none"
            )
