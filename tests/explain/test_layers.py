"""Layers by name: activations and filters against plain torch, their places, and the sheets that show them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcnseg.errors import InputError
from fcnseg.explain import (
    activation_sheet,
    activations,
    filter_sheet,
    filters,
    first_layer,
    layer_grid,
    layer_names,
    scored_layers,
)
from tests.explain.networks import scored


class TestActivations:
    def test_are_what_the_layers_compute_before_what_follows_writes_over_them(self):
        model, images = scored("fcn8s_vgg16"), torch.randn(1, 3, 40, 50)
        conv = F.conv2d(images, model.backbone.conv1_1.weight, model.backbone.conv1_1.bias, padding=1)[0]
        np.testing.assert_allclose(activations(model, images, "conv1_1"), conv.detach(), atol=1e-5)
        assert activations(model, images, "conv1_1").min() < 0
        np.testing.assert_allclose(activations(model, images, "relu1_1"), conv.relu().detach(), atol=1e-5)

    def test_of_the_head_are_its_scores(self):
        model, images = scored("fcn8s_vgg16"), torch.randn(1, 3, 40, 50)
        with torch.no_grad():
            taps = model.taps(images)
            scores = model.score(taps)
        np.testing.assert_allclose(activations(model, images, "score_fr"), scores[0][0], atol=1e-5)
        np.testing.assert_allclose(activations(model, images, "score_pool3"), scores[2][0], atol=1e-5)
        np.testing.assert_allclose(activations(model, images, "pool4"), taps["pool4"][0], atol=1e-5)
        assert activations(model, images, "fc7").min() == 0
        assert activations(model, images, "fc6").min() < 0

    def test_of_timm_s_blocks(self):
        model, images = scored("fcn8s_resnet18"), torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected = model.taps(images)["stride8"][0]
        for name in ("body.layer2", "stride8"):
            np.testing.assert_allclose(activations(model, images, name), expected, atol=1e-5)

    def test_of_every_named_layer(self):
        images = torch.randn(1, 3, 40, 50)
        for model in (scored("fcn8s_alexnet"), scored("fcn8s_vgg16_bn"), scored("fcn8s_vgg16", fc6_rank=8)):
            for name in layer_names(model):
                assert activations(model, images, name).ndim == 3

    def test_leave_no_hook_behind(self):
        model = scored("fcn8s_alexnet")
        activations(model, torch.randn(1, 3, 40, 50), "conv2")
        assert not model.backbone.conv2._forward_hooks

    def test_of_no_such_layer(self):
        model = scored("fcn8s_vgg16")
        with pytest.raises(InputError, match=r"layer=conv1_9: no layer of fcn8s_vgg16; did you mean conv1_.*conv5_3"):
            activations(model, torch.randn(1, 3, 40, 50), "conv1_9")
        with pytest.raises(InputError, match="layer=xyz: no layer of fcn8s_vgg16; it has conv1_1, relu1_1"):
            activations(model, torch.randn(1, 3, 40, 50), "xyz")
        with pytest.raises(InputError, match="layer=body: gives no feature map of an image"):
            activations(scored("fcn8s_resnet18"), torch.randn(1, 3, 64, 64), "body")


class TestFilters:
    def test_of_the_first_layer_are_in_the_order_of_an_rgb_image(self):
        bgr = {"channel_order": "bgr", "mean": [104.0, 116.7, 122.7], "std": [1.0, 1.0, 1.0]}
        for options, order in (({}, [0, 1, 2]), (bgr, [2, 1, 0])):
            model = scored("fcn8s_alexnet", **options)
            expected = model.backbone.conv1.weight.detach()[:, order]
            np.testing.assert_array_equal(filters(model, "conv1"), expected)
            np.testing.assert_array_equal(filters(model, "conv2"), model.backbone.conv2.weight.detach())

    def test_of_layers_without_any(self):
        with pytest.raises(InputError, match="layer=pool1: has no filters; expected one of conv1, conv2"):
            filters(scored("fcn8s_alexnet"), "pool1")

    def test_the_first_layer_of_any_network(self):
        assert first_layer(scored("fcn8s_vgg16")) == "conv1_1"
        assert first_layer(scored("fcn8s_resnet18")) == "body.conv1"


@pytest.mark.parametrize("name", ["fcn2s_vgg16", "fcn8s_vgg16_bn", "fcn4s_alexnet", "fcn8s_caffenet", "fcn8s_resnet18"])
def test_the_grids_of_layers_have_as_many_samples_as_their_maps(name):
    """By the stride; paddings are the tracer's affair, and tested there."""
    model = scored(name)
    height, width = model.covered_size((96, 160))
    images = torch.randn(1, 3, height, width)
    for layer in [*layer_names(model), *scored_layers(model)]:
        grid, shape = layer_grid(model, layer), activations(model, images, layer).shape
        assert shape[1] == pytest.approx(height / float(grid.stride), abs=1.01), layer
        assert shape[2] == pytest.approx(width / float(grid.stride), abs=1.01), layer


