"""Where images lie: read back from files that rasterio has written."""

import sys

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.crs import CRS

from fcnseg.errors import InputError
from fcnseg.inference.georeference import Georeference, read_georeference


def write(path, **facts):
    with rasterio.open(path, "w", driver="GTiff", height=4, width=5, count=1, dtype="uint8", **facts) as raster:
        raster.write(np.zeros((1, 4, 5), np.uint8))


def test_it_is_what_the_file_says(tmp_path):
    transform = Affine(0.5, 0, 440720, 0, -0.5, 3751320)
    write(tmp_path / "there.tif", crs="EPSG:26711", transform=transform)
    found = read_georeference(tmp_path / "there.tif")
    assert found == Georeference(transform, CRS.from_epsg(26711))
    assert found.crs_name == "urn:ogc:def:crs:EPSG::26711"
    assert found.pixel_area == 0.25


def test_a_place_without_a_crs_is_kept(tmp_path):
    write(tmp_path / "somewhere.tif", transform=Affine(2, 0, 10, 0, -2, 20))
    found = read_georeference(tmp_path / "somewhere.tif")
    assert found.transform == Affine(2, 0, 10, 0, -2, 20)
    assert (found.crs, found.crs_name, found.pixel_area) == (None, None, None)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_picture_lies_nowhere(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "photo.png")
    assert read_georeference(tmp_path / "photo.png") is None


def test_points_go_where_the_transform_puts_them():
    transform = Affine(2, -0.7, 3e5, 0.4, -3, 5e6)
    points = np.array([[0, 0], [7, 0], [3, 11]])
    expected = [(2 * x - 0.7 * y + 3e5, 0.4 * x - 3 * y + 5e6) for x, y in points.tolist()]
    np.testing.assert_allclose(Georeference(transform).place(points), expected, rtol=1e-14)


def test_what_cannot_be_read_ends_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "no.tif").write_text("no raster")
    with pytest.raises(InputError, match=r"no\.tif: cannot be read as a raster"):
        read_georeference(tmp_path / "no.tif")
    monkeypatch.setitem(sys.modules, "rasterio.features", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install fcnseg\[geo\]"):
        read_georeference(tmp_path / "no.tif")
