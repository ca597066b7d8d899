"""Telling whether two datasets are the same: hashes of their settings and of the state of their files."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fcnseg
from fcnseg.data.dataset import SegmentationDataset
from fcnseg.labels import LabelSpace


def identity(dataset: SegmentationDataset) -> tuple[str, str]:
    """Two hashes of a dataset: of its settings and the paths of its files; and of these with the files' state.

    The state of a file is its size and its time of change. Settings are what the dataset would be pickled with.
    """
    place, state = hashlib.sha256(fcnseg.__version__.encode()), hashlib.sha256(fcnseg.__version__.encode())
    for fact, condition in facts([dataset, dataset.label_space]):  # the latter may be its class's
        place.update(f"{fact}\n".encode())
        state.update(f"{fact}\0{condition}\n".encode())
    return place.hexdigest()[:32], state.hexdigest()


def facts(value: Any) -> Iterator[tuple[str, str]]:
    """What an object consists of, piece by piece, with the state of what is a file."""
    if value is None or isinstance(value, str | bytes | int | float | np.generic):
        yield repr(value), ""
    elif isinstance(value, Path):
        yield str(value.absolute()), _file_state(value)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()}", ""
    elif isinstance(value, LabelSpace):
        yield repr(value.to_dict()), ""
    elif isinstance(value, Mapping):
        yield from facts([part for item in value.items() for part in item])
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))), ""
    elif hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "label_space"):
        yield f"{len(value)} values", ""
        for index in range(len(value)):
            yield from facts(value[index])
    elif callable(value) and hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}", ""
    else:
        yield type(value).__qualname__, ""
        yield from facts(value.__getstate__())


def _file_state(path: Path) -> str:
    if not path.is_file():
        return ""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"
