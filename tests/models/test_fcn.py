"""The networks against the reference (the numbers in Caffe's files), and against what alignment means for an image."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fcnseg.errors import InputError
from fcnseg.geometry import IMAGE, Grid, Layer, path_size
from fcnseg.models import FCN, create_model
from fcnseg.models.backbones import BACKBONES
from fcnseg.models.names import parse_name
from fcnseg.models.spec import PADDINGS
from fcnseg.models.tracing import trace_network
from fcnseg.models.upsampling import bilinear_kernel, upsampled
from tests.models.listed import models_to_test

CHAINS = [name for name in models_to_test() if parse_name(name).backbone in BACKBONES]
EVERY_MODEL = [(name, padding) for name in CHAINS for padding in PADDINGS]
EVERY_ALIGNMENT = [(name, padding) for name, padding in EVERY_MODEL if "_bn" not in name and "atonce" not in name]


def stem(name: str) -> int:
    """How many times further the first layers of a model stride."""
    return {"stem2": 2, "stem4": 4}.get(parse_name(name).variant, 1)


def small(name: str, padding: str, **values) -> FCN:
    return create_model(name, padding=padding, **({"num_classes": 3, "width": 0.05} | values)).eval()


def score_layers(model: FCN) -> dict[str, nn.Conv2d]:
    return {name: layer for name, layer in model.named_children() if name.startswith("score_")}


def give_scores(model: FCN) -> FCN:
    """Random score layers, whose zeros would hide everything behind them."""
    torch.manual_seed(3)
    for layer in score_layers(model).values():
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return model


@cache
def with_scores(name: str, padding: str) -> FCN:
    """One model for all the examples of a test."""
    return give_scores(small(name, padding))


class TestReference:
    """Berkeley's Caffe networks: the numbers in their prototxt files. test_reference.py compares their scores."""

    @pytest.mark.parametrize(
        ("name", "crops"),
        [
            ("fcn32s_vgg16", [19]),
            ("fcn16s_vgg16", [5, 27]),
            ("fcn8s_vgg16", [5, 9, 31]),
            ("fcn32s_caffenet", [18]),
            # Below, not the reference's: by the same algebra, each skip a stride finer.
            ("fcn4s_vgg16", [5, 9, 17, 33]),
            ("fcn2s_vgg16", [5, 9, 17, 33, 34]),
        ],
    )
    def test_crops(self, name: str, crops: list[int]) -> None:
        assert [fusion.crop for fusion in small(name, "caffe").fusions] == crops

    @pytest.mark.parametrize(
        ("name", "kernels"),
        [
            ("fcn32s_vgg16", [(64, 32)]),
            ("fcn16s_vgg16", [(4, 2), (32, 16)]),
            ("fcn8s_vgg16", [(4, 2), (4, 2), (16, 8)]),
            ("fcn32s_caffenet", [(63, 32)]),
        ],
    )
    def test_upsampling_kernels_and_strides(self, name: str, kernels: list[tuple[int, int]]) -> None:
        assert [(f.layer.kernel, f.layer.stride) for f in small(name, "caffe").fusions] == kernels


def convolutions(model: FCN) -> Iterator[tuple[str, nn.Conv2d]]:
    for chain in (model.backbone, model):
        yield from ((name, layer) for name, layer in chain.named_children() if isinstance(layer, nn.Conv2d))


