"""Files of a scene's mask, written by windows: the mask, probabilities and entropy, and an overlay to look at."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.data.display import displayable
from fcnseg.data.files.rasters import import_rasterio
from fcnseg.inference.overlay import add_legend, blend
from fcnseg.inference.scene import Scene
from fcnseg.inference.segmentation import OVERLAY_COMPRESSION
from fcnseg.labels import IGNORE_INDEX, LabelSpace

OVERLAY_SIDE = 4096
"""Pixels of an overlay's longer side; it shows every n-th pixel of a larger scene."""

BLOCK = 512
"""Side of a GeoTIFF's tiles in pixels."""

ROWS = 2 * BLOCK

WriteWindow = Callable[[int, int, np.ndarray], None]


def profile(scene: Scene, bands: int) -> dict[str, Any]:
    """How rasterio is to write a GeoTIFF of 8 bits on a scene's ground: tiled, compressed, of any size."""
    height, width = scene.size
    options: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": bands,
        "dtype": "uint8",
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    if min(scene.size) >= BLOCK:
        options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    if scene.place is not None:
        options |= {"crs": scene.place.crs, "transform": scene.place.transform}
    return options


def write_mask(mask: np.ndarray, label_space: LabelSpace, scene: Scene, path: Path) -> None:
    """Write an (H, W) uint8 mask with the classes' colours: a GeoTIFF where `path` ends in .tif, or an index PNG.

    A GeoTIFF has the scene's CRS and transform, and 255 as nodata.

    Raises:
        OSError: when the disk is full; nothing is left at `path`.
    """
    rasterio = import_rasterio()
    geotiff = path.suffix.lower() in (".tif", ".tiff")
    with replacing(path) as temporary:
        raster = temporary if geotiff else temporary.with_suffix(".tif")
        try:
            with _written(path), rasterio.open(raster, "w", **profile(scene, 1), nodata=IGNORE_INDEX) as target:
                target.write_colormap(1, {i: (*map(int, rgb), 255) for i, rgb in enumerate(label_space.colours())})
                target.update_tags(classes=", ".join(label_space.classes))
                for start in range(0, scene.size[0], ROWS):
                    rows = mask[start : start + ROWS]
                    target.write(rows, 1, window=((start, start + len(rows)), (0, scene.size[1])))
            _require_whole(raster, path)
            if not geotiff:
                with _written(path):
                    import_module("rasterio.shutil").copy(raster, temporary, driver="PNG")
        finally:
            if not geotiff:
                raster.unlink(missing_ok=True)
                temporary.with_name(temporary.name + ".aux.xml").unlink(missing_ok=True)


@contextmanager
def surfaces_file(scene: Scene, names: Sequence[str], path: Path) -> Iterator[WriteWindow]:
    """A GeoTIFF of values from 0 to 1 with a band for each name; gives what writes (top, left, (bands, h, w) values).

    Bands are uint8 with a scale of 1/255, which GDAL's tools carry out.

    Raises:
        OSError: when the disk is full; nothing is left at `path`.
    """
    rasterio = import_rasterio()
    bands = len(names)
    options = profile(scene, bands) | {"interleave": "pixel"}
    with replacing(path) as temporary:
        with _written(path), rasterio.open(temporary, "w", **options) as target:
            target.scales = (1 / 255,) * bands
            target.descriptions = names

            def write(top: int, left: int, values: np.ndarray) -> None:
                shares = np.rint(values.clip(0, 1) * np.float32(255)).astype(np.uint8)
                target.write(shares, window=((top, top + shares.shape[1]), (left, left + shares.shape[2])))

            yield write
        _require_whole(temporary, path)


def write_overlay(mask: np.ndarray, label_space: LabelSpace, scene: Scene, path: Path, opacity: float) -> None:
    """Write the scene under the classes' colours with their legend, at most `OVERLAY_SIDE` pixels wide and high."""
    step = -(-max(scene.size) // OVERLAY_SIDE)
    rows = max(ROWS // step, 1) * step
    starts = range(0, scene.size[0], rows)
    # Copies: views of what is shown would keep all that was read.
    pixels = [scene.rows(start, min(start + rows, scene.size[0]))[::step, ::step].copy() for start in starts]
    image, small = displayable(np.concatenate(pixels)), np.ascontiguousarray(mask[::step, ::step])
    picture = add_legend(
        blend(image, small, label_space, opacity, outline=True), label_space, present=np.unique(small).tolist()
    )
    with replacing(path) as temporary:
        picture.save(temporary, compress_level=OVERLAY_COMPRESSION)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """GDAL's errors as those of the operating system, which they mostly are."""
    failures = import_rasterio().errors.RasterioError, import_module("rasterio._err").CPLE_BaseError
    try:
        yield
    except failures as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise OSError(errno.EIO, reason, str(path)) from error


def _require_whole(raster: Path, path: Path) -> None:
    """Read what was written: GDAL is silent where the disk is full when it closes a file."""
    try:
        with import_rasterio().open(raster) as written:
            for start in range(0, written.height, BLOCK):
                written.read(window=((start, min(start + BLOCK, written.height)), (0, written.width)))
    except import_rasterio().errors.RasterioIOError:
        raise OSError(errno.EIO, "not written whole; the disk may be full", str(path)) from None
