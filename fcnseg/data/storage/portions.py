"""Portions of a dataset written as shards, by one process or several, each read back before it counts.

A portion's note, which is written when its shards are whole, holds what it adds to the dataset's index.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.data.dataset import Sample, SegmentationDataset, read_all
from fcnseg.data.storage.cache import checksum, pieces
from fcnseg.data.storage.encoding import Packing
from fcnseg.data.storage.packed import litdata, open_shards
from fcnseg.data.storage.shard_index import INDEX
from fcnseg.errors import InputError
from fcnseg.workers import begin_worker

SHARD_BYTES = 64 << 20


@dataclass(frozen=True)
class Job:
    """One dataset on its way into a folder.

    Attributes:
        portions: the samples of each, in order.
    """

    dataset: SegmentationDataset
    folder: Path
    packing: Packing
    portions: tuple[range, ...]

    def note_of(self, number: int) -> Path:
        return self.folder / f"portion-{number}.json"

    def note(self, number: int) -> dict[str, Any] | None:
        """What is noted of a portion: its samples, their checksums, and litdata's index of its shards.

        None when it is not written, or its shards are not as they were.
        """
        try:
            note = json.loads(self.note_of(number).read_text())
            sizes = {chunk["filename"]: (self.folder / chunk["filename"]).stat().st_size for chunk in note["chunks"]}
        except (FileNotFoundError, ValueError):
            return None
        samples = self.portions[number]
        whole = all(sizes[chunk["filename"]] == chunk["chunk_bytes"] for chunk in note["chunks"])
        return note if whole and note["samples"] == [samples.start, samples.stop] else None


def portions(dataset: SegmentationDataset, packing: Packing) -> Iterator[range]:
    """Neighbours that make about a shard, by the mean size of some samples; neither depends on who writes them."""
    if not len(dataset):
        raise InputError("no samples to pack")
    some = range(0, len(dataset), max(1, len(dataset) // 8))
    items = (packing.encode(packing.resized(*dataset[index])) for index in some)
    size = sum(item["image"].nbytes + item["mask"].nbytes for item in items) / len(some)
    count = max(1, round(SHARD_BYTES / size))
    for start in range(0, len(dataset), count):
        yield range(start, min(start + count, len(dataset)))


@contextmanager
def naming_output(folder: Path) -> Iterator[None]:
    """Name the folder where the system does not say which file could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


class Neighbours:
    """Some samples of a dataset, by their place among these."""

    def __init__(self, dataset: SegmentationDataset, samples: range) -> None:
        self.dataset, self.label_space, self.samples = dataset, dataset.label_space, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.samples[index]]


def write_portion(job: Job, number: int, step: Callable[[], None]) -> None:
    """Write neighbours as shards of their own, read them back, put them into their place, and make a note of them."""
    samples = job.portions[number]
    for left in job.folder.glob(f"chunk-{number}-*.bin"):
        left.unlink()
    with naming_output(job.folder), TemporaryDirectory(prefix=".", dir=job.folder) as name:
        temporary = Path(name)
        checksums = write_shards(Neighbours(job.dataset, samples), temporary, job.packing, step)
        verify(temporary, checksums, samples.start, step)
        index = json.loads((temporary / INDEX).read_text())
        for place, chunk in enumerate(index["chunks"]):
            written, chunk["filename"] = chunk["filename"], f"chunk-{number}-{place}.bin"
            os.replace(temporary / written, job.folder / chunk["filename"])
    note = {"samples": [samples.start, samples.stop], "checksums": checksums.tolist()}
    note |= {key: index[key] for key in ("chunks", "config")}
    with replacing(job.note_of(number)) as file:
        file.write_text(json.dumps(note))


def write_shards(dataset: SegmentationDataset, folder: Path, packing: Packing, step: Callable[[], None]) -> np.ndarray:
    """Let litdata write all samples; gives their checksums."""
    library = litdata()
    # litdata takes a name that a file has for that file, and would pack what it holds.
    text = import_module("litdata.streaming.serializers").StringSerializer()
    text.can_serialize = lambda value: isinstance(value, str)
    # Samples that are larger than the mean one of the dataset get into the same shard as well.
    writer = library.Cache(str(folder.resolve()), chunk_bytes=2 * SHARD_BYTES, serializers={"str": text})
    checksums = np.zeros(len(dataset), np.uint32)
    for index, sample in enumerate(read_all(dataset)):
        writer[index] = item = packing.encode(packing.resized(*sample))
        checksums[index] = item["checksum"]
        step()
    writer.done()
    writer.merge()
    return checksums


def verify(folder: Path, checksums: np.ndarray, first: int, step: Callable[[], None]) -> None:
    """Read every sample back from the shards and compare it with what its source gave."""
    shards = open_shards(folder)
    if len(shards) != len(checksums):
        raise InputError(f"{folder.parent}: {len(shards)} samples can be read back; expected {len(checksums)}")
    for index, expected in enumerate(checksums):
        item = shards[index]
        if checksum(pieces(item["image"], item["mask"], item["name"])) != expected:
            raise InputError(
                f"{folder.parent}: sample {first + index} cannot be read back; "
                "expected a disk that keeps what is written"
            )
        step()


# Processes


def run(job: Job, numbers: Sequence[int], workers: int, step: Callable[[], None]) -> None:
    """Write portions, in several processes unless there is work for one only."""
    if workers <= 1:
        for number in numbers:
            write_portion(job, number, step)
        return
    # Forking shares the file lists; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    steps = context.Value("L", 0)
    with ProcessPoolExecutor(workers, context, _start, (job, steps)) as pool:
        try:
            waiting = {pool.submit(_work, number) for number in numbers}
            told = 0
            while waiting:
                done, waiting = wait(waiting, timeout=0.2)
                for _ in range(steps.value - told):
                    step()
                    told += 1
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise InputError("a process that packs was killed, perhaps for memory; try workers=1") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_state: tuple[Job, Any]


def _start(job: Job, steps: Any) -> None:
    """Prepare a process; the parent alone answers to Ctrl-C, and none outlives it."""
    global _state
    _state = job, steps
    begin_worker(interruptible=False)


def _work(number: int) -> None:
    job, steps = _state

    def step() -> None:
        with steps.get_lock():
            steps.value += 1

    write_portion(job, number, step)
