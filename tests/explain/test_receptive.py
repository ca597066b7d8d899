"""Receptive fields against the pixels that gradients and changed images show, in networks without a dead unit."""

import numpy as np
import pytest
import torch
from torch import nn

from fcnseg.errors import InputError
from fcnseg.explain import effective_field, effective_size, field_figure, look, receptive_field
from tests.explain.networks import averaging, scored

NETWORKS = [
    ("fcn32s_alexnet", "same"),
    ("fcn8s_alexnet", "caffe"),
    ("fcn16s_vgg16", "caffe"),
    ("fcn8s_vgg16", "same"),
    ("fcn2s_vgg16", "same"),
    ("fcn8s_resnet18", "same"),
]


def support(values: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and end of the rows and columns where something is not zero."""
    spans = []
    for axis in (1, 0):
        where = np.flatnonzero(values.any(axis))
        spans.append((int(where[0]), int(where[-1]) + 1))
    return spans[0], spans[1]


def within(box, size):
    return tuple((max(first, 0), min(end, length)) for (first, end), length in zip(box, size, strict=True))


@pytest.mark.parametrize(("name", "padding"), NETWORKS)
@pytest.mark.parametrize(("pixel", "size"), [((61, 35), (96, 64)), ((0, 95), (64, 96)), ((30, 63), (32, 64))])
def test_the_field_is_where_gradients_of_an_averaging_network_are_not_zero(name, padding, pixel, size):
    model = averaging(scored(name, padding))
    field = receptive_field(model, pixel, size)
    found = effective_field(model, [torch.ones(1, 3, *size, dtype=torch.float64)], pixel, 0)
    assert support(found) == within(field.box, size)
    assert (found > 0).sum() == np.prod([end - first for first, end in support(found)])  # without a hole


@pytest.mark.parametrize(("name", "padding"), [("fcn8s_vgg16", "same"), ("fcn8s_alexnet", "caffe")])
def test_the_field_of_each_tap_is_that_of_a_network_whose_other_scores_see_nothing(name, padding):
    size, pixel = (256, 288), (120, 131)
    for tap in receptive_field(scored(name, padding), pixel, size).taps:
        model = averaging(scored(name, padding))
        for layer_name, layer in model.named_children():
            if layer_name.startswith("score_") and layer_name != tap.name:
                nn.init.zeros_(layer.weight)
        found = effective_field(model, [torch.ones(1, 3, *size, dtype=torch.float64)], pixel, 0)
        assert support(found) == within(tap.box, size)


def test_away_from_borders_the_box_is_what_the_network_tells_tiles_to_see():
    for name, padding in NETWORKS:
        model = scored(name, padding)
        field = receptive_field(model, (700, 811), (1500, 1600))
        assert field.box == (model.seen(700, 701), model.seen(811, 812))


def test_a_changed_pixel_changes_the_logits_within_the_field_alone():
    model, size, pixel = averaging(scored("fcn16s_alexnet")), (420, 80), (210, 40)
    (top, bottom), _ = receptive_field(model, pixel, size).box
    assert top > 0
    assert bottom < size[0]
    with torch.no_grad():
        before = model(torch.ones(1, 3, *size, dtype=torch.float64))[0, 0, *pixel]
        for row, changes in ((top - 1, False), (top, True), (bottom - 1, True), (bottom, False)):
            images = torch.ones(1, 3, *size, dtype=torch.float64)
            images[0, :, row] += 1e6
            assert bool((model(images)[0, 0, *pixel] - before).abs() > 1e-9) == changes


def test_samples_and_offsets_of_an_fcn_32s_are_those_worked_out_by_hand():
    """Same padding, stride 32: sample i has its centre on 15.5 + 32 i; pixel 40 lies between samples 0 and 1."""
    field = receptive_field(scored("fcn32s_vgg16"), (40, 100), (224, 224))
    (tap,) = field.taps
    assert tap.name == "score_fr"
    assert tap.samples == ((0, 2), (2, 4))
    assert tap.centres == ([15.5, 47.5], [79.5, 111.5])
    assert tap.offset == (7.5, 11.5)
    assert tap.box[0] == (int(15.5 - 201.5), int(47.5 + 201.5) + 1)  # a field of 404 pixels around either
    assert field.size == (436, 436)
    assert field.local


def test_networks_that_average_over_the_whole_image_say_so():
    assert not receptive_field(scored("fcn8s_mobilenetv3_large_100"), (10, 10), (64, 64)).local


class TestEffectiveField:
    def test_is_the_response_to_single_pixels_in_a_linear_network(self):
        model, pixel = averaging(scored("fcn8s_alexnet")), (30, 41)
        ones = torch.ones(1, 3, 70, 80, dtype=torch.float64)
        found = effective_field(model, [ones], pixel, 0)
        assert found.sum() == pytest.approx(1)
        changes = []
        for row, column in ((30, 41), (25, 60), (50, 20)):
            images = ones.clone()
            images[0, :, row, column] += 1
            with torch.no_grad():
                changes.append(float((model(images) - model(ones))[0, 0, *pixel]))
        values = [found[30, 41], found[25, 60], found[50, 20]]
        np.testing.assert_allclose(np.array(values) / values[0], np.array(changes) / changes[0], rtol=1e-6)

    def test_lies_within_the_theoretical_one(self):
        model, size, pixel = scored("fcn8s_alexnet", width=0.25), (440, 430), (210, 212)
        found = effective_field(model, [torch.randn(1, 3, *size) for _ in range(2)], pixel)
        (top, bottom), (left, right) = receptive_field(model, pixel, size).box
        assert found.sum() == pytest.approx(1)
        assert found[top:bottom, left:right].sum() == pytest.approx(1)
        assert min(top, left) > 0
        assert 0 < effective_size(found) < bottom - top

    def test_is_the_mean_over_images(self):
        model, images = scored("fcn8s_alexnet"), [torch.randn(1, 3, 40, 50) for _ in range(3)]
        gradients = []
        for each in images:
            x = each.clone().requires_grad_()
            model(x)[0, 1, 20, 25].backward()
            gradients.append(x.grad[0].abs().sum(0).double().numpy())
        expected = np.mean(gradients, axis=0)
        np.testing.assert_allclose(
            effective_field(model, images, (20, 25), 1), expected / expected.sum(), rtol=1e-4, atol=1e-9
        )

    def test_is_of_the_likeliest_class_by_default(self):
        model, images = scored("fcn8s_alexnet"), torch.randn(1, 3, 40, 50)
        likeliest = int(model(images)[0, :, 20, 25].argmax())
        given, default = (effective_field(model, [images], (20, 25), index) for index in (likeliest, None))
        np.testing.assert_array_equal(given, default)

    def test_leaves_no_gradients_in_the_weights(self):
        model = scored("fcn8s_alexnet")
        effective_field(model, [torch.randn(1, 3, 40, 50)], (20, 25))
        assert all(weights.grad is None for weights in model.parameters())

    def test_is_empty_in_a_network_whose_scores_are_zero(self):
        model = scored("fcn32s_alexnet")
        nn.init.zeros_(model.score_fr.weight)
        found = effective_field(model, [torch.randn(1, 3, 40, 50)], (20, 25))
        assert not found.any()
        assert effective_size(found) == 0

    def test_refuses_images_of_several_sizes_and_none(self):
        model = scored("fcn32s_alexnet")
        with pytest.raises(InputError, match="seen in 40x50 and 40x51 pixels; expected one size"):
            effective_field(model, [torch.randn(1, 3, 40, 50), torch.randn(1, 3, 40, 51)], (20, 25))
        with pytest.raises(InputError, match="no images"):
            effective_field(model, [], (20, 25))

    def test_size_counts_what_is_above_a_share_of_the_largest(self):
        field = np.zeros((9, 9))
        field[2:6, 3:7] = 0.5
        field[3, 3] = 10
        assert effective_size(field) == pytest.approx(4)  # 0.5 is 5 % of 10
        field[3, 3] = 12
        assert effective_size(field) == pytest.approx(1)


def test_the_figure_shows_fields_beyond_the_image():
    model = scored("fcn8s_vgg16", "caffe")
    seen = look(model, np.full((40, 60, 3), 90, np.uint8))
    field = receptive_field(model, (5, 7), (40, 60))
    effective = effective_field(model, [seen.images], (5, 7))
    plain, both = field_figure(seen, field, (5, 7)), field_figure(seen, field, (5, 7), effective)
    assert both.width > plain.width
    assert np.asarray(both).std() > 10
