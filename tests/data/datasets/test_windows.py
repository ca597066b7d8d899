"""Windows of rasters against slices of the same arrays, and scores of tiles against those of the whole."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcnseg.data import Concat, PairedFolder, Remapped, SegmentationData, Subset, Windows
from fcnseg.data.dataset import drawn
from fcnseg.data.datasets.windows import _spans
from fcnseg.data.files.rasters import has_windows
from fcnseg.data.transforms import Pipeline, Turn, window_pipeline
from fcnseg.errors import InputError
from fcnseg.evaluation.confusion import confusion_matrices
from fcnseg.labels import LabelSpace
from tests.data.refusals import complaint

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SPACE = LabelSpace("land", ("water", "field", "house"), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
HEIGHT, WIDTH = 150, 230


def write(path: Path, bands: np.ndarray, **options: object) -> None:
    """A tiled BigTIFF of (C, H, W) values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "BIGTIFF": "YES"}
    with rasterio.open(
        path, "w", "GTiff", height=height, width=width, count=count, dtype=bands.dtype, **layout, **options
    ) as file:
        file.write(bands)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 5) uint16 and (H, W) labels, of which 9 pixels of 34,500 are houses."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 60000, (HEIGHT, WIDTH, 5)).astype(np.uint16)
    mask = rng.integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    mask[20:23, 200:203] = 2
    mask[:4, :4] = 255
    write(tmp_path / "images" / "a.tif", image.transpose(2, 0, 1))
    write(tmp_path / "labels" / "a.tif", mask[None])
    return image, mask


def folder(root: Path, **reading: object) -> PairedFolder:
    return PairedFolder(root / "images", root / "labels", SPACE, **{"channels": 5, **reading})


# Tiles


@given(st.integers(0, 50), st.integers(1, 3000), st.integers(1, 400), st.data())
def test_tiles_cover_an_axis_and_each_pixel_belongs_to_one(first: int, length: int, side: int, data) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    spans = _spans(first, first + length, side, overlap)
    owners = Counter(pixel for _, own in spans for pixel in range(*own))
    assert owners == Counter(range(first, first + length))
    for (start, end), (own_start, own_end) in spans:
        assert first <= start <= own_start < own_end <= end <= first + length
        assert end - start == min(side, length)
    assert all(a[1] - b[0] >= overlap for (a, _), (b, _) in pairwise(spans))


@pytest.mark.parametrize("overlap", [0, 24])
def test_scores_of_all_tiles_are_those_of_the_whole(scene, tmp_path: Path, overlap: int) -> None:
    """Of predictions that depend on the pixel alone."""
    image, mask = scene
    tiles = Windows(folder(tmp_path), (64, 80), overlap=overlap)
    assert len(tiles) == (9 if overlap == 0 else 4 * 4)

    def matrices(pictures, masks):
        predictions = [torch.from_numpy((picture[..., 0] % 3).astype(np.int64)) for picture in pictures]
        return confusion_matrices(predictions, [torch.from_numpy(each.astype(np.int64)) for each in masks], 3)

    samples = [tiles[i] for i in range(len(tiles))]
    assert all(picture.shape == (64, 80, 5) and labels.shape == (64, 80) for picture, labels, _ in samples)
    found = matrices([s[0] for s in samples], [s[1] for s in samples]).sum(0)
    assert torch.equal(found, matrices([image], [mask])[0])
    assert found.sum() == mask.size - 16
    for index, (_, labels, _) in enumerate(samples):
        assert np.array_equal(tiles.mask(index), labels)


def test_a_window_is_a_slice_of_the_file(scene, tmp_path: Path) -> None:
    image, mask = scene
    windows = Windows(folder(tmp_path), (64, 80))
    for index in range(len(windows)):
        for count in range(5):
            picture, labels, name = windows.draw(index, (7, 0, count, 1))
            top, left = map(int, name.removeprefix("a@").split(","))
            place = slice(top, top + 64), slice(left, left + 80)
            assert picture.dtype == np.uint16
            assert np.array_equal(picture, image[place])
            assert np.array_equal(labels, mask[place])


