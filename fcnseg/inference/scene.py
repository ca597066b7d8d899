"""Image files that are read a few rows at a time, however large they are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.images import is_turned, read_image
from fcnseg.data.files.rasters import (
    bands_of,
    damage_named,
    has_windows,
    import_rasterio,
    read_bands,
    require_small_blocks,
)
from fcnseg.errors import InputError
from fcnseg.inference.georeference import Georeference
from fcnseg.models.spec import ModelSpec

CACHE = 64 * 2**20
"""Bytes that GDAL keeps of what it has decoded, at least; a row of the file's blocks has to fit."""


@dataclass(frozen=True)
class Scene:
    """An image by its rows.

    Attributes:
        path: the file.
        size: (height, width) in pixels.
        place: on the ground, where the file tells.
    """

    path: Path
    size: tuple[int, int]
    place: Georeference | None = field(default=None, kw_only=True)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, W, C) of the image's values, as `read_image` gives them.

        Raises:
            InputError: where the file is damaged.
        """
        raise NotImplementedError

    def known(self, start: int, stop: int) -> np.ndarray | None:
        """(stop - start, W) bool, false where the file says that there is no data; None where there is everywhere."""
        return None


@dataclass(frozen=True)
class DecodedScene(Scene):
    """A file that is decoded as a whole.

    Attributes:
        pixels: (H, W, C).
    """

    pixels: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.pixels[start:stop]


@dataclass(frozen=True)
class RasterScene(Scene):
    """A file that rasterio reads by windows.

    Attributes:
        raster: rasterio's dataset.
        bands: numbers of those that are read, from 1 on; the same one thrice makes grey RGB.
        colours: (256, 3) uint8 of a palette, or None.
        fill: per channel, what stands for no data in integers, as in `read_image`.
    """

    raster: Any
    bands: tuple[int, ...]
    colours: np.ndarray | None
    fill: tuple[float, ...] | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        with damage_named(self.path):
            return read_bands(self.raster, self.bands, self.colours, self._window(start, stop), self.fill)

    def known(self, start: int, stop: int) -> np.ndarray | None:
        if self.place is None and self.raster.nodata is None:
            return None
        from rasterio.enums import MaskFlags

        if all(MaskFlags.all_valid in flags for flags in self.raster.mask_flag_enums):
            return None
        with damage_named(self.path):
            return np.asarray(self.raster.dataset_mask(window=self._window(start, stop))) > 0

    def _window(self, start: int, stop: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (start, stop), (0, self.size[1])


def lies_on_the_ground(path: str | Path) -> bool:
    """Whether a file is a GeoTIFF; not where rasterio is missing."""
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        rasterio = import_rasterio()
        with rasterio.open(path) as raster:
            return raster.crs is not None or not raster.transform.is_identity
    except Exception as error:
        if isinstance(error, ImportError) or type(error).__name__ == "RasterioIOError":
            return False
        raise


@contextmanager
def open_scene(path: str | Path, spec: ModelSpec, memory: int = 2**31) -> Iterator[Scene]:
    """Open an image file for a model.

    GeoTIFF, TIFF, PNG and JPEG are read by rows; other formats, and pictures on their side by EXIF, as a whole.

    Args:
        path: the file.
        spec: of the model, whose number of channels and type of values the image has to have.
        memory: bytes that the process may take.

    Raises:
        InputError: when the file is missing, damaged or of another kind.
    """
    path = Path(path)
    with ExitStack() as stack:
        scene: Scene | None = None if is_turned(path) else _raster_scene(path, spec, memory, stack)
        if scene is None:
            pixels = read_image(path, spec.in_channels, spec.fill)
            scene = DecodedScene(path, (pixels.shape[0], pixels.shape[1]), pixels)
        _require_type(scene, spec)
        yield scene


def _raster_scene(path: Path, spec: ModelSpec, memory: int, stack: ExitStack) -> RasterScene | None:
    try:
        rasterio = import_rasterio()
    except ImportError:
        return None
    if not has_windows(path):
        return None
    with damage_named(path):
        try:
            raster = stack.enter_context(rasterio.open(path))
        except rasterio.errors.RasterioIOError:
            return None  # `read_image` says what is wrong with it
    if raster.tags().get("EXIF_Orientation", "1") != "1":
        return None
    require_small_blocks(raster, path, memory // 4)
    row_of_blocks = max(rows for rows, _ in raster.block_shapes) * raster.width
    bytes_per_pixel = raster.count * np.dtype(raster.dtypes[0]).itemsize
    cache = min(max(CACHE, 2 * row_of_blocks * bytes_per_pixel), memory // 4)
    stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache))
    bands, colours = bands_of(raster, spec.in_channels, path)
    placed = raster.crs is not None or not raster.transform.is_identity
    place = Georeference(raster.transform, raster.crs) if placed else None
    return RasterScene(path, (raster.height, raster.width), raster, bands, colours, spec.fill, place=place)


def _require_type(scene: Scene, spec: ModelSpec) -> None:
    kind = scene.rows(0, 1).dtype.name
    if spec.scaling is None and kind != spec.image_type:
        raise InputError(f"{scene.path}: has {kind} values, the model was trained on {spec.image_type}")
