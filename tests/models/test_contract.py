"""What every listed model keeps to, in both paddings where it has them; a new one joins by being listed.

Of FCN-4s and 2s those over some trunks stand for all, see `tests.models.listed`.

Our own trunks are narrow here, timm's as published. The strides of a backbone are built for images of 3, 5 and 1
channels in turn; what takes longer is checked on the finest stride, which has all the skips.
"""

import copy
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fcnseg.models import FCN, create_model, from_pretrained, load_checkpoint
from fcnseg.models.backbones import BACKBONES
from fcnseg.models.names import SKIPS, parse_name
from fcnseg.models.spec import PADDINGS
from tests.models.listed import models_to_test
from tests.models.stored import checkpoint

CLASSES = 4
CHANNELS = dict(zip(sorted(SKIPS), (3, 5, 1) * len(SKIPS), strict=False))
"""Of the images, by the model's stride."""

SIZES = [(1, 1), (1, 7), (31, 33), (32, 32), (64, 65), (97, 16)]
"""Height and width of images: odd, even, of one pixel, below and beyond the stride."""

LARGE = 20_000_000
"""Parameters, in 80 MB: larger networks are built at their finest stride alone, and stay in memory."""


def is_chain(name: str) -> bool:
    """Whether the model is over one of our own trunks, which take a width and two paddings."""
    return parse_name(name).backbone in BACKBONES


def is_finest(name: str) -> bool:
    """Whether no other listed model of this backbone and variant has finer scores."""
    this, listed = parse_name(name), map(parse_name, models_to_test())
    return this.stride == min(n.stride for n in listed if (n.backbone, n.variant) == (this.backbone, this.variant))


@cache
def is_large(backbone: str) -> bool:
    """Whether the FCN-32s over one of timm's networks is; ours are narrow here."""
    with torch.device("meta"):
        model = create_model(f"fcn32s_{backbone}", num_classes=CLASSES)
    return sum(values.numel() for values in model.parameters()) > LARGE


def parameters(names: list[str]) -> list:
    paddings = {name: PADDINGS if is_chain(name) else ("same",) for name in names}
    return [pytest.param((name, padding), id=f"{name}-{padding}") for name in names for padding in paddings[name]]


# pytest gathers the tests of one model by its place in these lists, which is the same in both.
FINEST = [name for name in models_to_test() if is_finest(name)]
OTHERS = [name for name in models_to_test() if not is_finest(name)]
every_model = pytest.mark.parametrize("new", parameters(FINEST + OTHERS), indirect=True, scope="module")
every_backbone = pytest.mark.parametrize("new", parameters(FINEST), indirect=True, scope="module")


@pytest.fixture(scope="module")
def new(request: pytest.FixtureRequest) -> FCN:
    """A model as it is built, once for all of its tests, which leave it as it is."""
    name, padding = request.param
    if name in OTHERS and not is_chain(name) and is_large(parse_name(name).backbone):
        pytest.skip("large, and checked at its finest stride")
    torch.manual_seed(0)
    channels, width = CHANNELS[parse_name(name).stride], 0.05 if is_chain(name) else 1.0
    return create_model(name, num_classes=CLASSES, in_channels=channels, padding=padding, width=width).eval()


@pytest.fixture(scope="module")
def model(new: FCN) -> FCN:
    """The same with weights that are nowhere all zero or one, so that each of them matters and a lost one shows."""
    model = copy.deepcopy(new)
    torch.manual_seed(1)
    for name, values in model.state_dict().items():
        if name.startswith("score_"):
            nn.init.normal_(values)
        elif name.endswith(("bias", "running_mean")):
            nn.init.normal_(values, std=0.1)
        elif values.is_floating_point() and values.ndim == 1:  # of norms, and scales of residual branches
            nn.init.uniform_(values, 0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def expected(model: FCN) -> Tensor:
    """Its logits of `images(model)`."""
    return logits(model)


def images(model: FCN, height: int = 31, width: int = 33) -> Tensor:
    """Two; of a wide spread for our trunks, as when only the mean was taken off, lest the biases drown them."""
    random = torch.Generator().manual_seed(height + width)
    spread = 10 if is_chain(model.spec.name) else 1
    return spread * torch.randn(2, model.spec.in_channels, height, width, generator=random)


@torch.inference_mode()
def logits(model: FCN) -> Tensor:
    return model(images(model))


def largest(values: Tensor) -> float:
    return float(values.abs().max())


@every_model
class TestForward:
    def test_a_new_model_is_indifferent(self, new: FCN) -> None:
        """Score layers start at zero, and so do the logits."""
        with torch.inference_mode():
            assert not new(images(new)[:1]).any()

    def test_logits_have_the_images_size_whatever_it_is(self, model: FCN) -> None:
        for size in SIZES:
            with torch.inference_mode():
                found = model(images(model, *size)[:1])
            assert found.shape == (1, CLASSES, *size)
            assert found.isfinite().all()
            assert found.std() > 0

    def test_an_image_has_its_logits_whatever_else_is_in_its_batch(self, model: FCN, expected: Tensor) -> None:
        """Up to rounding, which is small beside what two images differ by."""
        difference = largest(expected[0] - expected[1])
        with torch.inference_mode():
            alone = model(images(model)[1:])
        assert largest(alone - expected[1:]) < min(0.1 * difference, 1e-5 * largest(expected))


@every_model
class TestBackward:
    def test_every_weight_and_every_channel_has_a_gradient(self, model: FCN) -> None:
        """In evaluation, where no normalisation by the batch takes off what a bias adds before it."""
        image = images(model)[:1].requires_grad_()
        weights = dict(model.named_parameters())
        *gradients, seen = torch.autograd.grad(model(image).square().sum(), [*weights.values(), image])
        for name, gradient in zip(weights, gradients, strict=True):
            assert gradient.isfinite().all(), name
            assert gradient.any(), name
        assert seen.isfinite().all()
        assert (seen.abs().amax((0, 2, 3)) > 0).all()


@every_model
class TestNames:
    """Of the tensors; by them weights are found in files, ours and other programs'."""

    def test_of_the_head_are_the_papers(self, model: FCN) -> None:
        names = {name for name in model.state_dict() if not name.startswith("backbone.")}
        skips = SKIPS[parse_name(model.spec.name).stride]
        taps = list(reversed(model.backbone.taps))[1 : 1 + skips]
        layers = ["fc6", "fc7", "score_fr", *(f"score_{tap}" for tap in taps)]
        assert names == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}

    def test_of_a_trunk_are_the_literatures(self, model: FCN) -> None:
        """conv1_1, bn1_1, conv1_2, ... or conv1, conv2, ...: blocks, and layers in each, are counted from 1.

        timm's networks keep their own names.
        """
        found = [name.split(".")[1] for name in model.state_dict() if name.startswith("backbone.")]
        if not is_chain(model.spec.name):
            assert set(found) == {"body"}
            return
        layers = list(dict.fromkeys(found))
        convolutions = [layer.removeprefix("conv") for layer in layers if not layer.startswith("bn")]
        assert {layer.removeprefix("bn") for layer in layers if layer.startswith("bn")} <= set(convolutions)
        blocks: dict[str, list[str]] = {}
        for place in convolutions:
            block, _, number = place.partition("_")
            blocks.setdefault(block, []).append(number or "1")
        assert list(blocks) == [str(i) for i in range(1, len(blocks) + 1)]
        for numbers in blocks.values():
            assert numbers == [str(i) for i in range(1, len(numbers) + 1)]


