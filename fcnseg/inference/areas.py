"""How much of each image each class covers, as a table in CSV."""

import csv
import os
from pathlib import Path
from typing import TextIO

import numpy as np

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace

HEADER = ("image", "index", "class", "pixels", "share", "square_metres")
"""Columns of the table.

`index` is the class's value in masks; `share` is that of the image's pixels that have a class, 0 to 1, empty where none
has; `square_metres` is empty for images that do not tell what a pixel measures.
"""

AT_ONCE = 1 << 24
"""Pixels that are counted at once: counting takes eight bytes for each."""


def count_pixels(mask: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """(C,) int64 pixels of each class in an (H, W) mask; ignored pixels do not count.

    Counts of the windows of an image add up to those of the image.

    Raises:
        InputError: when the mask is not (H, W) integers, or a value is neither a class nor the ignore index.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise InputError(f"a mask is (H, W) integers; got shape {mask.shape} of {mask.dtype}")
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    rows = max(AT_ONCE // max(mask.shape[1], 1), 1)
    for top in range(0, len(mask), rows):
        part = mask[top : top + rows]
        # A value beyond 255 of a wider type must not be counted as another one.
        if mask.dtype.itemsize > 1 and part.size and not 0 <= part.min() <= part.max() <= IGNORE_INDEX:
            raise _stray(part.min() if part.min() < 0 else part.max(), label_space)
        counts += np.bincount(part.ravel(), minlength=len(counts))
    if (stray := np.flatnonzero(counts[label_space.num_classes : IGNORE_INDEX])).size:
        raise _stray(label_space.num_classes + stray[0], label_space)
    return counts[: label_space.num_classes]


class AreaTable:
    """A CSV file with a row for every image and class, in the columns of `HEADER`.

    Rows stand in `NAME.part` beside the file until the block ends well: a job that is killed leaves the rows of all
    images that it had finished there, and an earlier table as it was.

        with AreaTable("areas.csv", label_space) as table:
            table.add("photo.jpg", count_pixels(mask, label_space))

    Args:
        path: of the table.
        label_space: of the masks.
    """

    def __init__(self, path: Path | str, label_space: LabelSpace) -> None:
        self.path = Path(path)
        self.unfinished = self.path.with_name(f"{self.path.name}.part")
        self.label_space = label_space
        self._file: TextIO | None = None

    def __enter__(self) -> "AreaTable":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.unfinished.open("w", encoding="utf-8", newline="")
        self._write([HEADER])
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if kind is None:
            os.replace(self.unfinished, self.path)

    def add(self, image: str, counts: np.ndarray, pixel_area: float | None = None) -> None:
        """Append the rows of an image, and hand them to the operating system.

        Args:
            image: its name.
            counts: (C,) pixels of each class, as `count_pixels` gives them.
            pixel_area: in square metres, as `Georeference.pixel_area` tells it.

        Raises:
            ValueError: for another number of counts than of classes.
        """
        total = int(counts.sum())
        rows = []
        for index, (name, pixels) in enumerate(zip(self.label_space.classes, counts.tolist(), strict=True)):
            share = f"{pixels / total:.6g}" if total else ""
            area = "" if pixel_area is None else f"{pixels * pixel_area:.9g}"
            rows.append((image, index, name, pixels, share, area))
        self._write(rows)

    def _write(self, rows: list[tuple]) -> None:
        if self._file is None:
            raise ValueError(f"{self.path}: rows are added within the with block")
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()


def _stray(value: int, label_space: LabelSpace) -> InputError:
    return InputError(
        f"mask value {value} is not one of the {label_space.num_classes} classes of {label_space.name!r}, "
        f"nor {IGNORE_INDEX} (ignored)"
    )
