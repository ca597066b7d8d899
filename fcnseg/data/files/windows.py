"""Parts of image and label files, read without the rest of the file, however large that is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.labels import Colour, label_values
from fcnseg.data.files.rasters import (
    Window,
    bands_of,
    damage_named,
    declares_no_data,
    has_windows,
    rasterio_for,
    read_bands,
    require_small_blocks,
)
from fcnseg.data.files.values import max_bytes, require_bytes
from fcnseg.errors import InputError

CACHE = 64 * 2**20
"""Bytes that GDAL keeps of blocks it has decoded."""


def raster_size(path: Path) -> tuple[int, int]:
    """(height, width) of a file that can be read by windows.

    Raises:
        InputError: when it is missing, damaged, or must be decoded as a whole.
    """
    with _opened(path) as raster:
        return raster.height, raster.width


def image_window(path: Path, channels: int, window: Window) -> np.ndarray:
    """(h, w, channels) of a window within an image, by the rules of `read_image`.

    Raises:
        InputError: as `raster_size`, or when the file has another number of channels.
    """
    with _opened(path) as raster:
        bands, colours = bands_of(raster, channels, path)
        _require_room(path, window, 4 * len(bands))
        with damage_named(path):
            return read_bands(raster, bands, colours, window)


def label_window(
    path: Path, window: Window, *, channel: int | None = None, colours: Sequence[tuple[Colour, int]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) uint16 of a window within a label file, as `read_label`, and (h, w) bool: where it has data.

    Raises:
        InputError: as `raster_size`, or as `read_label` does.
    """
    with _opened(path) as raster:
        bands, palette = bands_of(raster, None if colours is None else 3, path)
        _require_room(path, window, 2 * len(bands))
        with damage_named(path):
            pixels = read_bands(raster, bands, palette, window, raw=True)
            known = raster.read_masks(1, window=window) > 0 if declares_no_data(raster, [1]) else None
    values = label_values(path, pixels, channel, colours)
    return values, np.ones(values.shape, bool) if known is None else known


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    rasterio = rasterio_for(path, "a window of it needs")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    unfit = InputError(f"{path}: cannot be read by windows; expected a TIFF, GeoTIFF, PNG or JPEG that stands upright")
    if not has_windows(path):
        raise unfit
    with rasterio.Env(GDAL_CACHEMAX=CACHE), damage_named(path), rasterio.open(path) as raster:
        if raster.tags().get("EXIF_Orientation", "1") != "1":
            raise unfit
        require_small_blocks(raster, path, max_bytes())
        yield raster


def _require_room(path: Path, window: Window, pixel: int) -> None:
    (top, bottom), (left, right) = window
    require_bytes(path, (bottom - top) * (right - left) * pixel, "a window of an image")