def through_a_folder(model: FCN, new: FCN, folder: Path) -> FCN:
    model.save_pretrained(folder)
    return from_pretrained(folder)


def through_a_checkpoint(model: FCN, new: FCN, folder: Path) -> FCN:
    torch.save(checkpoint(model), folder / "last.ckpt")
    return load_checkpoint(folder / "last.ckpt")


def through_its_state_dict(model: FCN, new: FCN, folder: Path) -> FCN:
    again = copy.deepcopy(new)
    again.load_state_dict(model.state_dict())
    return again


def through_pickle(model: FCN, new: FCN, folder: Path) -> FCN:
    return pickle.loads(pickle.dumps(model))


@every_backbone
class TestCopies:
    @pytest.mark.parametrize("copied", [through_a_folder, through_a_checkpoint, through_its_state_dict, through_pickle])
    def test_are_equal_to_the_bit(
        self, new: FCN, model: FCN, expected: Tensor, copied: Callable[..., FCN], tmp_path: Path
    ) -> None:
        """In their spec, the names of their tensors, and their logits; loading builds the network anew."""
        large = not is_chain(model.spec.name) and is_large(parse_name(model.spec.name).backbone)
        if large and copied is not through_its_state_dict:
            pytest.skip("large")
        again = copied(model, new, tmp_path)
        assert again.spec == model.spec
        assert list(again.state_dict()) == list(model.state_dict())
        assert torch.equal(logits(again), expected)

    def test_share_nothing_with_their_original(self, model: FCN, expected: Tensor) -> None:
        copied = copy.deepcopy(model)
        assert torch.equal(logits(copied), expected)
        places = [{values.data_ptr() for values in (*m.parameters(), *m.buffers())} for m in (copied, model)]
        assert not places[0] & places[1]


@every_backbone
class TestModes:
    def test_the_same_images_give_the_same_logits(self, model: FCN, expected: Tensor) -> None:
        assert torch.equal(logits(model), expected)

    def test_channels_last_changes_nothing(self, model: FCN, expected: Tensor) -> None:
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = last(images(model).to(memory_format=torch.channels_last))
        assert largest(found - expected) < 1e-5 * largest(expected)

    def test_bfloat16_gives_nearly_the_same_logits(self, model: FCN, expected: Tensor) -> None:
        """It has three digits, of which a hundred layers leave one."""
        with torch.inference_mode():
            found = copy.deepcopy(model).to(torch.bfloat16)(images(model).to(torch.bfloat16))
        assert found.dtype == torch.float32, "scores are upsampled in float32"
        assert largest(found - expected) < 0.25 * expected.std()

    def test_the_gradient_is_the_slope_of_the_logits(self, model: FCN) -> None:
        """Through every path: in some direction of the image, beside a difference in double precision."""
        double = copy.deepcopy(model).double()
        image, direction = images(model, 9, 9).double().split(1)
        image.requires_grad_()
        here = double(image).square().sum()
        (gradient,) = torch.autograd.grad(here, image)
        with torch.inference_mode():
            there = double(image + 1e-7 * direction).square().sum()
        assert float((gradient * direction).sum()) == pytest.approx(float(there - here.detach()) / 1e-7, rel=1e-3)

    def test_training_has_finite_gradients(self, model: FCN) -> None:
        """With dropout, and normalisation by the batch."""
        training = copy.deepcopy(model).train()
        training(images(model)).square().mean().backward()
        assert all(values.grad is not None and values.grad.isfinite().all() for values in training.parameters())
