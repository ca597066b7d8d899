"""What one process of a host does and the others wait for: locks, and facts that are computed once and kept."""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from fcnseg.atomic import replacing
from fcnseg.data.dataset import SegmentationDataset, files_of
from fcnseg.data.storage.settings import file_state, place_of
from fcnseg.user_cache import user_cache

HOST = socket.gethostname()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, which is created beside it; false, without a lock, where nothing can be written."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError):  # a disk that is full, read-only, or knows no locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def once(dataset: SegmentationDataset, indices: Sequence[int], what: str, compute: Callable[[], Any]) -> Any:
    """A fact about some samples of a dataset, which one process of a host computes and the others and later runs read.

    It is kept in the user's cache folder for as long as the dataset's settings and the size and times of these
    samples' files stay the same. Of samples that have no files nothing is kept.

    Args:
        dataset: any.
        indices: the samples that decide.
        what: names the fact and the settings that it depends on.
        compute: gives it, as JSON can hold it.
    """
    files = [file for index in indices for file in files_of(dataset, index)]
    if not files:
        return compute()
    known = json.dumps([what, [*indices], place_of(dataset)[0], *map(file_state, files)])
    path = user_cache() / "facts" / f"{hashlib.sha256(known.encode()).hexdigest()[:32]}.json"
    with alone(path) as keeps:
        if keeps:
            with suppress(OSError, ValueError):
                return json.loads(path.read_text())
        found = compute()
        if keeps:
            with suppress(OSError), replacing(path) as temporary:
                temporary.write_text(json.dumps(found))
        return found