def test_of_a_file_beyond_any_memory_only_windows_are_read(tmp_path: Path) -> None:
    """A sparse BigTIFF of 200,000 x 200,000 pixels of 5 bands, 400 GB if it were read."""
    for name, bands, dtype in (("images", 5, "uint16"), ("labels", 1, "uint8")):
        (tmp_path / name).mkdir()
        options = {"height": 200_000, "width": 200_000, "count": bands, "dtype": dtype, "nodata": None}
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "BIGTIFF": "YES", "SPARSE_OK": True}
        with rasterio.open(tmp_path / name / "a.tif", "w", "GTiff", **options, **layout) as file:
            file.write(np.ones((bands, 8, 8), dtype), window=((150_000, 150_008), (99_000, 99_008)))
    windows = Windows(folder(tmp_path), (1000, 2000), below=0.5)
    assert len(windows) == 100 * 100
    picture, labels, name = windows[50 * 100 + 49]
    assert name == "a@150000,98000"
    assert (picture[:8, 1000:1008] == 1).all()
    assert picture.sum() == 5 * 64
    assert labels.sum() == 64
    assert complaint(lambda: folder(tmp_path)[0]).startswith(f"{tmp_path / 'images' / 'a.tif'}: cannot be read")


# What is drawn


def test_draws_depend_on_index_and_seed_alone_and_reach_everywhere(scene, tmp_path: Path) -> None:
    windows = Windows(folder(tmp_path), (32, 40), above=0.8)
    again = Windows(folder(tmp_path), (32, 40), above=0.8)
    seen = np.zeros((HEIGHT, WIDTH), int)
    places = set()
    for index in range(len(windows)):
        for count in range(12):
            *_, name = windows.draw(index, (0, 0, count, 1))
            assert again.draw(index, (0, 0, count, 1))[2] == name
            top, left = map(int, name.removeprefix("a@").split(","))
            seen[top : top + 32, left : left + 40] += 1
            places.add(name)
    assert len(places) > 10 * len(windows)
    assert (seen[:120] > 0).all(), "the upper 0.8 of 150 rows"
    assert (seen[120:] == 0).all(), "the rest is for validation"
    below = Windows(folder(tmp_path), (32, 40), below=0.8)
    assert {tile.rows for tile in below.tiles} == {(120, 150)}, "whose tiles are as high as what is left"


@pytest.mark.parametrize(("by_class", "least", "most"), [(1.0, 0.25, 0.5), (0.0, 0, 0.1)])
def test_rare_classes_are_seen_where_windows_are_drawn_by_class(
    scene, tmp_path: Path, by_class: float, least: float, most: float
) -> None:
    """Each of three classes for a third of the windows; by area alone a window in fifty shows a house."""
    windows = Windows(folder(tmp_path), (24, 24), by_class=by_class)
    shown = [2 in windows.draw(i % len(windows), (0, 0, i, 1))[1] for i in range(200)]
    assert least <= np.mean(shown) <= most
    if by_class:
        assert windows.class_pixels is not None
        assert windows.class_pixels.sum(0).tolist() == np.bincount(scene[1].ravel())[:3].tolist()


def test_batches_are_the_same_whenever_training_goes_on(scene, tmp_path: Path) -> None:
    def data() -> SegmentationData:
        windows = Windows(folder(tmp_path), (32, 40), by_class=0.5)
        train = {"a": Subset(Remapped(windows, SPACE), 1.0), "b": Concat([windows])}
        options = {"ratio": {"a": 2, "b": 1}, "batch_size": 3, "augment": window_pipeline(), "num_workers": 0}
        return SegmentationData(train, windows, size=None, steps_per_epoch=5, **options)

    whole = list(data().train_dataloader())
    interrupted = data().train_dataloader()
    interrupted.batch_sampler.done = lambda: 3
    rest = [next(batches) for batches in [iter(interrupted)] for _ in range(2)]
    for batch, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(batch["image"], expected["image"])
        assert torch.equal(batch["mask"], expected["mask"])
        assert batch["image"].shape == (3, 5, 32, 40)
    assert len({batch["image"][0].numpy().tobytes() for batch in whole}) == 5


def test_a_wrapper_draws_what_its_dataset_does(scene, tmp_path: Path) -> None:
    windows = Windows(folder(tmp_path), (32, 40))
    other = LabelSpace("other", ("house", "water"), ((1, 0, 0), (0, 0, 1)))
    picture, labels, _ = windows.draw(3, (1, 2))
    wrapped = drawn(Subset(Remapped(windows, other), 0.5, 0.1), 0, (1, 2))
    place = Subset(windows, 0.5, 0.1).place(0)
    assert wrapped[2] == windows.draw(place, (1, 2))[2]
    found = Remapped(windows, other).draw(3, (1, 2))
    assert np.array_equal(found[0], picture)
    assert np.array_equal(found[1], np.array([1, 255, 0] + [255] * 253, np.uint8)[labels])


# Small and incomplete images


