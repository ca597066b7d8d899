"""The regions of a mask as polygons: outlines, COCO JSON and GeoJSON. Outlines need rasterio (the extra `geo`)."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.inference.georeference import Georeference, import_rasterio
from fcnseg.labels import IGNORE_INDEX, LabelSpace


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one class that hang together by their edges.

    Attributes:
        index: of the class.
        pixels: how many there are in the mask, whatever became of the outline.
        outline: (n, 2) x and y of corners, the first one repeated as the last; in pixels, (0, 0) being the outer
            corner of the first pixel, x to the right and y down.
        holes: the same of every hole.
    """

    index: int
    pixels: int
    outline: np.ndarray
    holes: tuple[np.ndarray, ...] = ()


def find_regions(mask: np.ndarray, *, tolerance: float = 0, least_pixels: int = 1) -> Iterator[Region]:
    """The regions of an (H, W) uint8 mask, in no particular order; ignored pixels are in none.

    Args:
        mask: class indices, 255 where ignored.
        tolerance: by how many pixels an outline may leave the true one, so that it needs fewer corners (Douglas and
            Peucker 1973). At 0 outlines follow the edges of pixels exactly. Above it neighbours may overlap a little.
        least_pixels: smaller regions are left out, and nothing takes their place.

    Raises:
        InputError: for a mask of another kind, a negative tolerance, and without rasterio.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(f"a mask is (H, W) uint8; got shape {mask.shape} of {mask.dtype}")
    if tolerance < 0:
        raise InputError(f"tolerance {tolerance}: expected pixels, 0 or more")
    shapes = import_rasterio("polygons").features.shapes(mask, mask=mask != IGNORE_INDEX, connectivity=4)
    for shape, value in shapes:
        outline, *holes = (np.rint(ring).astype(np.int64) for ring in shape["coordinates"])
        pixels = abs(_twice_area(outline)) // 2 - sum(abs(_twice_area(hole)) // 2 for hole in holes)
        if pixels >= least_pixels:
            simple = _simplified(outline, tolerance)
            outline = outline if simple is None else simple  # rather the exact one than none; a hole may close
            kept = (_simplified(hole, tolerance) for hole in holes)
            yield Region(int(value), int(pixels), outline, tuple(hole for hole in kept if hole is not None))


def _twice_area(ring: np.ndarray) -> Any:
    """Twice the signed area of a closed ring, in its own type: positive where y goes up and it runs anticlockwise."""
    x, y = (ring - ring[0]).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray | None:
    """A closed ring with fewer corners, or None where no area is left."""
    if tolerance == 0:
        return ring
    corners = cv2.approxPolyDP(ring[:-1].astype(np.int32), tolerance, closed=True)[:, 0].astype(np.int64)
    closed = np.concatenate([corners, corners[:1]])
    return closed if len(corners) >= 3 and _twice_area(closed) != 0 else None


# COCO


class CocoFile:
    """Annotations of many images in one COCO JSON, as pycocotools reads it; it appears when the block ends well.

    A region without holes is a polygon; COCO's polygons have no holes, so one with holes is a run-length encoding of
    its exact pixels. `area` counts pixels of the mask, `iscrowd` is 0. A category's id is the class's index + 1, since
    many readers take 0 for background; its own key `index` is the value in masks. Annotations are written as they
    come, so that memory does not grow with them.

        with CocoFile("coco.json", label_space) as coco:
            coco.add("photo.jpg", mask.shape, find_regions(mask, tolerance=1))

    Args:
        path: of the JSON file.
        label_space: of the masks.
    """

    def __init__(self, path: Path | str, label_space: LabelSpace) -> None:
        self.path = Path(path)
        self.label_space = label_space
        self._images: list[dict[str, Any]] = []
        self._annotations = 0
        self._open = ExitStack()
        self._file: TextIO | None = None

    def __enter__(self) -> "CocoFile":
        temporary = self._open.enter_context(replacing(self.path))
        self._file = self._open.enter_context(temporary.open("w", encoding="utf-8"))
        categories = [
            {"id": index + 1, "name": name, "supercategory": self.label_space.name, "index": index}
            for index, name in enumerate(self.label_space.classes)
        ]
        self._file.write(f'{{"categories": {_json(categories)},\n"annotations": [')
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None and error[0] is None:
            self._file.write(f'\n],\n"images": {_json(self._images)}}}\n')
        self._file = None
        self._open.__exit__(*error)

    def add(self, image: str, size: tuple[int, int], regions: Iterable[Region]) -> None:
        """Add an image and its regions.

        Args:
            image: its name.
            size: its (height, width).
            regions: as `find_regions` gives them.

        Raises:
            InputError: for a class that the label space does not have.
        """
        if self._file is None:
            raise ValueError(f"{self.path}: images are added within the with block")
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": image, "height": size[0], "width": size[1]})
        for region in regions:
            _class_name(region, self.label_space)
            self._file.write(",\n" if self._annotations else "\n")
            self._annotations += 1
            facts = {"id": self._annotations, "image_id": number, "category_id": region.index + 1}
            self._file.write(_json(facts | _annotation(region, size)))


def _annotation(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    (left, top), (right, bottom) = region.outline.min(axis=0).tolist(), region.outline.max(axis=0).tolist()
    encoded = run_lengths(region, size) if region.holes else [region.outline[:-1].ravel().tolist()]
    box = [left, top, right - left, bottom - top]
    return {"segmentation": encoded, "area": region.pixels, "bbox": box, "iscrowd": 0}


def run_lengths(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's uncompressed run-length encoding of a region in an image of `size` = (height, width).

    The counts are of pixels outside and inside in turn, down the columns from left to right.
    """
    rasterio = import_rasterio("polygons")
    rings = [ring.tolist() for ring in (region.outline, *region.holes)]
    (left, top), (right, bottom) = region.outline.min(axis=0), region.outline.max(axis=0)
    inside = rasterio.features.rasterize(
        [{"type": "Polygon", "coordinates": rings}],
        (bottom - top, right - left),
        transform=rasterio.Affine.translation(left, top),
        dtype="uint8",
    )
    # Where a column's runs begin and end; zeros around them end each run within its own column.
    edges = np.diff(np.pad(inside.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = ((left + column) * size[0] + top + row for column, row in map(np.nonzero, (edges > 0, edges < 0)))
    apart = starts[1:] != ends[:-1]  # else a run goes on at the top of the next column
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    borders = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [size[0] * size[1]]])
    return {"counts": np.diff(borders).tolist(), "size": [int(size[0]), int(size[1])]}


