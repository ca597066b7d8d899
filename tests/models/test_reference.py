"""Whole networks against a plain transcription of Berkeley's, and that against scores from another program."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Size, Tensor, nn

from fcnseg.models import FCN, create_model, list_models
from tests.models.reference import NETWORKS
from tests.models.test_fcn import convolutions, score_layers, seeded

ORACLE = Path(__file__).parents[2].parent / "shared" / "oracle"

PUBLISHED = {
    "fcn32s_vgg16": "voc-fcn32s",
    "fcn16s_vgg16": "voc-fcn16s",
    "fcn8s_vgg16": "voc-fcn8s",
    "fcn8s_vgg16_atonce": "voc-fcn8s-atonce",
    "fcn32s_caffenet": "voc-fcn-alexnet",
}
"""The published network of each model."""


class Seeded(Mapping):
    """The oracle's weights, made when a layer asks for them and forgotten after: all at once take 540 MB."""

    def __init__(self, shapes: dict[str, Size]) -> None:
        self.shapes = shapes

    def __getitem__(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        return seeded(name, self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@pytest.mark.parametrize("name", ["fcn32s_vgg16", "fcn32s_caffenet"])
def test_transcription_gives_the_oracles_scores(name: str) -> None:
    """OpenCV's Caffe importer computed them from the published prototxt files."""
    path = ORACLE / f"{PUBLISHED[name]}-97x131.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    expected = np.load(path)["score"]
    x = (np.random.default_rng(7).standard_normal((1, 3, *expected.shape[2:])) * 50).astype("float32")
    with torch.device("meta"):
        shapes = {layer: c.weight.shape for layer, c in convolutions(create_model(name, num_classes=21))}
    with torch.inference_mode():
        score = NETWORKS[PUBLISHED[name]](torch.from_numpy(x), Seeded(shapes)).numpy()
    assert score.shape == expected.shape
    assert np.abs(score - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(32, 48), (33, 61), (97, 130), (1, 1)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("name", PUBLISHED)
def test_model_gives_the_transcriptions_scores(name: str, size: tuple[int, int]) -> None:
    """With the weights of a narrow model, and with a say for each of its score layers."""
    if name not in list_models():
        pytest.skip(f"no model is called {name}")
    network = NETWORKS[PUBLISHED[name]]
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 50
    with torch.inference_mode():
        model = balanced(narrow(name), network, images)
        expected, scores = network(images, weights(model)), model(images)
        assert scores.shape == expected.shape == (2, 21, *size)
        assert (scores - expected).abs().max() < 1e-5 * expected.abs().max()
        for layer in score_layers(model):
            without = network(images, weights(model) | {layer: silent(*weights(model)[layer])})
            assert (without - expected).abs().max() > 0.1 * expected.abs().max()


def narrow(name: str) -> FCN:
    """A tenth of the channels, random weights and biases everywhere."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=21, padding="caffe", width=0.1).eval()
    for layer, convolution in convolutions(model):
        nn.init.normal_(convolution.bias)
        if layer.startswith("score_"):
            nn.init.normal_(convolution.weight)
    return model


def balanced(model: FCN, network: Callable[..., Tensor], images: Tensor) -> FCN:
    """The model with score layers scaled such that each adds up to 1 to the network's scores, as its input varies.

    Otherwise a crop of a skip that comes in at a ten thousandth could be wrong without being seen.
    """
    quiet = weights(model) | {layer: silent(*weights(model)[layer]) for layer in score_layers(model)}
    silence = network(images, quiet)
    for layer, convolution in score_layers(model).items():
        alone = network(images, quiet | {layer: (convolution.weight, quiet[layer][1])})
        convolution.weight /= (alone - silence).abs().max()
    return model


def silent(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The same layer, blind: only its bias is left."""
    return torch.zeros_like(weight), bias


def weights(model: FCN) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (layer.weight, layer.bias) for name, layer in convolutions(model)}
