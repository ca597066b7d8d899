"""Batch normalisation by domain: each part of a batch as if it were alone, and running statistics of the first."""

from copy import deepcopy

import pytest
import torch
from torch.nn import BatchNorm2d

import fcnseg
from fcnseg.data import CityScenes
from fcnseg.errors import InputError
from fcnseg.models import FCN
from fcnseg.training import SegmentationModule

DOMAINS = torch.tensor([0, 1, 0, 1, 1])
"""In no order, as in batches of images that are shuffled together."""


@pytest.fixture
def model() -> FCN:
    torch.manual_seed(0)
    model = fcnseg.create_model("fcn8s_vgg16_bn", num_classes=11, width=0.05, dropout=0, input_size=(32, 48))
    torch.nn.init.normal_(model.score_fr.weight)
    return model.train()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    scenes = {0: CityScenes(5, look="real", size=(32, 48)), 1: CityScenes(5, look="synthetic", size=(32, 48))}
    images = [scenes[int(domain)][i][0] for i, domain in enumerate(DOMAINS)]
    return {"image": torch.stack([torch.from_numpy(i).permute(2, 0, 1) for i in images]), "domain": DOMAINS}


def running(model: torch.nn.Module) -> list[torch.Tensor]:
    layers = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    return [statistic for layer in layers for statistic in (layer.running_mean, layer.running_var)]


def test_each_domain_is_normalised_as_if_it_were_alone(model, batch):
    logits = SegmentationModule(deepcopy(model), domain_statistics="separate").training_logits(batch)
    assert logits.shape == (5, 11, 32, 48)
    for domain in (0, 1):
        part = batch["image"][domain == DOMAINS]
        torch.testing.assert_close(logits[domain == DOMAINS], model(model.normalise(part)))
    shared = SegmentationModule(model).training_logits(batch)
    assert not torch.allclose(logits, shared, rtol=0.1)


def test_running_statistics_are_those_of_the_first_domain(model, batch):
    alone = deepcopy(model)
    module = SegmentationModule(model, domain_statistics="separate")
    module.training_logits(batch)
    alone(alone.normalise(batch["image"][DOMAINS == 0]))
    assert len(running(model)) > 10
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(running(model), running(alone), strict=True))
    assert all(layer.momentum == 0.1 for layer in model.modules() if isinstance(layer, BatchNorm2d))


def test_a_batch_may_lack_a_domain(model, batch):
    module = SegmentationModule(model, domain_statistics="separate")
    before = [statistic.clone() for statistic in running(model)]
    second = {"image": batch["image"][DOMAINS == 1], "domain": DOMAINS[DOMAINS == 1]}
    assert module.training_logits(second).shape == (3, 11, 32, 48)
    assert all(torch.equal(a, b) for a, b in zip(before, running(model), strict=True))


def test_gradients_reach_the_weights_from_both_domains(model, batch):
    module = SegmentationModule(model, domain_statistics="separate")
    logits = module.training_logits(batch)
    weight = next(model.parameters())
    found = [torch.autograd.grad(logits[d == DOMAINS].square().sum(), weight, retain_graph=True)[0] for d in (0, 1)]
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_other_words_are_refused(model):
    with pytest.raises(InputError, match="domain_statistics 'own': expected shared or separate"):
        SegmentationModule(model, domain_statistics="own")