# GeoJSON


def save_geojson(
    regions: Iterable[Region], label_space: LabelSpace, path: Path | str, georeference: Georeference | None = None
) -> None:
    """Write regions as a FeatureCollection with the properties class, index, pixels and area.

    Coordinates are in the image's CRS, which is named in the member `crs` that GDAL and QGIS read; RFC 7946, which
    leaves it out, allows longitude and latitude of WGS 84 alone. Images that lie nowhere give pixels, y down.
    `area` is in square metres, null without a projected CRS. Outlines run anticlockwise, holes clockwise (RFC 7946,
    section 3.1.6).

    Raises:
        InputError: for a class that the label space does not have.
    """
    crs = georeference.crs_name if georeference else None
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head = {"type": "FeatureCollection", "name": Path(path).stem}
        if crs is not None and crs != "urn:ogc:def:crs:EPSG::4326":  # which is GeoJSON's own
            head["crs"] = {"type": "name", "properties": {"name": crs}}  # type: ignore[assignment]
        file.write(_json(head)[:-1] + ', "features": [')
        for number, region in enumerate(regions):
            file.write(",\n" if number else "\n")
            file.write(_json(_feature(region, label_space, georeference)))
        file.write("\n]}\n")


def _feature(region: Region, label_space: LabelSpace, georeference: Georeference | None) -> dict[str, Any]:
    rings = []
    for number, ring in enumerate((region.outline, *region.holes)):
        placed = georeference.place(ring) if georeference else ring
        anticlockwise = _twice_area(placed) > 0
        rings.append((placed if anticlockwise == (number == 0) else placed[::-1]).tolist())
    pixel_area = georeference.pixel_area if georeference else None
    properties = {
        "class": _class_name(region, label_space),
        "index": region.index,
        "pixels": region.pixels,
        "area": None if pixel_area is None else region.pixels * pixel_area,
    }
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": rings}}


def _class_name(region: Region, label_space: LabelSpace) -> str:
    if region.index >= label_space.num_classes:
        raise InputError(
            f"mask value {region.index} is not one of the {label_space.num_classes} classes of {label_space.name!r}"
        )
    return label_space.classes[region.index]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
