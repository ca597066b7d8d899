"""Images by windows: the masks of the whole image, on the same ground, in little memory, stopped and gone on with."""

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from fcnseg.data import CityScenes
from fcnseg.errors import InputError
from fcnseg.inference import Averaging, Predictor, mosaic, scene_files, shrunk
from fcnseg.inference.mosaic import Windows
from fcnseg.inference.scale import Scale
from fcnseg.inference.scene import Scene
from fcnseg.labels import STREET11
from fcnseg.models import FCN, create_model

GROUND = {"crs": "EPSG:32633", "transform": from_origin(500000, 4649000, 0.5, 0.5)}


def scored(name: str = "fcn8s_vgg16_bn", **options) -> FCN:
    torch.manual_seed(0)
    options = {"width": 0.05} | options
    model = create_model(name, num_classes=5, **options).eval()
    for key, module in model.named_children():
        if key.startswith("score"):
            torch.nn.init.normal_(module.weight)
    return model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(scored(), device="cpu", scale="native")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Scenes side by side: (430, 333, 3)."""
    scenes = CityScenes(2, seed=3, look="real", size=(215, 333))
    return np.concatenate([scenes[0][0], scenes[1][0]])


def raster(path: Path, pixels: np.ndarray, **profile) -> Path:
    profile = {"driver": "GTiff", "count": pixels.shape[2], "dtype": pixels.dtype, **profile}
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as target:
        target.write(np.moveaxis(pixels, 2, 0))
    return path


def test_a_geotiff_stays_on_its_ground(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    scene = raster(tmp_path / "scene.tif", pixels, **GROUND)
    told: list[float] = []
    written = predictor.segment_file(
        scene, tmp_path / "mask.tif", overlay=tmp_path / "overlay.png", probabilities=tmp_path / "p.tif",
        entropy=tmp_path / "e.tif", advance=told.append,
    )  # fmt: skip
    whole = predictor(pixels, probabilities=True)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.crs, mask.transform, mask.nodata) == (GROUND["crs"], GROUND["transform"], 255)
        assert mask.compression.name == "deflate"
        np.testing.assert_array_equal(mask.read(1), whole.mask)
        assert mask.colormap(1)[2][:3] == predictor.label_space.palette[2]
    with rasterio.open(tmp_path / "p.tif") as shares:
        assert shares.descriptions == predictor.label_space.classes
        np.testing.assert_allclose(shares.read() * shares.scales[0], whole.probabilities, atol=0.5 / 255 + 1e-6)
    with rasterio.open(tmp_path / "e.tif") as surface:
        np.testing.assert_allclose(surface.read(1) * surface.scales[0], whole.entropy, atol=0.5 / 255 + 1e-5)
    np.testing.assert_array_equal(written.counts, np.bincount(whole.mask.ravel(), minlength=5))
    assert written.method == "row by row"
    assert sum(told) == pytest.approx(1)
    assert Image.open(tmp_path / "overlay.png").width == 333
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "e.tif",
        "mask.tif",
        "overlay.png",
        "p.tif",
        "scene.tif",
    ]


@pytest.mark.parametrize("target", [(43, 111), (60, 80), (430, 90), (500, 50)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_are_shrunk_strip_by_strip(
    pixels: np.ndarray, target: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch averages areas, wherever strips end; a direction that grows is interpolated."""
    monkeypatch.setattr(shrunk, "STRIP_BYTES", 4 * 333 * 3 * 50)
    image, told = pixels.astype(dtype), []
    found = shrunk.shrunk(lambda a, b: image[a:b], image.shape[:2], target, told.append)
    assert found.dtype == dtype
    assert sum(told) == 430
    values = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1))[None]
    values = areas(values, (430, target[1])) if target[1] < 333 else values
    grown = torch.nn.functional.interpolate(values, (target[0], target[1]), mode="bilinear")
    expected = areas(values, target) if target[0] < 430 else grown
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), atol=0.51 if dtype != "float32" else 2e-3)


