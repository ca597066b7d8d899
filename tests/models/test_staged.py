"""A finer network that takes over a coarser one's weights: at first it is the coarser one, upsampled in steps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnseg.models import FCN, create_model, load_weights

FINEST = ("fcn2s_vgg16", (2, 2, 2, 2, 2), 34)
"""Beyond the reference; the crop is half of that of upscore4, 33, and what the kernel of 4 adds."""


def coarse_and_fine(fine: str, padding: str) -> tuple[FCN, FCN]:
    """An FCN-32s with random scores, and a new finer network that has its weights."""
    torch.manual_seed(0)
    coarse, finer = (
        create_model(name, num_classes=3, padding=padding, width=0.05).eval() for name in ("fcn32s_vgg16", fine)
    )
    torch.nn.init.normal_(coarse.score_fr.weight)
    torch.nn.init.normal_(coarse.score_fr.bias)
    missing = finer.load_state_dict(coarse.state_dict(), strict=False).missing_keys
    assert {key.split(".")[0] for key in missing} <= {f"score_pool{i}" for i in (1, 2, 3, 4)}
    return coarse, finer


def scores_of(model: FCN, images: Tensor) -> Tensor:
    """What score_fr gives, before any upsampling."""
    kept = []
    hook = model.score_fr.register_forward_hook(lambda module, arguments, output: kept.append(output))
    model(images)
    hook.remove()
    return kept[0]


def stretched(scores: Tensor, factor: int) -> Tensor:
    """Bilinear, with zeros beyond the edges: every sample becomes a tent of 2 factor pixels, by hand."""
    distance = (np.arange(2 * factor) - (factor - 0.5)) / factor
    tent = np.maximum(1 - np.abs(distance), 0)
    n, c, height, width = scores.shape
    out = np.zeros((n, c, factor * (height + 1), factor * (width + 1)))
    for y, x in np.ndindex(height, width):
        window = (..., slice(factor * y, factor * (y + 2)), slice(factor * x, factor * (x + 2)))
        out[window] += scores[..., y, x].numpy()[..., None, None] * np.outer(tent, tent)
    return torch.from_numpy(out).float()


@pytest.mark.parametrize("size", [(32, 64), (45, 70)])
@pytest.mark.parametrize(
    ("fine", "steps", "crop"), [("fcn16s_vgg16", (2, 16), 27), ("fcn8s_vgg16", (2, 2, 8), 31), FINEST]
)
@torch.inference_mode()
def test_with_the_references_padding(fine: str, steps: tuple[int, ...], crop: int, size: tuple[int, int]) -> None:
    """The last crop is that of the reference's net.py."""
    coarse, finer = coarse_and_fine(fine, "caffe")
    images = torch.randn(1, 3, *size)
    expected = scores_of(coarse, images)
    for factor in steps:
        expected = stretched(expected, factor)
    expected = expected[..., crop : crop + size[0], crop : crop + size[1]]
    assert expected.std() > 0.01
    torch.testing.assert_close(finer(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 64), (33, 61)])
@pytest.mark.parametrize(("fine", "steps"), [("fcn16s_vgg16", (2, 16)), ("fcn8s_vgg16", (2, 2, 8)), FINEST[:2]])
@torch.inference_mode()
def test_with_the_least_padding(fine: str, steps: tuple[int, ...], size: tuple[int, int]) -> None:
    """Each step is torch's own bilinear interpolation, cut where the finer grid ends."""
    coarse, finer = coarse_and_fine(fine, "same")
    images = torch.randn(1, 3, *size)
    expected = scores_of(coarse, images)
    stride = 32
    for factor in steps:
        stride //= factor
        height, width = (-(-side // stride) for side in size)
        expected = F.interpolate(expected, scale_factor=factor, mode="bilinear")[..., :height, :width]
    assert expected.std() > 0.01
    torch.testing.assert_close(finer(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("coarser", "finer", "new"),
    [
        ("fcn8s_vgg16_bn", "fcn4s_vgg16_bn", "score_pool2"),
        ("fcn4s_vgg16_bn", "fcn2s_vgg16_bn", "score_pool1"),
        ("fcn8s_alexnet", "fcn4s_alexnet", "score_relu1"),
        ("fcn4s_resnet18", "fcn2s_resnet18", "score_stride2"),
    ],
)
def test_a_new_skip_is_all_that_a_coarser_network_lacks(coarser: str, finer: str, new: str) -> None:
    models = [create_model(name, num_classes=3, width=1.0 if "resnet" in name else 0.05) for name in (coarser, finer)]
    report = load_weights(models[1], models[0].state_dict(), verbose=False)
    assert [entry.partition(" ")[0] for entry in report.missing] == [f"{new}.weight", f"{new}.bias"]
    assert (report.adapted, report.dropped) == ((), ())
    assert not models[1].get_parameter(f"{new}.weight").any()
