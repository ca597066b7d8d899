"""Lists of file names that worker processes share instead of copying."""

import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

RUN = 10_000
"""Names that are strings at a time where all are gone through."""


class Texts:
    """Strings in one buffer, as a read-only sequence.

    Every Python string carries a reference count that its readers write to, so after a fork each worker process
    copies the pages of a list of strings that it only reads. Bytes in one buffer stay shared; a string is made
    when an item is asked for.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        buffer, ends = bytearray(), array("q", [0])
        for text in texts:
            buffer += os.fsencode(text)
            ends.append(len(buffer))
        self.buffer, self.ends = bytes(buffer), np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self.ends[index : index + 2]
        return os.fsdecode(self.buffer[start:end])

    def between(self, first: int, end: int) -> list[str]:
        """The strings from one index to below another."""
        ends = self.ends[first : end + 1].tolist()
        return [os.fsdecode(self.buffer[a:b]) for a, b in pairwise(ends)]


class PathList:
    """Paths as a read-only sequence, in a few buffers: the folders, each once, and the names of the files in them.

    A million paths in a hundred folders take about the bytes of the names and twelve more for each.

    Args:
        paths: in any order.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._fill(_parted(os.fspath(path)) for path in paths)

    @classmethod
    def of(cls, paths: "Iterable[str | Path] | PathList") -> "PathList":
        """A list of paths; itself where they are one already."""
        return paths if isinstance(paths, PathList) else cls(paths)

    @classmethod
    def of_runs(cls, runs: Iterable[tuple[str, Iterable[str]]]) -> Self:
        """A list of runs: a folder's path, with a slash at its end unless it is empty, and names of files in it."""
        made = cls.__new__(cls)
        made._fill(runs)
        return made

    def _fill(self, runs: Iterable[tuple[str, Iterable[str]]]) -> None:
        numbers: dict[str, int] = {}
        folder_of = array("i")

        def names() -> Iterator[str]:
            for folder, inside in runs:
                number = numbers.setdefault(folder, len(numbers))
                for name in inside:
                    folder_of.append(number)
                    yield name

        self._names = Texts(names())
        self._folders, self._folder_of = Texts(numbers), np.frombuffer(folder_of, np.int32)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Path:
        return Path(self.text(index))

    def text(self, index: int) -> str:
        """A path as it was given."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        index %= len(self)
        return self._folders[int(self._folder_of[index])] + self._names[index]

    def texts(self) -> Iterator[str]:
        """All paths as they were given."""
        return (folder + name for folder, names in self.runs() for name in names)

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts())

    def runs(self) -> Iterator[tuple[str, list[str]]]:
        """Neighbours of one folder, at most `RUN` at a time: its path, as `of_runs` takes it, and their names."""
        turns = np.flatnonzero(np.diff(self._folder_of)) + 1
        borders = np.union1d(turns, np.arange(0, len(self) + RUN, RUN).clip(max=len(self)))
        for first, end in pairwise(map(int, borders)):
            yield self._folders[int(self._folder_of[first])], self._names.between(first, end)

    def absolute(self) -> Self:
        """The same files by absolute paths; only those of the folders are made anew."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        folders = self._folders.between(0, len(self._folders))
        made._folders = Texts(os.path.join(os.path.abspath(folder), "") for folder in folders)
        return made

    def content(self) -> Iterator[bytes | memoryview]:
        """All that the list consists of, as bytes; equal for lists of the same paths in the same order."""
        for texts in (self._folders, self._names):
            yield from (texts.ends.data.cast("B"), texts.buffer)
        yield self._folder_of.data.cast("B")


def _parted(path: str) -> tuple[str, tuple[str]]:
    """A path's folder, with a slash unless it is empty, and its name."""
    cut = path.rfind(os.sep) + 1
    return path[:cut], (path[cut:],)
