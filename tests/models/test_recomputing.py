"""Activation checkpointing: the same gradients and statistics, to the last bit, from less that is kept."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fcnseg.models import FCN, create_model


def trained(model: FCN, images: Tensor, masks: Tensor) -> tuple[Tensor, int]:
    """The loss of one step, and the bytes beside the weights that its forward pass kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(model(images), masks)
    bytes_kept = sum(kept.values())
    loss.backward()
    return loss.detach(), bytes_kept


@pytest.mark.parametrize("padding", ["same", "caffe"])
@pytest.mark.parametrize("name", ["fcn2s_vgg16_bn", "fcn8s_vgg16", "fcn4s_alexnet", "fcn16s_caffenet"])
def test_gradients_and_statistics_are_those_of_plain_training(name: str, padding: str) -> None:
    torch.manual_seed(0)
    plain = create_model(name, num_classes=5, width=0.1, padding=padding)
    for key, score in plain.named_children():
        if key.startswith("score"):
            torch.nn.init.normal_(score.weight)
    thrifty = copy.deepcopy(plain)
    thrifty.backbone.checkpoint_activations = True
    images, masks = torch.randn(2, 3, 97, 130), torch.randint(0, 5, (2, 97, 130))
    expected, most = trained(plain, images, masks)
    found, kept = trained(thrifty, images, masks)
    assert torch.equal(found, expected)
    assert kept < (0.7 if "vgg" in name else 1) * most  # of the others fc6 keeps nearly all
    for (key, ours), theirs in zip(thrifty.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key
    for (key, ours), theirs in zip(thrifty.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), key
