"""The parts of logits: they add up, each is what a network with that tap alone gives, and the map follows from them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fcnseg.data import CityScenes
from fcnseg.explain import contributions, decision, look, margins, skip_maps, skips, skips_figure
from fcnseg.inference import Predictor
from fcnseg.models import FCN
from tests.explain.networks import HEADS, scored


def alone(model: FCN, names: list[str], biases: bool) -> FCN:
    """A copy whose score layers see nothing but for those of `names`, with or without the biases of all."""
    model = copy.deepcopy(model)
    for name, layer in model.named_children():
        if name.startswith("score_"):
            if name not in names:
                nn.init.zeros_(layer.weight)
            if not biases:
                nn.init.zeros_(layer.bias)
    return model


@pytest.mark.parametrize(("name", "padding"), HEADS)
def test_parts_and_biases_add_up_to_the_logits(name, padding):
    model, images = scored(name, padding), torch.randn(1, 3, 53, 70)
    found = contributions(model, images)
    with torch.no_grad():
        logits = model(images)[0]
    assert len(found.names) == len(model.fusions)
    assert found.names[0] == "score_fr"
    assert found.parts.shape == (len(found.names), 3, 53, 70)
    assert (found.logits - logits).abs().max() <= 1e-5 * max(1, logits.abs().max())
    assert logits.std() > 0.01


@pytest.mark.parametrize(
    ("name", "padding"), [("fcn8s_vgg16", "same"), ("fcn2s_vgg16", "caffe"), ("fcn8s_resnet18", "same")]
)
def test_each_part_is_what_a_network_with_that_score_alone_gives(name, padding):
    model, images = scored(name, padding), torch.randn(1, 3, 40, 61)
    found = contributions(model, images)
    with torch.no_grad():
        for part, tap in zip(found.parts, found.names, strict=True):
            expected = alone(model, [tap], biases=False)(images)[0]
            torch.testing.assert_close(part, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
        torch.testing.assert_close(found.biases, alone(model, [], biases=True)(images)[0], atol=1e-5, rtol=0)


def test_biases_are_the_same_everywhere_but_where_scores_fade_out():
    same, caffe = (contributions(scored("fcn8s_vgg16", p), torch.randn(1, 3, 40, 60)) for p in ("same", "caffe"))
    model = scored("fcn8s_vgg16")
    total = model.score_fr.bias + model.score_pool4.bias + model.score_pool3.bias
    torch.testing.assert_close(same.biases, total[:, None, None].expand_as(same.biases))
    assert (caffe.biases.std((1, 2)) > 0.01).all()


def test_margins_are_the_parts_of_the_lead_of_the_first_over_the_second():
    stacked = torch.tensor([[1.0, 4.0, 0.0], [5.0, 0.0, 3.0], [0.0, 0.5, 0.0]])  # logits 6, 4.5, 3
    assert margins(stacked).tolist() == [-3.0, 5.0, -0.5]
    assert margins(stacked[:, :1]).tolist() == [0, 0, 0]  # of a single class


@pytest.fixture(scope="module")
def shown():
    model = scored("fcn8s_alexnet", num_classes=5, input_size=(48, 64), width=0.25)
    image = CityScenes(1, seed=3, look="real", size=(75, 91))[0][0]
    return model, image, look(model, image)


class TestMaps:
    def test_the_mask_is_the_predictors(self, shown):
        model, image, seen = shown
        maps = skip_maps(contributions(model, seen.images), seen)
        assert len(np.unique(maps.mask)) > 1
        np.testing.assert_array_equal(maps.mask, Predictor(model, "cpu")(image).mask)

    def test_without_a_tap_it_is_the_mask_of_a_network_whose_score_sees_nothing(self, shown):
        model, image, seen = shown
        maps = skip_maps(contributions(model, seen.images), seen)
        for name, mask in zip(maps.names, maps.without, strict=True):
            others = [each for each in maps.names if each != name]
            expected = Predictor(alone(model, others, biases=True), "cpu")(image).mask
            assert (mask == expected).mean() > 0.999
            assert maps.changed()[name] == pytest.approx(float((expected != maps.mask).mean()), abs=0.002)

    def test_bands_make_no_difference(self, shown, monkeypatch):
        model, _, seen = shown
        found = contributions(model, seen.images)
        whole = skip_maps(found, seen)
        monkeypatch.setattr(skips, "BAND_BYTES", 1)
        by_rows = skip_maps(found, seen)
        assert (whole.deciding == by_rows.deciding).mean() > 0.999
        assert (whole.mask == by_rows.mask).mean() > 0.999

    def test_every_pixel_is_decided_as_its_own_decision_says(self, shown):
        model, _, seen = shown
        found = contributions(model, seen.images)
        maps = skip_maps(found, seen)
        assert sum(maps.shares().values()) == pytest.approx(1)
        assert len(np.unique(maps.deciding)) > 1
        for pixel in [(0, 0), (74, 90), (30, 41), (55, 10), (12, 77)]:
            one = decision(found, seen, pixel)
            assert one.names[maps.deciding[pixel]] == one.deciding
            assert one.ranking[0] == maps.mask[pixel]
            assert one.without == [int(mask[pixel]) for mask in maps.without]
            first, second = one.ranking[:2]
            assert one.lead.sum() == pytest.approx(one.logits[first] - one.logits[second])

    def test_the_figure_is_drawn_for_one_tap_and_for_five(self):
        for name in ("fcn32s_vgg16", "fcn2s_vgg16"):
            model = scored(name)
            seen = look(model, CityScenes(1, 0, "real", (40, 60))[0][0])
            found = contributions(model, seen.images)
            figure = skips_figure(seen, skip_maps(found, seen), decision(found, seen, (20, 30)), (20, 30))
            assert np.asarray(figure).std() > 10


def test_a_network_in_training_is_left_as_it_was():
    model = scored("fcn8s_vgg16_bn").train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    images = torch.randn(1, 3, 40, 40)
    first, second = (contributions(model, images).logits for _ in range(2))
    torch.testing.assert_close(first, second)  # without dropout
    assert model.training
    assert model.backbone.bn1_1.training
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, before[name])
