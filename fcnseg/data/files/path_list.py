"""Lists of file names that worker processes share instead of copying."""

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np


class PathList:
    """Paths in one buffer, as a read-only sequence.

    Every Python string carries a reference count that its readers write to, so after a fork each worker process
    copies the pages of a list of strings that it only reads. Bytes in one buffer stay shared; a string is made
    when an item is asked for.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._buffer = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Path:
        return Path(self.text(index))

    def text(self, index: int) -> str:
        """A path as it was given."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        start, end = self._ends[index % len(self) :][:2]
        return os.fsdecode(self._buffer[start:end])

    def texts(self) -> Iterator[str]:
        """All paths as they were given."""
        ends = self._ends.tolist()
        return (os.fsdecode(self._buffer[start:end]) for start, end in pairwise(ends))

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))
