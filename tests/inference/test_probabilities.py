"""Files of probabilities and of their entropy, read back."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from fcnseg.errors import InputError
from fcnseg.inference import Segmentation
from fcnseg.inference.probabilities import save_entropy, save_probabilities
from fcnseg.inference.results import Results, Wanted
from fcnseg.labels import STREET11
from fcnseg.models import ModelSpec


def random_probabilities(height: int = 20, width: int = 31) -> np.ndarray:
    values = np.exp(3 * np.random.default_rng(0).normal(size=(11, height, width))).astype(np.float32)
    probabilities = values / values.sum(axis=0)
    probabilities[:, 0, 0] = np.arange(11) == 3  # certain
    probabilities[:, 0, 1] = 1 / 11  # undecided
    return probabilities


def test_probabilities_read_back(tmp_path):
    probabilities = random_probabilities()
    save_probabilities(probabilities, STREET11, tmp_path / "made" / "p.npz")
    with np.load(tmp_path / "made" / "p.npz") as file:
        assert tuple(file["classes"]) == STREET11.classes
        assert file["probabilities"].dtype == np.float16
        np.testing.assert_allclose(file["probabilities"], probabilities, rtol=5e-4, atol=6e-8)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_entropy_is_that_of_a_segmentation(bits, dtype, tmp_path):
    probabilities = random_probabilities()
    picture = np.zeros((20, 31, 3), np.uint8)
    segmentation = Segmentation(picture, picture[..., 0], STREET11, probabilities)
    save_entropy(segmentation.entropy, tmp_path / "entropy.png", bits)
    with Image.open(tmp_path / "entropy.png") as picture:
        found = np.asarray(picture).astype(dtype)
    p = probabilities.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.nansum(p * np.log(p), axis=0) / np.log(11)
    assert np.abs(found / (2.0**bits - 1) - expected).max() <= 0.5 / (2**bits - 1) + 1e-6
    assert found[0, 0] == 0
    assert found[0, 1] == 2**bits - 1


@pytest.mark.filterwarnings("error::UserWarning")
def test_bands_are_the_classes_where_the_image_lies(tmp_path):
    """Of a GeoTIFF that was segmented as a whole."""
    probabilities = random_probabilities()
    ground = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    kind = {"driver": "GTiff", "height": 20, "width": 31, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "scene.tif", "w", **kind, **ground) as raster:
        raster.write(np.zeros((3, 20, 31), np.uint8))
    picture = np.zeros((20, 31, 3), np.uint8)
    found = Segmentation(picture, picture[..., 0], STREET11, probabilities, tmp_path / "scene.tif")
    with Results(tmp_path / "out", Wanted(probabilities=True, entropy=True), STREET11) as results:
        results.write(found, Path("scene"), ModelSpec("fcn32s_alexnet", 11))
    expected = {"probabilities": (STREET11.classes, probabilities), "entropy": (("entropy",), found.entropy[None])}
    for kind, (names, values) in expected.items():
        with rasterio.open(tmp_path / "out" / kind / "scene.tif") as raster:
            assert raster.descriptions == names
            assert raster.crs.to_epsg() == 32633
            assert raster.transform == ground["transform"]
            assert set(raster.dtypes) == {"uint8"}
            assert np.abs(raster.read() * np.array(raster.scales)[:, None, None] - values).max() <= 0.5 / 255 + 1e-6
        assert [p.name for p in (tmp_path / "out" / kind).iterdir()] == ["scene.tif"]


def test_what_does_not_fit_is_refused(tmp_path):
    probabilities = random_probabilities()
    with pytest.raises(InputError, match=r"11 classes of 'street11'; got shape \(3, 20, 31\)"):
        save_probabilities(probabilities[:3], STREET11, tmp_path / "p.npz")
    with pytest.raises(InputError, match=r"p\.png: probabilities are saved as \.npz"):
        save_probabilities(probabilities, STREET11, tmp_path / "p.png")
    with pytest.raises(InputError, match=r"p\.jpg: entropy is saved as \.png"):
        save_entropy(probabilities[0], tmp_path / "p.jpg")
    with pytest.raises(InputError, match="bits=12"):
        save_entropy(probabilities[0], tmp_path / "p.png", 12)
    assert not list(tmp_path.iterdir())