class TestSizes:
    """Logits have the image's size, whatever it is; `test_contract.py` has some sizes for every model."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 80), st.integers(1, 80))
    def test_of_any_image_with_same_padding(self, height: int, width: int) -> None:
        for name in ("fcn8s_vgg16", "fcn2s_vgg16", "fcn4s_alexnet", "fcn16s_alexnet"):
            self.assert_size(with_scores(name, "same"), (height, width))

    @settings(max_examples=15, deadline=None)
    @given(st.integers(1, 80), st.integers(1, 80))
    def test_of_any_image_with_caffe_padding(self, height: int, width: int) -> None:
        for name in ("fcn4s_alexnet", "fcn16s_vgg16", "fcn2s_vgg16"):
            self.assert_size(with_scores(name, "caffe"), (height, width))

    @pytest.mark.parametrize(("name", "padding"), [pair for pair in EVERY_MODEL if pair[1] == "caffe"])
    def test_crops_of_caffe_padding_lie_inside_what_they_crop(self, name: str, padding: str) -> None:
        """Nothing is filled in: each crop ends where there are pixels, as Caffe demands."""
        model = small(name, padding)
        paths = {tap: place.path for tap, place in trace_network(model.backbone, 3).outputs.items()}
        for size in range(1, 400):
            n = Layer("fc6", model.backbone.fc6_kernel).output_size(path_size(paths[model.backbone.taps[-1]], size))
            for fusion in model.fusions:
                n = fusion.layer.output_size(n)
                if fusion.tap:
                    assert fusion.crop + n <= path_size(paths[fusion.tap], size)
            assert model.fusions[-1].crop + size <= n

    @staticmethod
    def assert_size(model: FCN, size: tuple[int, int]) -> None:
        with torch.inference_mode():
            logits = model(torch.ones(2, 3, *size))
        assert logits.shape == (2, 3, *size)
        assert logits.isfinite().all()
        assert logits.std() > 0


def averaging(model: FCN) -> FCN:
    """The network with averages for maxima, equal positive weights and no biases: linear on positive images."""
    for chain in (model.backbone, model):
        for name, layer in chain.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(chain, name, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode))
            elif isinstance(layer, nn.LocalResponseNorm):
                setattr(chain, name, nn.Identity())
            elif isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
                nn.init.zeros_(layer.bias)
    return model.double()


def mirror_symmetric(model: FCN) -> FCN:
    """The network with every kernel averaged with its mirror image."""
    with torch.no_grad():
        for _, layer in convolutions(model):
            layer.weight += layer.weight.flip(-1)
            layer.weight += layer.weight.flip(-2)
    return model.double()


class TestAlignment:
    """Logits lie over the pixels that they speak of, in every model and both paddings."""

    @pytest.mark.parametrize("axis", [-1, -2], ids=["columns", "rows"])
    @pytest.mark.parametrize(("name", "padding"), EVERY_ALIGNMENT)
    def test_an_averaging_network_gives_each_pixel_its_own_place(self, name: str, padding: str, axis: int) -> None:
        """The centroid of where a logit looks is its own pixel.

        The network is linear here, so its response to an image of positions over its response to an image
        of ones is the mean position, weighted by the gradient. Bilinear interpolation is exact on such ramps:
        a skip or a crop that is off by d pixels moves the centroid by its share of d, at every pixel.
        """
        model = averaging(small(name, padding, in_channels=1))
        image = torch.ones(1, 1, 40, 640 * stem(name), dtype=torch.float64)
        position = torch.arange(640.0 * stem(name), dtype=torch.float64).expand_as(image)
        if axis == -2:
            image, position = image.mT, position.mT
        with torch.inference_mode():
            centroid = model(position) / model(image)
        away_from_borders = slice(256 * stem(name), 384 * stem(name))  # beyond half of fc6's field of 404 and a stride
        error = (centroid - position).movedim(axis, -1)[..., away_from_borders]
        assert error.abs().max() < 1e-6

    def test_the_gradient_itself_is_centred(self) -> None:
        """The same for one period of the coarsest grid with autograd, in two dimensions, skips and all."""
        model = averaging(small("fcn8s_vgg16", "same", in_channels=1))
        image = torch.ones(1, 1, 512, 512, dtype=torch.float64, requires_grad=True)
        logits = model(image).sum(1)[0]
        errors = []
        for pixel in range(240, 272, 4):
            (gradient,) = torch.autograd.grad(logits[pixel, pixel + 3], image, retain_graph=True)
            weights = gradient[0, 0] / gradient.sum()
            positions = torch.arange(512, dtype=torch.float64)
            errors += [weights.sum(1) @ positions - pixel, weights.sum(0) @ positions - (pixel + 3)]
        assert torch.stack(errors).abs().max() < 1e-6

    @pytest.mark.parametrize("name", [name for name, padding in EVERY_ALIGNMENT if padding == "same"])
    def test_a_mirrored_image_gives_mirrored_logits(self, name: str) -> None:
        """With mirror-symmetric kernels; the poolings stay as they are and the borders count.

        Sizes are those that the taps cover evenly: whole blocks for VGG, one pixel less for odd kernels, and for
        AlexNet 2 x 15 pixels more than whole strides, as fc7's first sample lies on pixel 15.
        """
        model = mirror_symmetric(give_scores(small(name, "same")))
        first, stride = model.grids()["fc7"].origin, model.grids()["fc7"].stride
        sizes = [int(2 * first + 1 + steps * stride) for steps in (1, 2)]
        images = torch.randn(1, 3, *sizes, generator=torch.Generator().manual_seed(0)).double()
        with torch.inference_mode():
            logits = model(images)
            assert (logits - logits.flip(-1)).abs().max() > 1e-3 * logits.std()  # no mirror image of itself
            for axes in [(-1,), (-2,), (-1, -2)]:
                torch.testing.assert_close(model(images.flip(axes)).flip(axes), logits)

    @pytest.mark.parametrize(("name", "padding"), EVERY_ALIGNMENT)
    def test_an_image_moved_by_a_stride_gives_moved_logits(self, name: str, padding: str) -> None:
        """With random weights; the margin is the field that reaches beyond the image."""
        model = give_scores(small(name, padding)).double()
        step = 32 * stem(name)
        images = torch.randn(1, 3, 32, 20 * step, generator=torch.Generator().manual_seed(0)).double()
        with torch.inference_mode():
            logits, moved = model(images), model(images.roll(step, -1))
        inner = slice(9 * step + step // 2, 10 * step + step // 2)
        expected = logits[..., inner.start - step : inner.stop - step]
        assert expected.std() > 0
        torch.testing.assert_close(moved[..., inner], expected)


class TestEverySize:
    """With "same" padding, for every model and every size from 1 to 300, each tap sample has the weight it should.

    That is the weight of a linear interpolation between the places of the samples, which other tests compare with
    gradients; beyond the outermost samples, less than a stride from the ends, those are repeated.
    """

    @pytest.mark.parametrize("name", models_to_test())
    def test_weights(self, name: str) -> None:
        with torch.device("meta"):
            model = create_model(name, num_classes=2).eval()
        taps = {tap: place.path for tap, place in trace_network(model.backbone, 3).outputs.items()}
        for size in range(1, 301):
            padded = model.covered_size((size, size))[0]
            grid, samples = model.grids()["fc7"], path_size(model.paths[0], padded)
            for fusion in model.fusions:
                fine = model.grids()[fusion.tap] if fusion.tap else IMAGE
                pixels = path_size(taps[fusion.tap], padded) if fusion.tap else size
                self.assert_linear(fusion.layer, grid, samples, fine, pixels)
                grid, samples = fine, pixels

    @staticmethod
    def assert_linear(layer: Layer, coarse: Grid, samples: int, fine: Grid, pixels: int) -> None:
        key = (layer.kernel, layer.stride, layer.padding, samples, pixels, fine.map(coarse.origin))
        weights, expected = interpolation_weights(*key)
        assert np.abs(weights - expected).max() < 1e-5
        before, last = key[-1], key[-1] + layer.stride * (samples - 1)
        assert before < layer.stride
        assert pixels - 1 - last <= layer.stride

    @pytest.mark.parametrize("name", [name for name in CHAINS if name.startswith("fcn8s") and "bn" not in name])
    def test_the_padding_at_the_end_is_the_least(self, name: str) -> None:
        """Without it VGG needs none; AlexNet's layers would leave no sample of a small image, or drop a remainder."""
        with torch.device("meta"):
            model = create_model(name, num_classes=2)
        grid = model.grids()["fc7"]
        for size in range(1, 301):
            padded = model.covered_size((size, size))[0]
            assert padded == size or "vgg" not in name
            assert size <= padded < size + 2 * grid.stride


