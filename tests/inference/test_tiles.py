"""Tiles against the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnseg.errors import InputError
from fcnseg.inference.scale import parse_scale
from fcnseg.inference.tiles import Rescaled, Tiles
from fcnseg.models import FCN, create_model


def scored(name: str, padding: str = "same") -> FCN:
    torch.manual_seed(0)
    options = {} if "resnet" in name else {"width": 0.05}
    model = create_model(name, num_classes=4, padding=padding, **options).double().eval()
    for key, module in model.named_children():
        if key.startswith("score"):
            torch.nn.init.normal_(module.weight)
    return model


MODELS = {
    (name, padding): scored(name, padding)
    for name, padding in [
        ("fcn8s_vgg16", "same"),
        ("fcn16s_alexnet", "caffe"),
        ("fcn32s_alexnet", "same"),
        ("fcn8s_resnet18", "same"),
        ("fcn2s_vgg16", "caffe"),
        ("fcn4s_alexnet", "same"),
    ]
}


def drawn(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(*size, 3)).astype(np.uint8)


def whole(network, image: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return network.logits(torch.from_numpy(image.transpose(2, 0, 1))[None])


def assembled(tiles: Tiles, image: np.ndarray) -> torch.Tensor:
    """All parts in their places; each pixel is given once."""
    logits = torch.full((1, 4, *tiles.size), torch.nan, dtype=torch.float64)
    for top, left, part in tiles.parts(lambda start, stop: image[start:stop]):
        place = logits[..., top : top + part.shape[-2], left : left + part.shape[-1]]
        assert place.isnan().all()
        place.copy_(part)
    return logits


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.tuples(st.integers(1, 900), st.integers(1, 90)),
    st.integers(0, 100),
    st.integers(1, 3),
    st.booleans(),
)
def test_exact_tiles_are_the_whole(key, size, more, batch, turned) -> None:
    model = MODELS[key]
    size = size[::-1] if turned else size
    tiling = model.tiling()
    tile = tiling["before"] + tiling["after"] + 2 * tiling["step"] + more + 32
    image = drawn(size)
    torch.testing.assert_close(
        assembled(Tiles(model, size, tile, batch=batch), image), whole(model, image), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("factor", ["0.5", "2/3", "2"])
def test_rescaled_networks_are_exact_in_tiles_too(factor: str) -> None:
    model = Rescaled(MODELS["fcn16s_alexnet", "caffe"], parse_scale(factor))
    tiling, size = model.tiling(), (61, 1903)
    image = drawn(size)
    tiles = Tiles(model, size, tiling["before"] + tiling["after"] + 2 * tiling["step"] + 70)
    assert len(tiles.axes()[1]) > 1
    torch.testing.assert_close(assembled(tiles, image), whole(model, image), rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 60))
def test_blending_keeps_what_all_tiles_agree_on(height: int, width: int, overlap: int) -> None:
    """A network that sees one pixel: its tiles agree, and their weighted mean is the whole."""

    class Pixelwise:
        spec, device = MODELS["fcn32s_alexnet", "same"].spec, torch.device("cpu")

        def tiling(self) -> None:
            return None

        def logits(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images, images[:, :1] * 2], dim=1).float()

    image = drawn((height, width))
    found = assembled(Tiles(Pixelwise(), (height, width), 192, overlap), image)
    torch.testing.assert_close(found, whole(Pixelwise(), image).double(), rtol=1e-5, atol=1e-5)


def test_more_overlap_is_nearer_to_the_whole() -> None:
    model, size = MODELS["fcn8s_vgg16", "same"], (96, 1100)
    image = drawn(size)
    expected = whole(model, image)
    errors = [
        float((assembled(Tiles(model, size, 512, overlap), image) - expected).abs().mean()) for overlap in (0, 64, 250)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[2]


def test_what_cannot_be_tiled_is_refused() -> None:
    with pytest.raises(InputError, match=r"tile=256: expected at least 576 pixels"):
        Tiles(MODELS["fcn8s_vgg16", "same"], (2000, 2000), 256)
    with pytest.raises(InputError, match=r"fcn8s_efficientnet_b0: averages over the whole image.*overlap=N"):
        Tiles(create_model("fcn8s_efficientnet_b0", num_classes=2), (2000, 2000), 256)
