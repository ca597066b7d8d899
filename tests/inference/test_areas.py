"""The table of areas: what is counted, where it stands, and what a killed job leaves."""

import csv
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine
from rasterio.crs import CRS

from fcnseg.errors import InputError
from fcnseg.inference import areas
from fcnseg.inference.areas import HEADER, AreaTable, count_pixels
from fcnseg.inference.georeference import Georeference
from fcnseg.labels import IGNORE_INDEX, STREET11, LabelSpace

TWO = LabelSpace("two", ("water", "land, dry"), ((0, 0, 200), (0, 200, 0)))


def random_mask(height: int = 30, width: int = 41) -> np.ndarray:
    mask = np.random.default_rng(0).integers(0, STREET11.num_classes, (height, width)).astype(np.uint8)
    mask[3:5, 2:9] = IGNORE_INDEX
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_counts_are_those_of_each_class_and_windows_add_up(dtype, monkeypatch):
    mask = random_mask().astype(dtype)
    expected = [int((mask == index).sum()) for index in range(11)]
    assert count_pixels(mask, STREET11).tolist() == expected
    windows = [mask[:7], mask[7:, :20], mask[7:, 20:]]
    assert sum(count_pixels(window, STREET11) for window in windows).tolist() == expected
    monkeypatch.setattr(areas, "AT_ONCE", 100)  # so that blocks of two rows are counted
    assert count_pixels(mask, STREET11).tolist() == expected


@pytest.mark.parametrize("value", [11, 254, -1, 256])
def test_a_value_that_is_no_class_is_refused(value):
    with pytest.raises(InputError, match=f"mask value {value} "):
        count_pixels(np.full((2, 2), value, np.int64), STREET11)


def test_the_table_has_a_row_for_every_image_and_class(tmp_path):
    path = tmp_path / "made" / "areas.csv"
    with AreaTable(path, TWO) as table:
        table.add('odd, "name".png', np.array([1, 3]), 0.25)
        table.add("nothing.png", np.array([0, 0]))
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(HEADER),
        ['odd, "name".png', "0", "water", "1", "0.25", "0.25"],
        ['odd, "name".png', "1", "land, dry", "3", "0.75", "0.75"],
        ["nothing.png", "0", "water", "0", "", ""],
        ["nothing.png", "1", "land, dry", "0", "", ""],
    ]
    assert [p.name for p in path.parent.iterdir()] == ["areas.csv"]


def _stopped(table: AreaTable) -> None:
    with table:
        table.add("a.png", np.array([1, 3]))
        # What a process leaves that is killed here, without a chance to close its files.
        assert table.unfinished.read_text().splitlines()[1] == "a.png,0,water,1,0.25,"
        raise KeyboardInterrupt


def test_a_job_that_stops_leaves_its_rows_and_the_earlier_table(tmp_path):
    path = tmp_path / "areas.csv"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        _stopped(AreaTable(path, TWO))
    assert path.read_text() == "earlier"
    assert len((tmp_path / "areas.csv.part").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        ("EPSG:32633", Affine(10, 0, 5e5, 0, -10, 5e6), 100),
        ("EPSG:32633", Affine(2, 1, 5e5, 0, -3, 5e6), 6),
        ("EPSG:2263", Affine(1, 0, 0, 0, -1, 0), 0.3048006096012192**2),  # US survey feet: 1200/3937 m
        ("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 50), None),  # degrees measure no area
        (None, Affine(10, 0, 0, 0, -10, 0), None),
    ],
)
def test_the_area_of_a_pixel_is_in_square_metres(crs: str | None, transform: Affine, area: float | None):
    found = Georeference(transform, CRS.from_user_input(crs) if crs else None).pixel_area
    assert found == (None if area is None else pytest.approx(area, rel=1e-9))


def test_rows_are_added_within_the_block_alone(tmp_path: Path):
    with pytest.raises(ValueError, match="with block"):
        AreaTable(tmp_path / "areas.csv", TWO).add("a.png", np.array([1, 3]))
