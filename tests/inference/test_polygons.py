"""Polygons of masks: rasterised again they are the very mask, and the files are what their readers expect."""

import json
import sys

import numpy as np
import pytest
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy.ndimage import label as connected

from fcnseg.data.citygen import CityScenes
from fcnseg.errors import InputError
from fcnseg.inference.georeference import Georeference
from fcnseg.inference.polygons import CocoFile, Region, find_regions, run_lengths, save_geojson
from fcnseg.labels import IGNORE_INDEX, STREET11

SIZE = (37, 52)


def noise() -> np.ndarray:
    """Holes, holes in holes, corners that touch, and regions at every edge."""
    mask = np.random.default_rng(1).integers(0, 3, SIZE).astype(np.uint8)
    mask[5:30, 8:40] = 4
    mask[8:25, 10:30] = 5
    mask[10:20, 12:20] = 4
    mask[30:34, 2:9] = IGNORE_INDEX
    return mask


MASKS = {"noise": noise(), "scene": CityScenes(1, 0, "real", SIZE)[0][1], "one class": np.full(SIZE, 3, np.uint8)}


def components(mask: np.ndarray) -> dict[int, list[int]]:
    """The sizes of the regions of each class, by scipy, which joins pixels by their edges too."""
    found = {}
    for index in np.unique(mask[mask != IGNORE_INDEX]).tolist():
        numbers, _ = connected(mask == index)
        found[index] = sorted(np.bincount(numbers.ravel())[1:].tolist())
    return found


def filled(rings: list, transform: Affine = Affine.identity()) -> np.ndarray:  # noqa: B008
    shape = {"type": "Polygon", "coordinates": rings}
    return rasterize([(shape, 1)], SIZE, transform=transform, dtype="uint8").astype(bool)


def decoded(segmentation: dict | list) -> np.ndarray:
    """The pixels of a COCO segmentation."""
    if isinstance(segmentation, list):
        (flat,) = segmentation
        corners = np.reshape(flat, (-1, 2)).tolist()
        return filled([[*corners, corners[0]]])
    values = np.arange(len(segmentation["counts"])) % 2
    return np.repeat(values, segmentation["counts"]).reshape(segmentation["size"], order="F").astype(bool)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_every_region_is_found_with_its_pixels(mask):
    found = {}
    for region in find_regions(mask):
        found.setdefault(region.index, []).append(region.pixels)
    assert {index: sorted(sizes) for index, sizes in sorted(found.items())} == components(mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_coco_gives_the_very_mask_back(mask, tmp_path):
    with CocoFile(tmp_path / "coco.json", STREET11) as coco:
        coco.add("first.png", (2, 2), [])
        coco.add("photo.png", mask.shape, find_regions(mask))
    data = json.loads((tmp_path / "coco.json").read_text())
    assert [category["name"] for category in data["categories"]] == list(STREET11.classes)
    assert data["images"][1] == {"id": 2, "file_name": "photo.png", "height": SIZE[0], "width": SIZE[1]}
    again = np.full(SIZE, IGNORE_INDEX, np.uint8)
    times = np.zeros(SIZE, int)
    for number, annotation in enumerate(data["annotations"], start=1):
        pixels = decoded(annotation["segmentation"])
        rows, columns = np.nonzero(pixels)
        again[pixels] = annotation["category_id"] - 1
        times += pixels
        assert annotation["area"] == pixels.sum()
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == box
        assert (annotation["id"], annotation["image_id"], annotation["iscrowd"]) == (number, 2, 0)
    np.testing.assert_array_equal(again, mask)
    np.testing.assert_array_equal(times, mask != IGNORE_INDEX)


def test_run_lengths_are_those_of_the_whole_column_major_mask():
    for region in find_regions(noise()):
        inside = filled([ring.tolist() for ring in (region.outline, *region.holes)])
        flat = np.concatenate([[False], inside.ravel(order="F")])
        borders = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [inside.size]])
        encoded = run_lengths(region, SIZE)
        assert sum(encoded["counts"]) == inside.size
        np.testing.assert_array_equal(decoded(encoded), inside)
        expected = np.diff(borders).tolist()
        assert encoded["counts"] in (expected, [*expected, 0])  # which may end with none outside


TRANSFORM = Affine(0.5, 0, 440720, 0, -0.5, 3751320)


