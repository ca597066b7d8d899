"""Datasets as notebooks show them: how many samples of which classes, and the first few of them."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fcnseg.data.display import displayable
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from fcnseg.views import Html, html, picture, swatches, table, view

MOST, SIDE, GAP = 4, 240, 6
"""Samples on the sheet, at most; the longer side of one, and what is between them, in pixels."""

SECONDS, BYTES = 2.0, 2**26
"""After so long no further sample is read; and none whose files are larger together, but for windows of them."""


class Shown:
    """A dataset that shows itself: `label_space`, a length, samples by index, and perhaps `sample_files`."""

    label_space: LabelSpace

    def _repr_html_(self: Any) -> str:
        """Number of samples, classes, and the first pairs, of which no more than `MOST` are read."""
        labelled = "" if getattr(self, "labelled", True) else ", without labels"
        title = f"{type(self).__name__}: {len(self)} samples{labelled}"
        space = self.label_space
        return view(title, _sheet(self), swatches(space.classes, space.palette))


def _sheet(dataset: Any) -> Html:
    """The first samples beside one another, their labels below; or why there is none to see."""
    columns, names = [], []
    try:
        for image, mask, name in _first(dataset):
            columns.append(_column(image, mask, dataset))
            names.append(name)
    except (InputError, OSError) as error:
        return html(error)
    if not columns:
        return html("nothing to show" if len(dataset) == 0 else "images too large to show")
    height, width = max(c.shape[0] for c in columns), sum(c.shape[1] + GAP for c in columns) - GAP
    sheet, left = np.full((height, width, 3), 128, np.uint8), 0
    for column in columns:
        sheet[: column.shape[0], left : left + column.shape[1]] = column
        left += column.shape[1] + GAP
    return Html(f"{picture(Image.fromarray(sheet))}<br>{html(', '.join(map(str, names)))}")


def _first(dataset: Any) -> Iterator[Any]:
    began = time.monotonic()
    for index in range(min(MOST, len(dataset))):
        if index and time.monotonic() - began > SECONDS:
            return
        files = dataset.sample_files(index) if hasattr(dataset, "sample_files") else ()
        if getattr(dataset, "drawn", False) or sum(map(os.path.getsize, files)) <= BYTES:
            yield dataset[index]


def _column(image: np.ndarray, mask: np.ndarray, dataset: Any) -> np.ndarray:
    """An image above its label in the classes' colours, black where it is ignored; alone where there are no labels."""
    step = max(-(-max(mask.shape) // (2 * SIDE)), 1)  # before anything is computed of a large image
    image, mask = image[::step, ::step], mask[::step, ::step]
    scale = min(SIDE / max(mask.shape), 1.0)
    size = max(round(scale * mask.shape[1]), 1), max(round(scale * mask.shape[0]), 1)
    above = np.asarray(Image.fromarray(displayable(image)).resize(size, Image.Resampling.BILINEAR))
    if not getattr(dataset, "labelled", True):
        return above
    below = Image.fromarray(dataset.label_space.colours()[mask]).resize(size, Image.Resampling.NEAREST)
    return np.concatenate([above, np.full((GAP, size[0], 3), 128, np.uint8), np.asarray(below)])


def data_view(data: Any) -> str:
    """HTML of a `SegmentationData`: what it trains and validates on, and how."""
    pooled = data.mixing == "pooled"
    counts = [] if not data.train or pooled else data.batches().counts
    rows: list[Sequence[object]] = [
        (html(name), type(each).__name__, len(each), str(count) if count else "drawn from all together")
        for (name, each), count in zip(data.train.items(), counts or [0] * len(data.train), strict=True)
    ]
    rows.append(("validation", type(data.val).__name__, len(data.val), html("")))
    size = "images in their own size" if data.size is None else "{} x {}, {}".format(*data.size, data.resize)
    epoch = f", {len(data.batches())} of them in an epoch" if data.train else ""
    title = f"SegmentationData: {data.label_space.name}, {size}; batches of {data.batch_size}{epoch}"
    space = data.label_space
    heads = "domain", "dataset", "samples", "of a batch"
    return view(title, table(rows, heads), swatches(space.classes, space.palette))
