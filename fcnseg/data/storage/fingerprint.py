"""Datasets known by what their files hold, which is read once on each host and remembered."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, compress, islice
from pathlib import Path

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.data.dataset import SegmentationDataset
from fcnseg.data.files.checksum import sha256
from fcnseg.data.files.path_list import PathList
from fcnseg.data.storage.host import HOST, alone
from fcnseg.data.storage.settings import file_state, place_of
from fcnseg.user_cache import user_cache

FILE = np.dtype([("size", "<i8"), ("changed", "<i8"), ("state_changed", "<i8"), ("checksum", "<u8")])
"""What is remembered of a file."""

RECENT = 2_000_000_000
"""Nanoseconds within which another change may leave a file with the same times: as many as the coarsest clocks of
file systems tell. What has changed so shortly before it was read is read again the next time."""


def identity(dataset: SegmentationDataset, folder: str | Path | None = None) -> tuple[str, str]:
    """Two hashes of a dataset: of its settings and the paths of its files; and of these with the files' content.

    Copies of the same files are the same, whatever their dates. Files are read once: the folder remembers for each
    host the size, times and checksum of every file, as git's index does, and what has other ones is read again.

    Args:
        dataset: any; of one without files the settings alone decide.
        folder: that remembers; by default `fcnseg` in the user's cache folder.
    """
    place, files = place_of(dataset)
    known = (Path(folder) if folder else user_cache()).expanduser() / place / f"files-{HOST}.npy"
    state = hashlib.sha256(place.encode())
    if files:
        state.update(checksums(files, known).tobytes())
    return place, state.hexdigest()


def checksums(lists: Sequence[PathList], index: Path) -> np.ndarray:
    """(files,) uint64, the beginning of each file's SHA-256; 0 of what is no file.

    Args:
        lists: the files.
        index: the file that remembers them.
    """
    with alone(index) as keeps:  # of several processes, one reads and the others wait
        before = time.time_ns() - RECENT
        count = sum(map(len, lists))
        found = np.fromiter(((*file_state(text), 0) for text in _texts(lists)), FILE, count)
        known = _remembered(index, count)
        stale = np.zeros(count, bool)
        for name in ("size", "changed", "state_changed"):
            stale |= found[name] != known[name]
        found["checksum"] = known["checksum"]
        found["checksum"][stale] = np.fromiter(_read(compress(_texts(lists), stale)), np.uint64, int(stale.sum()))
        if keeps and stale.any():
            remembered = found.copy()
            remembered["size"][np.maximum(found["changed"], found["state_changed"]) > before] = -2
            with replacing(index) as temporary, temporary.open("wb") as file:
                np.save(file, remembered)
        return found["checksum"]


def _texts(lists: Sequence[PathList]) -> Iterator[str]:
    return chain.from_iterable(files.texts() for files in lists)


def _read(paths: Iterator[str], threads: int = 8, at_once: int = 1000) -> Iterator[int]:
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(paths, at_once)):
            yield from pool.map(_checksum, some)


def _checksum(path: str) -> int:
    return int(sha256(Path(path))[:16] or "0", 16)


def _remembered(index: Path, count: int) -> np.ndarray:
    """The index of as many files; of none, where it is missing, damaged or of others."""
    try:
        known = np.load(index)
    except (OSError, ValueError, EOFError):
        known = np.zeros(0, FILE)
    if known.dtype == FILE and known.shape == (count,):
        return known
    unknown = np.zeros(count, FILE)
    unknown["size"] = -2
    return unknown