def test_what_lies_beyond_an_image_counts_nowhere(tmp_path: Path) -> None:
    for dtype in ("uint8", "float32"):
        write(tmp_path / dtype / "images" / "a.tif", np.ones((1, 20, 30), dtype))
        write(tmp_path / dtype / "labels" / "a.tif", np.ones((1, 20, 30), np.uint8))
        windows = Windows(folder(tmp_path / dtype, channels=1), (32, 24), overlap=8)
        for picture, labels, _ in (windows[0], windows.draw(0, (1,))):
            assert (labels == 255)[20:].all()
            assert (np.isnan(picture[20:]) if dtype == "float32" else picture[20:] == 0).all()
            assert (picture[:20] == 1).all()
        assert sum((windows[i][1] == 1).sum() for i in range(len(windows))) == 600


def test_no_data_is_ignored_in_windows_too(scene, tmp_path: Path) -> None:
    image, mask = scene
    image[50:70] = 0
    write(tmp_path / "images" / "a.tif", image.transpose(2, 0, 1), nodata=0)
    windows = Windows(folder(tmp_path), (64, 80))
    samples = [windows[i] for i in range(len(windows))]
    counted = sum(int((labels != 255).sum()) for _, labels, _ in samples)
    assert counted == mask.size - 16 - 20 * WIDTH
    assert all(picture.dtype == np.float32 for picture, _, _ in samples)
    assert np.array_equal(windows.mask(0), samples[0][1])


# Refusals


def test_what_cannot_be_read_by_windows_is_named(scene, tmp_path: Path) -> None:
    pairs = folder(tmp_path)
    for options, message in (
        ({"size": (64,)}, "window=[64]: expected [height, width] in pixels"),
        ({"size": (64, 0)}, "window=[64, 0]: expected [height, width] in pixels"),
        ({"overlap": 64}, "overlap=64: expected pixels from 0 to below the window's 64"),
        ({"by_class": 2}, "by_class=2: expected a share from 0 to 1"),
        ({"above": 0.2, "below": 0.5}, "above=0.2, below=0.5: expected shares of the height, below under above"),
    ):
        assert complaint(lambda options=options: Windows(pairs, **{"size": (64, 64), **options})) == message
    file = tmp_path / "labels" / "a.tif"
    write(file, np.zeros((1, 9, 9), np.uint8))
    assert (
        complaint(lambda: Windows(pairs, (8, 8))) == f"{file}: label is 9x9, its image 230x150; expected the same size"
    )
    Image.new("L", (230, 150)).save(tmp_path / "labels" / "a.bmp")
    file.unlink()
    assert "a.bmp: cannot be read by windows; expected a TIFF" in complaint(lambda: Windows(folder(tmp_path), (8, 8)))
    elsewhere = "<VRTDataset rasterXSize='230' rasterYSize='150'><VRTRasterBand dataType='Byte' band='1'/></VRTDataset>"
    (tmp_path / "labels" / "a.bmp").rename(tmp_path / "labels" / "a.tif")
    (tmp_path / "labels" / "a.tif").write_text(elsewhere)  # with another file or address in it, which GDAL would open
    assert not has_windows(tmp_path / "labels" / "a.tif")
    assert "a.tif: cannot be read by windows" in complaint(lambda: Windows(folder(tmp_path), (8, 8)))
    (tmp_path / "images" / "a.tif").write_bytes((tmp_path / "images" / "a.tif").read_bytes()[:50])
    assert "a.tif: cannot be read as an image" in complaint(lambda: Windows(folder(tmp_path), (8, 8)))


def test_windows_that_are_drawn_anew_are_not_cached(scene, tmp_path: Path) -> None:
    windows = Remapped(Windows(folder(tmp_path), (32, 40)), SPACE)
    with pytest.raises(InputError, match="cache=ram: windows are drawn anew each time; expected cache=none"):
        SegmentationData({"a": windows}, windows, size=None, augment=window_pipeline(), cache="ram")


def test_turns_are_the_symmetries_of_the_square() -> None:
    square = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    found = {tuple(Pipeline([Turn()])(square, square[..., 0].astype(np.uint8), seed)[0].ravel()) for seed in range(100)}
    assert found == {tuple(np.rot90(side, k).ravel()) for k in range(4) for side in (square, square.transpose(1, 0, 2))}
    oblong = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for seed in range(20):
        picture, mask = Pipeline([Turn()])(np.dstack([oblong] * 6), oblong, seed)
        assert picture.shape == (2, 3, 6)
        assert np.array_equal(picture[..., 0], mask)
