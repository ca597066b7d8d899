"""Many images at once: the masks of each alone, in order, and no more read than is needed."""

from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from fcnseg.data import CityScenes
from fcnseg.errors import InputError
from fcnseg.inference import Averaging, Predictor, predictor
from fcnseg.models import create_model

SIZES = [(40, 60), (40, 60), (40, 60), (33, 50), (40, 60), (33, 50), (33, 50)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("fcn8s_alexnet", num_classes=5, width=0.1)
    for name in ("score_fr", "score_pool1", "score_pool2"):
        torch.nn.init.normal_(model.get_submodule(name).weight)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [CityScenes(1, seed, "real", size)[0][0] for seed, size in enumerate(SIZES)]


def test_masks_are_those_of_each_alone_in_order(model, images) -> None:
    alone = Predictor(model, device="cpu")
    masks = [alone(image).mask for image in images]
    for many in (alone(images), list(alone(iter(images))), list(alone.stream(images))):
        for found, mask, image in zip(many, masks, images, strict=True):
            assert (found.mask == mask).mean() > 0.999  # roundings of a batch may turn the odd pixel
            np.testing.assert_array_equal(found.image, image)
    for found, mask in zip(alone(np.stack(images[:3])), masks, strict=False):
        assert (found.mask == mask).mean() > 0.999


def test_equal_sizes_go_together(model, images, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Predictor(model, device="cpu")
    batches = []
    logits = network.model.logits
    monkeypatch.setattr(network.model, "logits", lambda batch: batches.append(len(batch)) or logits(batch))
    list(network.stream(images))
    assert batches == [3, 1, 1, 2]
    batches.clear()
    monkeypatch.setitem(predictor.BATCH_PIXELS, "cpu", 2 * 40 * 60)
    list(network.stream(images))
    assert batches == [2, 1, 1, 1, 2]


def test_streams_may_be_endless(model, images) -> None:
    drawn = []

    def camera():
        for number in count():
            drawn.append(number)
            yield images[0]

    assert len(list(islice(Predictor(model, device="cpu").stream(camera()), 5))) == 5
    assert len(drawn) < 2000


def test_a_folder_is_streamed_with_its_subfolders(model, images, tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(images[0]).save(tmp_path / name)
    found = list(Predictor(model, device="cpu").stream(tmp_path))
    assert [each.source for each in found] == [tmp_path / "a/1.png", tmp_path / "b/2.png"]


def test_the_others_go_on_where_somebody_is_told(model, images) -> None:
    network = Predictor(model, device="cpu")
    mixed = [images[0], Path("gone.png"), images[1]]
    with pytest.raises(InputError, match=r"gone.png: no such file"):
        list(network.stream(mixed))
    told = []
    assert len(list(network.stream(mixed, failed=lambda image, error: told.append((image, str(error)))))) == 2
    assert told == [(Path("gone.png"), "gone.png: no such file")]


def test_probabilities_and_their_entropy(model, images) -> None:
    found = Predictor(model, device="cpu")(images[0], probabilities=True)
    assert found.probabilities.shape == (5, 40, 60)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.mask)
    np.testing.assert_allclose(found.entropy, scipy.stats.entropy(found.probabilities, base=5), atol=1e-5)
    assert Predictor(model, device="cpu")(images[0]).entropy is None


def probabilities(model, image: np.ndarray, **options) -> np.ndarray:
    found = Predictor(model, device="cpu", averaging=Averaging(**options))(image, probabilities=True)
    return found.probabilities


def test_flips_and_scales_are_means_of_probabilities(model, images) -> None:
    image = images[0]
    plain, mirrored = probabilities(model, image), probabilities(model, image[:, ::-1])[..., ::-1]
    np.testing.assert_allclose(probabilities(model, image, flip=True), (plain + mirrored) / 2, atol=1e-5)
    with torch.inference_mode():
        x = torch.from_numpy(image.transpose(2, 0, 1))[None]
        small = torch.nn.functional.interpolate(x.float(), size=(20, 30), mode="bilinear", antialias=True)
        large = torch.nn.functional.interpolate(model.logits(small), size=(40, 60), mode="bilinear")
        expected = (model.logits(x).softmax(1) + large.softmax(1)) / 2
    np.testing.assert_allclose(probabilities(model, image, scales=(1.0, 0.5)), expected[0], atol=1e-5)


def test_temperature_divides_logits(model, images) -> None:
    with torch.inference_mode():
        logits = model.logits(torch.from_numpy(images[0].transpose(2, 0, 1))[None])
    np.testing.assert_allclose(
        probabilities(model, images[0], temperature=2.5), (logits / 2.5).softmax(1)[0], rtol=1e-4, atol=1e-6
    )


def test_dropout_is_drawn_and_the_same_again(model, images) -> None:
    plain = probabilities(model, images[0])
    some = [probabilities(model, images[0], dropout=draws) for draws in (4, 4, 200)]
    np.testing.assert_array_equal(some[0], some[1])
    assert np.abs(some[0] - plain).max() > 1e-3
    assert np.abs(some[2] - plain).mean() < np.abs(some[0] - plain).mean()


@pytest.mark.parametrize("size", [(200, 311), (40, 60), (17, 23)])
def test_large_masks_are_made_in_bands(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    logits = torch.randn(1, 6, 40, 60, generator=torch.Generator().manual_seed(0))
    expected = predictor.mask_of(logits, size)
    monkeypatch.setattr(predictor, "BAND_BYTES", 4 * 6 * size[1] * 7)
    assert (predictor.mask_of(logits, size) == expected).mean() > 0.9999


@pytest.mark.parametrize(
    ("scale", "seen"),
    [("native", (41, 61)), ("training", (20, 30)), (0.5, (21, 31)), ("2/3", (28, 42)), (2, (82, 122))],
)
def test_the_network_sees_the_scale_that_is_asked_for(scale, seen, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("fcn32s_alexnet", num_classes=3, width=0.05, input_size=(20, 30))
    network, sizes = Predictor(model, device="cpu", scale=scale), []
    logits = network.model.logits
    monkeypatch.setattr(network.model, "logits", lambda x: sizes.append(tuple(x.shape[-2:])) or logits(x))
    assert network(np.zeros((41, 61, 3), np.uint8)).mask.shape == (41, 61)
    assert sizes == [seen]
