"""Grad-CAM against its formula, worked out by plain hooks, and its place on the image."""

import sys

import numpy as np
import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.explain import grad_cam, gradcam_figure, layer_grid, look, scored_layers
from fcnseg.explain.figures import on_image
from tests.explain.networks import scored


def by_hand(model, images, class_index, layer, where):
    """Selvaraju et al.: the mean gradient of the score by each channel, times the channel, summed, cut off below 0."""
    kept = {}

    def keep(_, __, out):
        out.retain_grad()
        kept["maps"] = out

    handle = model.get_submodule(layer).register_forward_hook(keep)
    logits = model(images)[0, class_index]
    (logits if where is None else logits[torch.from_numpy(where)]).sum().backward()
    handle.remove()
    maps = kept["maps"]
    return (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu()[0].detach().numpy()


@pytest.mark.parametrize(("layer", "module"), [("pool4", "backbone.pool4"), ("pool3", "backbone.pool3")])
@pytest.mark.parametrize("one_pixel", [True, False])
def test_is_the_formula_over_a_set_of_pixels(layer, module, one_pixel):
    model, images, where = scored("fcn8s_vgg16"), torch.randn(1, 3, 64, 80), None
    if one_pixel:
        where = np.zeros((64, 80), bool)
        where[30, 41] = True
    expected = [by_hand(model, images, k, module, where) for k in range(3)]
    assert any(each.any() for each in expected)
    for k, each in enumerate(expected):
        found = grad_cam(model, images, k, layer, where)
        np.testing.assert_allclose(found, each, rtol=1e-4, atol=1e-4 * max(one.max() for one in expected))


def test_of_fc7_is_what_score_fr_adds_up():
    """Past fc7 the network is linear: the mean gradient of channel c is weight c times a constant."""
    model, images = scored("fcn32s_vgg16"), torch.randn(1, 3, 64, 96)
    found = grad_cam(model, images, 2)
    with torch.no_grad():
        fc6 = model.fc6(model.taps(images)["pool5"]).relu()
        parts = torch.einsum("c,chw->hw", model.score_fr.weight[2, :, 0, 0], model.fc7(fc6).relu()[0]).relu().numpy()
    constant = 64 * 96 / found.size
    np.testing.assert_allclose(found, parts * constant, rtol=1e-3, atol=1e-4 * found.max())


@pytest.mark.parametrize("name", ["fcn8s_alexnet", "fcn4s_vgg16", "fcn8s_resnet18", "fcn8s_vgg16_bn"])
def test_of_every_scored_layer_and_of_frozen_networks(name):
    model, images = scored(name).requires_grad_(False), torch.randn(1, 3, 64, 64)
    for layer in scored_layers(model):
        found = grad_cam(model, images, 0, layer)
        assert found.ndim == 2
        assert found.min() >= 0


def test_mistakes(monkeypatch):
    model, images = scored("fcn8s_vgg16"), torch.randn(1, 3, 40, 40)
    with pytest.raises(InputError, match="layer=poll4: no layer of fcn8s_vgg16; did you mean pool4"):
        grad_cam(model, images, 0, "poll4")
    with pytest.raises(InputError, match="over no pixel at all"):
        grad_cam(model, images, 0, where=np.zeros((40, 40), bool))
    with pytest.raises(InputError, match="layer=body: gives no feature map"):
        grad_cam(scored("fcn8s_resnet18"), images, 0, "body")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match=r"needs captum; pip install 'fcnseg\[explain\]'"):
        grad_cam(model, images, 0)


@pytest.mark.parametrize(("name", "padding"), [("fcn8s_alexnet", "same"), ("fcn8s_vgg16", "caffe")])
def test_maps_lie_on_the_image_where_the_geometry_has_them(name, padding):
    """A layer whose samples hold their own row comes out as rows of the image, between its outermost samples."""
    model, size = scored(name, padding), (96, 120)
    for layer in scored_layers(model):
        grid = layer_grid(model, layer)
        samples = 2 + int((size[0] - float(grid.origin)) / float(grid.stride))
        rows = np.array([float(grid.origin + i * grid.stride) for i in range(samples)])
        found = on_image(np.repeat(rows[:, None], 9, axis=1), grid, size)
        assert found.shape == size
        inside = (np.arange(96) >= rows[0]) & (np.arange(96) <= rows[-1])
        assert inside.sum() > 40
        np.testing.assert_allclose(found[inside], np.arange(96)[inside, None].repeat(120, 1), atol=1e-9)


def test_the_figure():
    model = scored("fcn8s_vgg16")
    seen = look(model, np.full((40, 60, 3), 90, np.uint8))
    layers = scored_layers(model)
    rows = {what: [grad_cam(model, seen.images, 0, layer) for layer in layers] for what in ("a", "b")}
    grids = [layer_grid(model, layer) for layer in layers]
    one, two = (gradcam_figure(seen, dict(list(rows.items())[:count]), layers, grids, (20, 30)) for count in (1, 2))
    assert two.height > 1.5 * one.height
    assert np.asarray(two).std() > 10
