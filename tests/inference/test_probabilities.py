"""Files of probabilities and of their entropy, read back."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from fcnseg.errors import InputError
from fcnseg.inference import Segmentation
from fcnseg.inference.probabilities import save_bands, save_entropy, save_probabilities
from fcnseg.labels import STREET11


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


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 0.5 / 255), ("float32", 0)])
@pytest.mark.filterwarnings("error")
def test_bands_are_the_classes_where_the_image_lies(dtype, largest, tmp_path):
    probabilities = random_probabilities()
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6), "count": 3}
    save_bands(probabilities, STREET11, tmp_path / "p.tif", profile, dtype)
    with rasterio.open(tmp_path / "p.tif") as raster:
        assert raster.descriptions == STREET11.classes
        assert raster.crs.to_epsg() == 32633
        assert raster.transform == profile["transform"]
        assert set(raster.dtypes) == {dtype}
        found = raster.read() * np.array(raster.scales)[:, None, None]
    assert np.abs(found - probabilities).max() <= largest + 1e-7
    assert [p.name for p in tmp_path.iterdir()] == ["p.tif"]


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
    with pytest.raises(InputError, match="dtype=int8"):
        save_bands(probabilities, STREET11, tmp_path / "p.tif", {}, "int8")
    assert not list(tmp_path.iterdir())
