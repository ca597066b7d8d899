"""What a dataset consists of beside the content of its files, as a hash."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fcnseg
from fcnseg.data.dataset import SegmentationDataset
from fcnseg.data.files.checksum import sha256
from fcnseg.data.files.path_list import PathList
from fcnseg.labels import LabelSpace


def place_of(dataset: SegmentationDataset) -> tuple[str, list[PathList]]:
    """A hash of a dataset's settings and of the absolute paths of its files; and these files.

    Settings are what the dataset would be pickled with, and the code of the files that define its classes.
    """
    place = hashlib.sha256(fcnseg.__version__.encode())
    files = []
    for fact in facts([dataset, dataset.label_space]):  # the latter may be its class's
        if isinstance(fact, str):
            place.update(f"{fact}\n".encode())
            continue
        place.update(f"{len(fact)} files\n".encode())
        for piece in fact.absolute().content():
            place.update(piece)
        files.append(fact)
    return place.hexdigest()[:32], files


def facts(value: Any) -> Iterator[str | PathList]:
    """What an object consists of, piece by piece."""
    if value is None or isinstance(value, str | bytes | int | float | np.generic):
        yield repr(value)
    elif isinstance(value, PathList):
        yield value
    elif isinstance(value, Path):
        yield PathList([value])
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
        yield f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}"
    elif isinstance(value, LabelSpace):
        yield repr(value.to_dict())
    elif isinstance(value, Mapping):
        yield from facts([part for item in value.items() for part in item])
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value)))
    elif hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "label_space"):
        yield f"{len(value)} values"
        for index in range(len(value)):
            yield from facts(value[index])
    elif callable(value) and hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}"
    else:
        yield f"{type(value).__qualname__} {_code(type(value).__module__)}"
        yield from facts(value.__getstate__())


@cache
def _code(module: str) -> str:
    """The checksum of the file that a module is in; empty where it is in none."""
    return sha256(Path(getattr(sys.modules.get(module), "__file__", None) or ""))


def file_state(path: str | Path) -> tuple[int, int, int]:
    """A file's size, and when its content and its state last changed, in ns; (-1, 0, 0) of what is no file.

    The second time no program can set: it tells of a content that was put in place under an old date.
    """
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0, 0
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if stat.S_ISREG(found.st_mode) else (-1, 0, 0)
