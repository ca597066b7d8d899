"""Losses of the coarser networks within one: their logits are those of FCN-16s and 32s with the same weights."""

from functools import partial

import pytest
import torch

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.regions import Dice
from tests.training.test_module import trainer

SIZE = (37, 50)


def network(name: str, padding: str = "same") -> FCN:
    """With scores that are not zero."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=11, padding=padding, width=0.05, dropout=0.0)
    for layer_name, layer in model.named_modules():
        if layer_name.startswith("score"):
            torch.nn.init.normal_(layer.weight)
    return model


@pytest.mark.parametrize("padding", ["same", "caffe"])
@torch.no_grad()
def test_they_are_the_coarser_networks(padding: str) -> None:
    fine = network("fcn8s_vgg16", padding)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    heads = fine.each_network(images)
    assert torch.equal(heads[0], fine(images))
    for name, logits in zip(("fcn16s_vgg16", "fcn32s_vgg16"), heads[1:], strict=True):
        coarse = network(name, padding)
        assert set(coarse.load_state_dict(fine.state_dict(), strict=False).missing_keys) == set()
        torch.testing.assert_close(coarse(images), logits)


@pytest.mark.parametrize("loss", [CrossEntropy(), Dice(), torch.nn.CrossEntropyLoss(ignore_index=255)])
def test_training_minimises_the_sum_of_their_losses(loss: torch.nn.Module) -> None:
    """One step: what is logged, and the weights that it leaves."""
    scenes = CityScenes(4, seed=1, look="real", size=SIZE)
    data = SegmentationData({"s": scenes}, scenes, size=SIZE, batch_size=4, num_workers=0, allow_overlap=True)
    model, alike = network("fcn8s_vgg16"), network("fcn8s_vgg16")
    optimizer = partial(torch.optim.SGD, lr=0.01)
    module = SegmentationModule(model, loss, optimizer, bias_lr_factor=1, deep_supervision=0.4)
    steps = trainer(max_steps=1, limit_val_batches=0)
    steps.fit(module, data)
    batch = next(iter(data.train_dataloader()))
    heads = alike.train().each_network(alike.normalise(batch["image"]))
    losses = [loss(logits, batch["mask"].long()) for logits in heads]
    expected = losses[0] + 0.4 * losses[1] + 0.4 * losses[2]
    assert float(steps.callback_metrics["train/loss"]) == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    optimizer(alike.parameters()).step()
    for (name, value), other in zip(model.named_parameters(), alike.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6, msg=name)


def test_without_a_coarser_network_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"deep_supervision=0\.4: fcn32s_vgg16 has no coarser network within"):
        SegmentationModule(network("fcn32s_vgg16"), deep_supervision=0.4)
    with pytest.raises(InputError, match="deep_supervision=-1: expected a number from 0 on"):
        SegmentationModule(network("fcn8s_vgg16"), deep_supervision=-1)