@pytest.mark.parametrize("name", ["fcn2s_vgg16", "fcn4s_alexnet", "fcn8s_resnet18"])
def test_scored_layers_are_what_the_score_layers_see(name):
    model, images = scored(name), torch.randn(1, 3, 64, 64)
    for layer, score in zip(scored_layers(model), [n for n in layer_names(model) if n[:6] == "score_"], strict=True):
        module, seen = model.get_submodule(score), torch.from_numpy(activations(model, images, layer))
        expected = torch.einsum("kc,chw->khw", module.weight[..., 0, 0], seen) + module.bias[:, None, None]
        np.testing.assert_allclose(activations(model, images, score), expected.detach(), rtol=1e-3, atol=1e-3)


class TestSheets:
    def test_each_map_is_scaled_by_itself_and_the_strongest_comes_first(self):
        maps = np.zeros((3, 4, 4), np.float32)
        maps[0, 0, 0], maps[1, 0, 0], maps[2] = 1, 100, 7
        one, all_of_them = activation_sheet(maps, "a", most=1), activation_sheet(maps, "a")
        assert all_of_them.width > one.width
        tile = np.asarray(one)[35:150, 8:136]
        assert tuple(tile[8, 8]) == (253, 231, 37)  # the bright end of viridis
        assert tuple(tile[-20, -20]) == (68, 1, 84)  # the dark one
        alone = activation_sheet(maps[:1] * 1000, "a")
        bright = (np.asarray(alone) == (253, 231, 37)).all(-1).sum()
        assert bright == (np.asarray(one) == (253, 231, 37)).all(-1).sum() > 500

    def test_no_more_tiles_than_asked_for(self):
        maps = np.random.default_rng(0).random((200, 6, 8)).astype(np.float32)
        rows = [activation_sheet(maps, "a", most).height for most in (8, 16, 64)]
        assert rows[1] - rows[0] == (rows[2] - rows[0]) / 7 > 0

    def test_colours_of_first_filters(self):
        weights = np.zeros((1, 3, 2, 2), np.float32)
        weights[0, 0], weights[0, 2] = 0.5, -0.5
        colours = np.unique(np.asarray(filter_sheet(weights, "conv1", colours=True)).reshape(-1, 3), axis=0)
        assert [255, 128, 0] in colours.tolist()

    def test_kernels_of_other_filters(self):
        weights = np.random.default_rng(0).standard_normal((40, 30, 3, 3)).astype(np.float32)
        assert filter_sheet(weights, "conv3", most=64).height < filter_sheet(weights, "conv3", most=640).height
        assert filter_sheet(np.zeros((4, 30, 1, 1), np.float32), "fc7").width > 0

    @pytest.mark.parametrize("most", [0, -1, 1025, 2.5, True])
    def test_numbers_out_of_range(self, most):
        with pytest.raises(InputError, match=f"maps={most}: expected a number from 1 to 1024"):
            activation_sheet(np.zeros((3, 4, 4), np.float32), "a", most)