@pytest.mark.parametrize("place", [None, Georeference(TRANSFORM, CRS.from_epsg(26711))], ids=["pixels", "utm"])
def test_geojson_gives_the_very_mask_back(place, tmp_path):
    mask = noise()
    save_geojson(find_regions(mask), STREET11, tmp_path / "photo.geojson", place)
    data = json.loads((tmp_path / "photo.geojson").read_text())
    again = np.full(SIZE, IGNORE_INDEX, np.uint8)
    for feature in data["features"]:
        properties, geometry = feature["properties"], feature["geometry"]
        pixels = filled(geometry["coordinates"], place.transform if place else Affine.identity())
        again[pixels] = properties["index"]
        assert properties["class"] == STREET11.classes[properties["index"]]
        assert properties["pixels"] == pixels.sum()
        assert properties["area"] == (pixels.sum() * 0.25 if place else None)
        for number, ring in enumerate(geometry["coordinates"]):
            x, y = (np.array(ring) - ring[0]).T
            anticlockwise = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0
            assert ring[0] == ring[-1]
            assert anticlockwise == (number == 0)
    np.testing.assert_array_equal(again, mask)
    name = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::26711"}}
    assert data.get("crs") == (name if place else None)


def test_longitude_and_latitude_need_no_crs(tmp_path):
    place = Georeference(Affine(1e-4, 0, 10, 0, -1e-4, 50), CRS.from_epsg(4326))
    save_geojson(find_regions(noise()), STREET11, tmp_path / "photo.geojson", place)
    assert "crs" not in json.loads((tmp_path / "photo.geojson").read_text())


def test_specks_are_left_out():
    sizes = [region.pixels for region in find_regions(noise(), least_pixels=6)]
    assert sizes
    assert sorted(sizes) == sorted(n for found in components(noise()).values() for n in found if n >= 6)


def test_a_tolerance_saves_corners_and_stays_within_it():
    rows, columns = np.mgrid[:200, :300]
    disc = (np.hypot(rows - 100, columns - 150) < 80).astype(np.uint8)
    disc[np.hypot(rows - 100, columns - 150) < 30] = 2
    exact = {region.index: region for region in find_regions(disc)}
    simple = {region.index: region for region in find_regions(disc, tolerance=1.5)}
    for index, region in simple.items():
        assert region.pixels == exact[index].pixels
        assert len(region.outline) <= len(exact[index].outline)
        assert len(region.holes) == len(exact[index].holes)
        for ring, true in zip(
            (region.outline, *region.holes), (exact[index].outline, *exact[index].holes), strict=True
        ):
            assert distance(true, ring) <= 1.5 + 1e-9
    assert len(simple[1].outline) < len(exact[1].outline) / 5


def distance(points: np.ndarray, ring: np.ndarray) -> float:
    """The largest distance of a point from the nearest side of a ring."""
    start, side = ring[:-1].astype(float), np.diff(ring, axis=0).astype(float)
    along = ((points[:, None] - start) * side).sum(-1) / (side**2).sum(-1)
    nearest = start + along.clip(0, 1)[..., None] * side
    return float(np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1).max())


def test_a_region_smaller_than_the_tolerance_keeps_its_outline():
    mask = np.full((9, 9), IGNORE_INDEX, np.uint8)
    mask[4, 4] = 1
    (region,) = find_regions(mask, tolerance=5)
    assert sorted(map(tuple, region.outline[:-1].tolist())) == [(4, 4), (4, 5), (5, 4), (5, 5)]


def test_a_mistake_leaves_no_file(tmp_path):
    foreign = Region(11, 1, np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]))
    with pytest.raises(InputError, match="mask value 11 "), CocoFile(tmp_path / "coco.json", STREET11) as coco:
        coco.add("photo.png", SIZE, [foreign])
    with pytest.raises(InputError, match="mask value 11 "):
        save_geojson([foreign], STREET11, tmp_path / "photo.geojson")
    assert not list(tmp_path.iterdir())


def test_what_is_no_mask_or_tolerance_is_refused(monkeypatch):
    with pytest.raises(InputError, match="uint8"):
        list(find_regions(np.zeros((2, 2), np.int64)))
    with pytest.raises(InputError, match="tolerance -1"):
        list(find_regions(noise(), tolerance=-1))
    monkeypatch.setitem(sys.modules, "rasterio.features", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install fcnseg\[geo\]"):
        list(find_regions(noise()))
