"""Windows of images that are too large to be read whole: random ones to train on, tiles that cover all to score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.dataset import Sample, files_of, is_labelled, pass_on
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.rasters import Window
from fcnseg.data.files.windows import raster_size
from fcnseg.data.showing import Shown
from fcnseg.errors import InputError
from fcnseg.geometry import require_size
from fcnseg.labels import IGNORE_INDEX

Interval = tuple[int, int]
"""First pixel and end along an axis."""


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes:
        image: which one.
        rows, columns: its pixels.
        own_rows, own_columns: those within that belong to no other tile; of all tiles together they are the image.
    """

    image: int
    rows: Interval
    columns: Interval
    own_rows: Interval
    own_columns: Interval


class Windows(Shown):
    """Windows of the images of a dataset, in their own resolution. No file is ever read as a whole.

    By its index, sample i is a tile; tiles cover all images, and the mask of each is ignored where a pixel belongs to
    its neighbour, so that scores over all tiles count every pixel once. Training draws at random instead, see `draw`.

    Args:
        dataset: of files that rasterio reads by windows: TIFF, GeoTIFF, BigTIFF, PNG, JPEG.
        size: (height, width) of the windows. A smaller image is extended to that at its end by what is no data, 0 in
            integers, which the mask ignores.
        overlap: pixels by which neighbouring tiles overlap, at least. Each pixel is scored in the tile whose middle
            is nearer.
        by_class: share of the draws, 0 to 1, for which first a class is drawn, each that occurs as often as any other;
            then one of its pixels, of which all are as likely; and then a window that holds it. For that the labels
            are read once, by windows.
        above, below: only the part of each image above, or from there on below, this share of its height, so that a
            single image trains and validates.

    Raises:
        InputError: for a value out of range, or a file that is missing, damaged, or cannot be read by windows.
    """

    drawn = True

    def __init__(
        self,
        dataset: Pairs,
        size: Sequence[int],
        *,
        overlap: int = 0,
        by_class: float = 0.0,
        above: float = 1.0,
        below: float = 0.0,
    ) -> None:
        if not hasattr(dataset, "window"):
            raise InputError(f"windows of {type(dataset).__name__}: expected a dataset of image and label files")
        require_size(size, "window")
        if not isinstance(overlap, int) or not 0 <= overlap < min(size):
            raise InputError(f"overlap={overlap}: expected pixels from 0 to below the window's {min(size)}")
        if not 0 <= by_class <= 1:
            raise InputError(f"by_class={by_class}: expected a share from 0 to 1")
        if by_class and not is_labelled(dataset):
            raise InputError(f"by_class={by_class}: the images have no labels to draw by; expected 0")
        if not 0 <= below < above <= 1:
            raise InputError(f"above={above}, below={below}: expected shares of the height, below under above")
        self.dataset, self.label_space = dataset, dataset.label_space
        pass_on(dataset, self)
        self.size, self.overlap, self.by_class = (size[0], size[1]), overlap, by_class
        self.regions = [self._part(index, above, below) for index in range(len(dataset))]
        self.tiles = [tile for index, part in enumerate(self.regions) for tile in self._tiles(index, *part)]
        self.class_pixels: np.ndarray | None = self._count() if by_class else None

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> Sample:
        """The (*size, C) image of a tile, its (*size) mask with 255 where another tile counts, and its name."""
        tile = self.tiles[index]
        image, mask = self._read(tile.image, tile.rows[0], tile.columns[0])
        return image, _only(tile, mask), self._name(tile.image, tile.rows[0], tile.columns[0])

    def mask(self, index: int) -> np.ndarray:
        """The (*size) uint8 mask of a tile, without the image where that cannot lack data."""
        tile = self.tiles[index]
        mask = self.dataset.window_mask(tile.image, (tile.rows, tile.columns))
        return _only(tile, _extended(mask, self.size, IGNORE_INDEX))

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The image file and the label file of a tile."""
        return files_of(self.dataset, self.tiles[index].image)

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """A random window near a tile, or by class; its mask counts everywhere.

        Drawn over all indices, windows lie everywhere about as often.

        Args:
            index: of the tile, from whose place the window is at most half a tile away.
            seed: what all chance depends on: the same index and seed give the same window.
        """
        rng = np.random.default_rng(seed)
        if self.by_class and rng.random() < self.by_class and (found := self._by_class(rng)) is not None:
            number, top, left = found
        else:
            tile = self.tiles[index]
            number = tile.image
            top, left = (
                _within(start + int(rng.integers(-reach, reach + 1)), interval, side)
                for start, interval, side, reach in zip(
                    (tile.rows[0], tile.columns[0]), self.regions[number], self.size, self._reach, strict=True
                )
            )
        return *self._read(number, top, left), self._name(number, top, left)

    @cached_property
    def _reach(self) -> tuple[int, int]:
        """How far a window lies from its tile at most: half of the way to the next."""
        return (self.size[0] - self.overlap) // 2, (self.size[1] - self.overlap) // 2

    def _part(self, index: int, above: float, below: float) -> tuple[Interval, Interval]:
        """The rows and columns of an image that count."""
        image = raster_size(self.dataset.images[index])
        if is_labelled(self.dataset) and image != (label := raster_size(self.dataset.labels[index])):
            raise InputError(
                f"{self.dataset.labels[index]}: label is {label[1]}x{label[0]}, its image {image[1]}x{image[0]}; "
                "expected the same size"
            )
        rows = round(below * image[0]), round(above * image[0])
        if rows[0] == rows[1]:
            raise InputError(f"{self.dataset.images[index]}: of {image[0]} rows none lie in the part that is asked for")
        return rows, (0, image[1])

    def _tiles(self, image: int, rows: Interval, columns: Interval) -> Iterator[Tile]:
        axes = (
            _spans(*interval, side, self.overlap) for interval, side in zip((rows, columns), self.size, strict=True)
        )
        for (vertical, own_rows), (horizontal, own_columns) in product(*axes):
            yield Tile(image, vertical, horizontal, own_rows, own_columns)

    def _read(self, number: int, top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
        """The (*size, C) image and (*size) mask of a window."""
        image, mask = self.dataset.window(number, self._window(number, top, left))
        return _extended(image, self.size, np.nan if image.dtype.kind == "f" else 0), _extended(
            mask, self.size, IGNORE_INDEX
        )

    def _window(self, number: int, top: int, left: int) -> Window:
        (_, bottom), (_, right) = self.regions[number]
        return (top, min(top + self.size[0], bottom)), (left, min(left + self.size[1], right))

    def _name(self, number: int, top: int, left: int) -> str:
        return f"{self.dataset.name(number)}@{top},{left}"

    def _count(self) -> np.ndarray:
        """(tiles, classes) pixels of each class that belong to each tile."""
        classes = self.label_space.num_classes
        return np.stack([np.bincount(self.mask(i).ravel(), minlength=256)[:classes] for i in range(len(self))])

    def _by_class(self, rng: np.random.Generator) -> tuple[int, int, int] | None:
        """An image, row and column where a window begins that holds a pixel of a class that was drawn."""
        assert self.class_pixels is not None
        present = np.flatnonzero(self.class_pixels.any(axis=0))
        if not len(present):
            return None
        chosen = int(rng.choice(present))
        counts = self.class_pixels[:, chosen]
        place = int(np.searchsorted(counts.cumsum(), rng.integers(counts.sum()), side="right"))
        tile = self.tiles[place]
        rows, columns = np.nonzero(self.mask(place) == chosen)
        pixel = int(rng.integers(len(rows)))
        pixels = tile.rows[0] + int(rows[pixel]), tile.columns[0] + int(columns[pixel])
        top, left = (
            _within(at - int(rng.integers(side)), interval, side)
            for at, interval, side in zip(pixels, self.regions[tile.image], self.size, strict=True)
        )
        return tile.image, top, left


def _spans(first: int, end: int, side: int, overlap: int) -> list[tuple[Interval, Interval]]:
    """Tiles along an axis, evenly spread: their pixels, and those that belong to each, up to the middle of overlaps."""
    length = end - first
    count = 1 if length <= side else -(-(length - overlap) // (side - overlap))
    starts = [first + round(i * (length - side) / (count - 1)) for i in range(count)] if count > 1 else [first]
    borders = [first, *((left + side + right) // 2 for left, right in pairwise(starts)), end]
    return [((start, min(start + side, end)), own) for start, own in zip(starts, pairwise(borders), strict=True)]


def _within(start: int, interval: Interval, side: int) -> int:
    """The start that is nearest to one for which a window lies within an interval, or begins with it."""
    return max(min(start, interval[1] - side), interval[0])


def _only(tile: Tile, mask: np.ndarray) -> np.ndarray:
    """A tile's mask, ignored where another tile counts."""
    rows, columns = (
        slice(own[0] - all_of[0], own[1] - all_of[0])
        for own, all_of in ((tile.own_rows, tile.rows), (tile.own_columns, tile.columns))
    )
    found = np.full_like(mask, IGNORE_INDEX)
    found[rows, columns] = mask[rows, columns]
    return found


def _extended(values: np.ndarray, size: tuple[int, int], fill: Any) -> np.ndarray:
    """An (h, w) or (h, w, C) array of `size` = (H, W), filled up at its end."""
    if values.shape[:2] == size:
        return values
    extended = np.full((*size, *values.shape[2:]), fill, values.dtype)
    extended[: values.shape[0], : values.shape[1]] = values
    return extended
