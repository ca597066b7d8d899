"""Datasets packed into a few large files (litdata's shards) that read faster than thousands of small ones.

The samples of a dataset are divided into portions of about a shard's size, which are written one by one or by
several processes: the same bytes either way. What a portion needs is noted when its shards are whole, and a pack that
was interrupted goes on with those portions that have no note. `packed.py` describes the folder and reads it.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from fcnseg.atomic import replacing
from fcnseg.cores import available_cores
from fcnseg.data.dataset import SegmentationDataset
from fcnseg.data.storage.encoding import Packing
from fcnseg.data.storage.fingerprint import identity
from fcnseg.data.storage.packed import DRAWING, MANIFEST, NORMALISATION, STARTED, VERSION
from fcnseg.data.storage.portions import Job, naming_output, portions, run
from fcnseg.data.storage.shard_index import INDEX
from fcnseg.errors import InputError


def pack(
    train: Mapping[str, SegmentationDataset],
    val: SegmentationDataset,
    folder: str | Path,
    packing: Packing | None = None,
    progress: Callable[[str], None] = lambda part: None,
    workers: int | None = None,
) -> None:
    """Write training domains and validation data as shards, and read every sample back.

    A pack that was interrupted goes on after the shards that are whole. Whoever writes them, and however often it was
    interrupted, the result is the same to the byte. The manifest is written last.

    Args:
        train, val: the datasets; training domains by name.
        folder: new, empty, or of an interrupted pack of the same data.
        packing: how samples are packed; by default as they are.
        progress: is told `train/NAME` or `val` for every sample that is written, and again when it is verified.
        workers: processes; by default one for each core that this process may use.

    Raises:
        InputError: when the folder holds something else, another process writes to it, or a sample is unreadable.
        OSError: naming the folder, when the disk is full.
    """
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers={workers}: expected a whole number of at least 1")
    folder, packing = Path(folder), packing or Packing()
    datasets = {f"train/{name}": dataset for name, dataset in train.items()} | {"val": val}
    plan = {
        "version": VERSION,
        "train": list(train),
        "sources": {part: identity(dataset)[1] for part, dataset in datasets.items()},
        **packing.settings(),
    }
    with _alone(folder):
        if _begun(folder, plan):
            return
        for part, dataset in datasets.items():
            step = partial(progress, part)
            if (folder / part / MANIFEST).is_file():
                _tell(step, len(dataset))
            else:
                with naming_output(folder / part):
                    write(dataset, folder / part, packing, workers, step)
            for note in (folder / part).glob("portion-*.json"):
                note.unlink()
        os.replace(folder / STARTED, folder / MANIFEST)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep every other process from packing to the same folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)  # after a kill, until the last of its processes has noticed
    except Timeout:
        raise InputError(f"{folder}: another process is packing to it") from None
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def _begun(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the pack is complete; notes in a new folder what is going to be packed.

    Raises:
        InputError: when the folder holds something else.
    """
    for name in (MANIFEST, STARTED):
        if (path := folder / name).is_file():
            if path.read_text() != json.dumps(plan, indent=2):
                raise InputError(f"{folder}: holds other data or settings; remove it, or choose another output")
            return name == MANIFEST
    if foreign := [path.name for path in folder.iterdir() if not path.name.startswith(".")]:
        raise InputError(f"{folder}: holds {sorted(foreign)[0]}; expected a new or an empty folder")
    with replacing(folder / STARTED) as temporary:
        temporary.write_text(json.dumps(plan, indent=2))
    return False


def write(
    dataset: SegmentationDataset,
    folder: Path,
    packing: Packing,
    workers: int | None = None,
    step: Callable[[], None] = lambda: None,
) -> None:
    """Write one dataset, each portion of it verified, and then its manifest; go on where it was interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*"):  # of processes that were killed
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    job = Job(dataset, folder, packing, tuple(portions(dataset, packing)))
    left = [number for number in range(len(job.portions)) if job.note(number) is None]
    _tell(step, len(dataset) - sum(len(job.portions[number]) for number in left))
    run(job, left, min(workers or available_cores(), len(left)), step)
    notes = [json.loads(job.note_of(number).read_text()) for number in range(len(job.portions))]
    index = {"chunks": [chunk for note in notes for chunk in note["chunks"]], "config": notes[0]["config"]}
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, sort_keys=True))
    checksums = np.concatenate([note["checksums"] for note in notes]).astype(np.uint32)
    files = [*(chunk["filename"] for chunk in index["chunks"]), INDEX]
    manifest = {
        "version": VERSION,
        "samples": len(dataset),
        "label_space": dataset.label_space.to_dict(),
        "scaling": getattr(dataset, "scaling", None),
        "normalisation": {name: getattr(dataset, name) for name in NORMALISATION if hasattr(dataset, name)},
        "drawing": {name: getattr(dataset, name) for name in DRAWING if hasattr(dataset, name)},
        "source": f"{zlib.crc32(checksums.tobytes()):08x}",
        "files": {name: (folder / name).stat().st_size for name in files},
    }
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2))


def _tell(step: Callable[[], None], samples: int) -> None:
    """Tell of samples that had been written and verified before."""
    for _ in range(2 * samples):
        step()
