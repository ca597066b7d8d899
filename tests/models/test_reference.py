"""Whole networks, and a plain transcription of Berkeley's, against the scores that another program gives them.

OpenCV's Caffe importer computed those in oracle/ from prototxt files with the published crops, kernels and scales
(scripts/reference_oracle.py --write); the weights are made again here, each from its layer's name. Where it has not
been, at other sizes and for several images at once, the transcription stands in for it.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_networks import CLASSES, MODELS, SIZES, WIDTH, Net, seeded_image, seeded_network

from fcnseg.models import FCN, create_model, load_caffe_weights
from tests.models.reference import NETWORKS, Weights

ORACLE = Path(__file__).parent / "oracle"
FULL = Path(__file__).parents[2].parent / "shared" / "oracle" / "voc-fcn-alexnet-97x131.npz"

every_network = pytest.mark.parametrize("network", NETWORKS)
every_size = pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)


@every_size
@every_network
def test_transcription_gives_the_oracles_scores(network: str, size: tuple[int, int]) -> None:
    assert_scores(transcribed(network, seeded_image(*size), weights(network)), oracle(network, size))


@every_size
@every_network
def test_model_gives_the_oracles_scores(network: str, size: tuple[int, int]) -> None:
    assert_scores(scores(model(network), seeded_image(*size)), oracle(network, size))


@every_network
def test_every_score_layer_has_a_say_in_the_oracles_scores(network: str) -> None:
    """A tenth of the largest or more: what is wrong with a skip can be seen in them."""
    layers = [layer for layer in weights(network) if layer.startswith("score_")]
    assert len(layers) == {"16s": 2, "8s": 3, "8s-atonce": 3}.get(network, 1)
    size = SIZES[0]
    expected = oracle(network, size)
    for layer in layers:
        weight, bias = weights(network)[layer]
        silent = {layer: (torch.zeros_like(weight), bias)}
        without = transcribed(network, seeded_image(*size), weights(network) | silent)
        assert np.abs(without - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(32, 48), (33, 61), (97, 130)], ids="{0[0]}x{0[1]}".format)
@every_network
def test_model_gives_the_transcriptions_scores(network: str, size: tuple[int, int]) -> None:
    images = (torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 50).numpy()
    assert_scores(scores(model(network), images), transcribed(network, images, weights(network)))


def test_model_at_full_width_gives_the_oracles_scores() -> None:
    """OpenCV's too, but from files that no script of this repository has written."""
    if not FULL.is_file():
        pytest.skip(f"{FULL} is not here")
    expected = np.load(FULL)["score"]
    model = with_weights("alexnet", seeded_network("alexnet"))
    assert_scores(scores(model, seeded_image(*expected.shape[2:])), expected)


def oracle(network: str, size: tuple[int, int]) -> np.ndarray:
    """(1, classes, H, W) scores of `seeded_image(H, W)`, as OpenCV has them."""
    expected = np.load(ORACLE / f"{network}.npz")["{}x{}".format(*size)]
    assert expected.shape == (1, CLASSES, *size)
    return expected


@cache
def narrow(network: str) -> Net:
    return seeded_network(network, CLASSES, WIDTH)


@cache
def weights(network: str) -> Weights:
    """The convolutions' of a narrow network."""
    pairs = {layer: tuple(map(torch.from_numpy, blobs)) for layer, blobs in narrow(network).blobs.items()}
    return {layer: pair for layer, pair in pairs.items() if len(pair) == 2}


@cache
def model(network: str) -> FCN:
    return with_weights(network, narrow(network))


def with_weights(network: str, net: Net) -> FCN:
    """The library's model of a network with all of its weights."""
    model = create_model(MODELS[network], num_classes=net.classes, padding="caffe", width=net.width).eval()
    report = load_caffe_weights(model, net.blobs, prepare=False, verbose=False)
    assert (report.adapted, report.dropped, report.missing) == ((), (), ())
    return model


def scores(model: FCN, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def transcribed(network: str, images: np.ndarray, weights: Weights) -> np.ndarray:
    with torch.inference_mode():
        return NETWORKS[network](torch.from_numpy(images), weights).numpy()


def assert_scores(scores: np.ndarray, expected: np.ndarray) -> None:
    """The same to a hundred thousandth of the largest."""
    assert scores.shape == expected.shape
    assert np.abs(scores - expected).max() < 1e-5 * np.abs(expected).max()
