"""Rasters through rasterio (the extra `geo`): their bands, what of them is no data, and windows of them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.values import as_file_values
from fcnseg.errors import InputError

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF

WINDOWED = (*TIFF_HEADS, b"\x89PNG", b"\xff\xd8\xff")
"""How files of the formats begin that rasterio reads by rows or blocks; those of others are decoded as a whole."""

Window = tuple[tuple[int, int], tuple[int, int]]
"""(first row, end), (first column, end) of a part of an image."""


@cache
def import_rasterio() -> Any:
    """The package, quiet about images that lie nowhere.

    Raises:
        ImportError: where it is not installed.
    """
    rasterio = import_module("rasterio")
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # a plain TIFF is fine
    return rasterio


def rasterio_for(path: Path, what: str = "this kind of TIFF needs") -> Any:
    """The package, for a file that cannot be read without it.

    Raises:
        InputError: where it is not installed.
    """
    try:
        return import_rasterio()
    except ImportError:
        raise InputError(f"{path}: {what} rasterio; pip install fcnseg[geo]") from None


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF and BigTIFF do."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF_HEADS


def has_windows(path: Path) -> bool:
    """Whether a file is of a format that rasterio reads by windows; others may send it to other files and servers."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4).startswith(WINDOWED)


def bands_of(raster: Any, channels: int | None, path: Path) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Which bands an image of so many channels has, from 1 on, by the rules of `read_image`; and (256, 3) of a palette.

    The same band thrice makes grey RGB. `channels` None takes all bands as they are.

    Raises:
        InputError: when there are fewer or more.
    """
    count, dtype = raster.count, raster.dtypes[0]
    if channels == 3 and dtype == "uint8" and set(raster.dtypes) == {"uint8"}:
        from rasterio.enums import ColorInterp

        if raster.colorinterp[0] is ColorInterp.palette:
            table = raster.colormap(1)
            return (1,), np.array([table.get(i, (0, 0, 0, 0))[:3] for i in range(256)], np.uint8)
        alpha = raster.colorinterp[-1] is ColorInterp.alpha
        if count - alpha == 1:
            return (1, 1, 1), None
        if count - alpha == 3:
            return (1, 2, 3), None
    require_channels(channels, count, dtype, f"{path}: image")
    return tuple(range(1, count + 1)), None


def require_channels(channels: int | None, found: int, dtype: str, source: str) -> None:
    """
    Raises:
        InputError: when another number of channels was found.
    """
    if channels not in (None, found):
        raise InputError(
            f"{source} has {found} channel{'s' * (found != 1)} of {dtype}; expected {channels}; "
            f"channels={found} reads it"
        )


def declares_no_data(raster: Any, bands: Sequence[int]) -> bool:
    """Whether some of a raster's bands have a value or a mask for no data; an alpha band is none."""
    from rasterio.enums import MaskFlags

    flags = [raster.mask_flag_enums[band - 1] for band in bands]
    return any(MaskFlags.all_valid not in found and MaskFlags.alpha not in found for found in flags)


def may_lack_data(path: Path) -> bool:
    """Whether an image file may have nan or declares no data; False for what is no TIFF."""
    if not path.is_file() or not is_tiff(path):
        return False
    try:
        with import_rasterio().open(path, driver="GTiff") as raster:
            return np.dtype(_plain(raster.dtypes[0])).kind in "fc" or declares_no_data(raster, raster.indexes)
    except (ImportError, OSError):  # reading it tells
        return True


def _plain(dtype: str) -> str:
    """NumPy's name of a band's type; it has no complex integers."""
    return "complex64" if dtype == "complex_int16" else dtype


def is_whole(raster: Any) -> bool:
    """Whether a raster's values are unsigned integers of 8 or 16 bits, which images keep."""
    return raster.dtypes[0] in ("uint8", "uint16")


def read_bands(
    raster: Any,
    bands: Sequence[int],
    colours: np.ndarray | None = None,
    window: Window | None = None,
    fill: Sequence[float] | None = None,
    raw: bool = False,
) -> np.ndarray:
    """(H, W, C) values of a raster or of a window within it, by the rules of `read_image`.

    Args:
        raster: rasterio's dataset.
        bands, colours: as `bands_of` gives them.
        window: the part of it; all by default.
        fill: per channel, what stands for no data in integers, which then keep their type.
        raw: leave no data of integers as it stands.
    """
    different = sorted(set(bands))
    places = [different.index(band) for band in bands]
    whole = is_whole(raster)
    masked = not whole or (not raw and declares_no_data(raster, different))
    read = raster.read(different, window=window, masked=masked)
    values = np.moveaxis(np.ma.getdata(read), 0, 2)[..., places]
    values = as_file_values(np.ascontiguousarray(values if colours is None else colours[values[..., 0]]))
    if not masked:
        return values
    absent = np.moveaxis(np.ma.getmaskarray(read), 0, 2)[..., places]
    if whole and fill is not None:
        return np.where(absent, np.rint(fill).astype(values.dtype), values)
    return np.where(absent, np.float32(np.nan), values).astype(np.float32)


def require_small_blocks(raster: Any, path: Path, most: int) -> None:
    """Refuse a file of which no part can be read without decoding more than so many bytes.

    Raises:
        InputError: naming the blocks it is stored in, and what helps.
    """
    block = max(rows * columns for rows, columns in raster.block_shapes)
    if block * raster.count * np.dtype(raster.dtypes[0]).itemsize > most:
        shape = "x".join(map(str, raster.block_shapes[0]))
        raise InputError(
            f"{path}: is stored in blocks of {shape} pixels, which take more than {most} bytes; "
            "tiles can be read: gdal_translate -co TILED=YES"
        )


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what GDAL says of a damaged file into one line that names it."""
    rasterio = import_rasterio()
    try:
        yield
    except rasterio.errors.RasterioIOError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error
