"""Where the pixels of a raster lie on the ground. Needs rasterio (the extra `geo`)."""

import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import InputError


@dataclass(frozen=True)
class Georeference:
    """The place of an image in a coordinate reference system.

    Attributes:
        transform: an `affine.Affine` from (column, row) of a pixel's corner to (x, y), as rasterio's.
        crs: a `rasterio.crs.CRS`, or None where the file tells none.
    """

    transform: Any
    crs: Any = None

    @property
    def pixel(self) -> float:
        """Side of a pixel in units of the CRS, the geometric mean of its two."""
        return float(abs(self.transform.determinant) ** 0.5)

    @property
    def pixel_area(self) -> float | None:
        """Square metres that a pixel covers in the plane of a projected CRS; None without one.

        It is the area on the map, which in some projections is not that on the ground: Web Mercator (EPSG:3857)
        shows the area at 60 degrees of latitude four times too large.
        """
        if self.crs is None or not self.crs.is_projected:
            return None
        return abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2

    @property
    def crs_name(self) -> str | None:
        """The CRS by its authority as a URN, such as urn:ogc:def:crs:EPSG::32633, or as WKT where it has none."""
        if self.crs is None:
            return None
        authority = self.crs.to_authority()
        return f"urn:ogc:def:crs:{authority[0]}::{authority[1]}" if authority else self.crs.to_wkt()

    def place(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) columns and rows of corners of pixels to (n, 2) float64 x and y."""
        a, b, c, d, e, f = self.transform[:6]
        return np.asarray(points, np.float64) @ np.array([[a, d], [b, e]]) + (c, f)


def read_georeference(path: Path | str) -> Georeference | None:
    """What a raster file tells of its place; None where that is nothing.

    Raises:
        InputError: without rasterio, and for a file that it cannot open.
    """
    rasterio = import_rasterio("where an image lies")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as raster:
                transform, crs = raster.transform, raster.crs
        except rasterio.errors.RasterioIOError as error:
            raise InputError(f"{path}: cannot be read as a raster ({' '.join(str(error).split())})") from error
    return Georeference(transform, crs or None) if crs or not transform.is_identity else None


def import_rasterio(what: str) -> Any:
    """The module rasterio, with its `features`.

    Args:
        what: is wanted of it, for the message.

    Raises:
        InputError: where it is not installed.
    """
    try:
        import_module("rasterio.features")
        return import_module("rasterio")
    except ImportError:
        raise InputError(f"{what}: needs rasterio; pip install fcnseg[geo]") from None