@cache
def interpolation_weights(kernel: int, stride: int, padding: int, samples: int, pixels: int, first: Fraction):
    """(pixels, samples) weights: of the network's upsampling, and of numpy's linear interpolation."""
    one_hot = torch.eye(samples)[:, None, None].expand(-1, 1, 2, -1)
    layer = Layer("upscore", kernel, stride, padding, transposed=True)
    weights = upsampled(one_hot, layer, (0, 0), (1, pixels), fade=False)[:, 0, 0].T.numpy()
    places = float(first) + stride * np.arange(samples)
    expected = np.stack([np.interp(np.arange(pixels), places, row) for row in np.eye(samples)], axis=1)
    return weights, expected


class TestUpsampling:
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64])
    def test_kernel_is_the_references(self, size: int) -> None:
        """A tent of half width ceil(K / 2) around the middle, which the reference's surgery.py writes into its nets."""
        tent = np.interp(np.arange(size), [(size - 1) / 2 + d * -(-size // 2) for d in (-1, 0, 1)], [0, 1, 0])
        np.testing.assert_allclose(bilinear_kernel(size).numpy(), np.outer(tent, tent), atol=1e-6)

    @pytest.mark.parametrize("size", [1, 4, 5, 8, 9, 16, 32, 64])
    def test_kernel_is_caffes_filler(self, size: int) -> None:
        """f = ceil(K / 2), c = (2f - 1 - f % 2) / (2f), weight = 1 - |x / f - c|, as Caffe's filler.hpp has it.

        At K = 2f - f % 2, which it is written for. At other sizes, such as FCN-AlexNet's 63, the formula lies
        half a pixel off the middle, and neither surgery.py nor the oracle follows it there.
        """
        f = -(-size // 2)
        c = (2 * f - 1 - f % 2) / (2 * f)
        ramp = [1 - abs(x / f - c) for x in range(size)]
        np.testing.assert_allclose(bilinear_kernel(size).numpy(), np.outer(ramp, ramp), atol=1e-6)

    @pytest.mark.parametrize("stride", [2, 8, 16, 32])
    @pytest.mark.parametrize("even", [True, False], ids=["2s", "2s-1"])
    def test_same_padding_interpolates_as_the_transposed_convolution_does(self, stride: int, even: bool) -> None:
        """Everywhere between the outermost samples; beyond them one repeats samples, the other fades to zero."""
        padding = stride // 2 if even else stride - 1
        layer = Layer("upscore", 2 * stride if even else 2 * stride - 1, stride, padding, transposed=True)
        scores = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
        interpolated = upsampled(scores, layer, (0, 0), (layer.output_size(4), layer.output_size(6)), fade=False)
        expected = transposed(scores, layer)[..., padding:-padding, padding:-padding]
        beyond = stride // 2 if even else 0
        between = [slice(beyond, n - beyond) for n in interpolated.shape[-2:]]
        torch.testing.assert_close(interpolated[..., *between], expected[..., *between])
        if even:
            corner = scores[..., :1, :1].expand(-1, -1, beyond, beyond)
            torch.testing.assert_close(interpolated[..., :beyond, :beyond], corner)

    @settings(max_examples=200, deadline=None)
    @given(st.data(), st.sampled_from([2, 4, 8, 16, 32]), st.booleans())
    def test_any_part_of_what_fades_is_that_of_the_transposed_convolution(self, data, stride: int, even: bool) -> None:
        """The gradient as well."""
        layer = Layer("upscore", 2 * stride if even else 2 * stride - 1, stride, transposed=True)
        shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)), "shape")
        scores = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
        whole = transposed(scores, layer)
        start = data.draw(st.integers(0, min(whole.shape[-2:]) - 1), "start")
        size = tuple(data.draw(st.integers(1, n - start)) for n in whole.shape[-2:])
        expected = whole[..., start : start + size[0], start : start + size[1]]
        found = upsampled(scores, layer, (start, start), size, fade=True)
        torch.testing.assert_close(found, expected)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).double()
        gradients = [torch.autograd.grad((x * weights).sum(), scores)[0] for x in (found, expected)]
        torch.testing.assert_close(*gradients)

    @pytest.mark.parametrize("padding", PADDINGS)
    def test_half_precision_ends_before_the_upsampling(self, padding: str) -> None:
        model = give_scores(small("fcn8s_vgg16", padding))
        image = torch.randn(1, 3, 70, 50, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert model(image).dtype == torch.float32


def transposed(scores: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The reference's upsampling: a deconvolution with a bilinear kernel."""
    channels = scores.shape[1]
    kernel = bilinear_kernel(layer.kernel).to(scores).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(scores, kernel, stride=layer.stride, groups=channels)


class TestScores:
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_logits_are_the_sum_of_the_skips(self, padding: str) -> None:
        """FCN-8s is linear in its score layers: each alone, and their sum, give the whole."""
        model = give_scores(small("fcn8s_vgg16", padding))
        image = torch.randn(1, 3, 70, 50, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            whole = model(image)
            parts = [self.alone(model, name)(image) for name in ("score_fr", "score_pool4", "score_pool3")]
        assert all(part.std() > 0 for part in parts)
        torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())

    @pytest.mark.parametrize(("name", "skips"), [("fcn32s", 0), ("fcn16s", 1), ("fcn8s", 2)])
    def test_skips_come_from_the_taps_of_the_paper(self, name: str, skips: int) -> None:
        """AlexNet has poolings of stride 8 and 16 too: pool1 and pool2."""
        for backbone, taps in {"vgg19": ["pool4", "pool3"], "alexnet": ["pool2", "pool1"]}.items():
            names = ["score_fr", *(f"score_{tap}" for tap in taps[:skips])]
            assert sorted(score_layers(small(f"{name}_{backbone}", "same"))) == sorted(names)

    @staticmethod
    def alone(model: FCN, kept: str) -> FCN:
        """The model with one score layer left, the others zero."""
        state = {
            k: v if not k.startswith("score_") or k.startswith(f"{kept}.") else torch.zeros_like(v)
            for k, v in model.state_dict().items()
        }
        copy = create_model(**model.spec.to_dict()).eval()
        copy.load_state_dict(state)
        return copy

    def test_dropout_works_in_training_only(self) -> None:
        model = give_scores(small("fcn32s_alexnet", "same", dropout=0.9))
        image = torch.randn(1, 3, 33, 33)
        with torch.inference_mode():
            assert torch.equal(model(image), model(image))
            model.train()
            assert not torch.equal(model(image), model(image))

    def test_weights_start_as_he_proposed(self) -> None:
        """Standard deviation sqrt(2 / fan-in) (He et al. 2015, equation 10), biases zero."""
        torch.manual_seed(0)
        model = create_model("fcn32s_vgg16", num_classes=2, width=0.25)
        for name in ("backbone.conv3_2", "backbone.conv5_3", "fc6", "fc7"):
            layer = model.get_submodule(name)
            assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.02)
            assert not layer.bias.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool])
def test_integers_can_only_be_images_that_nobody_normalised(dtype):
    with pytest.raises(InputError, match=r"images are \w+; .* call model\(model\.normalise\(images\)\)$"):
        small("fcn8s_alexnet", "same")(torch.zeros(1, 3, 40, 50, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_floats_of_every_width_are_taken(dtype):
    model = small("fcn8s_alexnet", "same").to(dtype)
    logits = model(torch.zeros(1, 3, 40, 50, dtype=dtype))
    assert logits.dtype == torch.promote_types(dtype, torch.float32)


def test_the_check_of_the_type_is_none_of_the_exported_graph():
    model = small("fcn32s_alexnet", "same").eval()
    images = torch.randn(1, 3, 40, 50)
    exported = torch.export.export(model, (images,))
    torch.testing.assert_close(exported.module()(images), model(images))