def areas(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Means over equal areas, whose borders lie within pixels: of every pixel as many copies as there are areas."""
    height, width = values.shape[-2:]
    copies = values.repeat_interleave(size[0], dim=2).reshape(*values.shape[:2], size[0], height, width).mean(3)
    copies = copies.repeat_interleave(size[1], dim=3)
    return copies.reshape(*copies.shape[:3], size[1], width).mean(4)


@pytest.mark.parametrize("flip", [False, True])
def test_large_pictures_are_seen_at_the_size_of_the_training(pixels: np.ndarray, tmp_path: Path, flip: bool) -> None:
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    averaging = Averaging(flip, temperature=1.5)
    predictor = Predictor(scored(input_size=(60, 80)), device="cpu", averaging=averaging)
    written = predictor.segment_file(
        tmp_path / "picture.png", tmp_path / "mask.png", entropy=tmp_path / "e.tif", scale=Scale()
    )
    whole = predictor(pixels, probabilities=True)
    assert written.method == "at the size of the training's images"
    with Image.open(tmp_path / "mask.png") as mask:
        assert (np.asarray(mask) == whole.mask).mean() > 0.999
    with rasterio.open(tmp_path / "e.tif") as surface:
        assert np.abs(surface.read(1) / 255 - whole.entropy).max() < 0.02


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_pictures_give_index_pngs(predictor: Predictor, pixels: np.ndarray, tmp_path: Path, suffix: str) -> None:
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"photo.{suffix}", **options)
    predictor.segment_file(tmp_path / f"photo.{suffix}", tmp_path / "mask.png")
    mask = Image.open(tmp_path / "mask.png")
    assert mask.mode == "P"
    assert mask.getpalette()[:3] == list(predictor.label_space.palette[0])
    found, whole = np.asarray(mask), predictor(tmp_path / f"photo.{suffix}").mask
    # GDAL's libjpeg and Pillow's may decode a level apart.
    assert (found == whole).mean() > (0.97 if suffix == "jpg" else 0.99999)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", f"photo.{suffix}"]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_pictures_of_other_kinds_are_seen_as_by_the_predictor(
    predictor: Predictor, pixels: np.ndarray, tmp_path: Path, mode: str
) -> None:
    Image.fromarray(pixels).convert(mode).save(tmp_path / "photo.png")
    predictor.segment_file(tmp_path / "photo.png", tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), predictor(tmp_path / "photo.png").mask)


def test_turned_pictures_are_set_upright(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    predictor.segment_file(tmp_path / "photo.png", tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").size == (430, 333)


@pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(2, 3), Fraction(3, 2)])
def test_factors_give_what_the_whole_image_gives(pixels: np.ndarray, tmp_path: Path, factor: Fraction) -> None:
    """Row by row and in one piece: to 1e-4 in probabilities."""
    predictor = Predictor(scored(), device="cpu", scale=str(factor))
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    predictor.segment_file(tmp_path / "photo.png", tmp_path / "mask.png")
    whole = predictor(pixels)
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == whole.mask).mean() > 0.9999


def test_the_ground_sampling_distance_is_a_factor(pixels: np.ndarray, tmp_path: Path) -> None:
    predictor = Predictor(scored(), device="cpu", scale="native")
    scene = raster(tmp_path / "scene.tif", pixels, **GROUND)
    predictor.segment_file(scene, tmp_path / "mask.tif", gsd=1.0)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        found = mask.read(1)
    assert (found == Predictor(scored(), device="cpu", scale=0.5)(pixels).mask).mean() > 0.9999
    with pytest.raises(InputError, match="gsd=1 needs an image that lies on the ground"):
        predictor.segment_file(_png(tmp_path, pixels), tmp_path / "mask.png", gsd=1.0)


def _png(folder: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_without_data_there_is_no_class(tmp_path: Path, kind: str) -> None:
    model = scored("fcn32s_alexnet", in_channels=4, image_type=kind, mean=[500] * 4, std=[300] * 4)
    values = np.random.default_rng(0).integers(1, 1000, size=(90, 70, 4)).astype(kind)
    values[20:40, :30] = 0
    scene = raster(tmp_path / "scene.tif", values, nodata=0, **GROUND)
    Predictor(model, device="cpu", scale="native").segment_file(scene, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as mask:
        found = mask.read(1)
    np.testing.assert_array_equal(found == 255, (values == 0).all(axis=2))
    # What is seen there is the mean, 0 once normalised.
    values[20:40, :30] = 500
    Predictor(model, device="cpu", scale="native").segment_file(
        raster(tmp_path / "mean.tif", values, **GROUND), tmp_path / "other.tif"
    )
    with rasterio.open(tmp_path / "other.tif") as mask:
        np.testing.assert_array_equal(mask.read(1)[found != 255], found[found != 255])
    whole = Predictor(model, device="cpu", scale="native")
    np.testing.assert_array_equal(whole(scene).mask, whole(tmp_path / "mean.tif").mask)


@pytest.mark.parametrize(
    ("name", "after"),
    [(name, after) for name in ("fcn8s_vgg16_bn", "fcn8s_resnet18") for after in (1, 2, 3)] + [("fcn8s_vgg16_bn", 12)],
)
def test_a_killed_job_goes_on(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, name: str
) -> None:
    """Wherever it was stopped, with no row computed twice but those since it last wrote down what it had."""
    monkeypatch.setattr(mosaic, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(mosaic, "PROCESS", 10**6)
    by_tiles = "resnet" in name
    model = scored(name, width=1.0 if by_tiles else 0.05)
    predictor = Predictor(model, device="cpu", scale="native")
    scene = raster(tmp_path / "scene.tif", np.concatenate([pixels] * 4), **GROUND)
    weights = sum(p.nbytes for p in predictor.model.parameters())
    windows = Windows(memory=weights + (400 if by_tiles else 25) * 10**6, tile=768 if by_tiles else None)
    told: list[float] = []

    class KilledError(Exception):
        pass

    def stop(share: float) -> None:
        told.append(share)
        if len(told) > after:
            raise KilledError

    with pytest.raises(KilledError):
        predictor.segment_file(scene, tmp_path / "mask.tif", windows=windows, advance=stop)
    assert not (tmp_path / "mask.tif").exists()
    before, last = sum(told), told[-1]
    told.clear()
    predictor.segment_file(scene, tmp_path / "mask.tif", windows=windows, advance=told.append)
    kept = told[0] if told[0] < 0.9 else sum(told[:2])
    assert kept == pytest.approx(before - last)
    assert sum(told) == pytest.approx(1)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        found = mask.read(1)
    np.testing.assert_array_equal(found, predictor(np.concatenate([pixels] * 4)).mask)
    assert not list(tmp_path.glob(".*"))


def test_mistakes_leave_nothing_behind(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    """Neither an image that is damaged in its midst, nor memory that does not suffice."""
    scene = raster(
        tmp_path / "scene.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate", **GROUND
    )
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2] + b"?" * 2000 + whole[len(whole) // 2 + 2000 :])
    with pytest.raises(InputError, match=r"scene.tif: cannot be read as an image"):
        predictor.segment_file(scene, tmp_path / "mask.tif")
    scene.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"scene.tif"):
        predictor.segment_file(scene, tmp_path / "mask.tif")
    four = np.concatenate([pixels, pixels[..., :1]], axis=2)
    four = raster(tmp_path / "four.tif", four, photometric="minisblack", alpha="unspecified", **GROUND)
    with pytest.raises(InputError, match=r"4 channels? of uint8; expected 3"):
        predictor.segment_file(four, tmp_path / "mask.tif")
    with pytest.raises(InputError, match=r"has uint16 values, the model was trained on uint8"):
        predictor.segment_file(raster(tmp_path / "deep.tif", pixels.astype(np.uint16), **GROUND), tmp_path / "mask.tif")
    assert not list(tmp_path.glob("*mask*")) + list(tmp_path.glob(".*"))


def test_more_memory_goes_on_where_less_was_stopped(
    predictor: Predictor, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaic, "SAVE_EVERY", 0.0)
    scene = raster(tmp_path / "scene.tif", np.concatenate([pixels] * 2), **GROUND)

    def stop(share: float) -> None:
        if share and (tmp_path / ".mask.tif.partial" / "state.pt").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.segment_file(scene, tmp_path / "mask.tif", advance=stop)
    told: list[float] = []
    predictor.segment_file(scene, tmp_path / "mask.tif", advance=told.append, windows=Windows(memory=3 * 10**9))
    assert told[0] > 0


class Blank(Scene):
    """White, made as it is read."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        return np.full((stop - start, self.size[1], 3), 255, np.uint8)


def test_an_overlay_keeps_nothing_of_what_it_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_files, "OVERLAY_SIDE", 100)
    monkeypatch.setattr(scene_files, "ROWS", 100)
    mask = np.zeros((2000, 3000), np.uint8)
    tracemalloc.start()
    try:
        scene_files.write_overlay(mask, STREET11, Blank(tmp_path, mask.shape), tmp_path / "o.png", 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Image.open(tmp_path / "o.png").width == 100
    assert peak < 3 * mask.size / 6, "a strip of 90 rows, and the picture"
