"""fc6 and fc7 as one product: torch's convolution, its gradients, and its layouts of memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fcnseg.models.product import ProductConv2d


def both(kernel: int, padding: int, batch: int) -> tuple[ProductConv2d, torch.Tensor]:
    torch.manual_seed(0)
    layer = ProductConv2d(6, 8, kernel, padding=padding).double()
    return layer, torch.randn(batch, 6, 9, 11).double().requires_grad_()


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (7, 3), (7, 0), (6, 3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_torchs_convolution(kernel: int, padding: int, batch: int) -> None:
    layer, x = both(kernel, padding, batch)
    found, expected = layer(x), F.conv2d(x, layer.weight, layer.bias, padding=padding)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape).double()
    for one, other in zip(
        *(torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()]) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_windows_are_copied_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("fcnseg.models.product.LIMIT", limit)
    layer, x = both(7, 3, 1)
    assert ("AddmmBackward" in str(list(walk(layer(x).grad_fn)))) == (limit > 0)


def test_the_layout_of_memory_changes_no_bit() -> None:
    layer, x = both(7, 3, 2)
    layer, x = layer.float(), x.detach().float()
    expected = layer(x)
    assert torch.equal(layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), expected)


def walk(node):
    """What an output was computed by, backwards."""
    yield node
    for child, _ in node.next_functions:
        if child is not None:
            yield from walk(child)


GRADIENTS = """
import torch
from fcnseg.models.product import ProductConv2d

for outputs in (2, 11, 12, 19):
    layer = ProductConv2d(4096, outputs, 1)
    for _ in range(3):
        x = torch.randn(4, 4096, 6, 8).to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            layer(x).float().sum().backward()
        expected = layer.weight.detach().bfloat16().sum(dim=(0, 2, 3)).float()
        torch.testing.assert_close(x.grad[1, :, 2, 3], expected, rtol=0.02, atol=0.02)
torch.randn(1000, 1000) @ torch.randn(1000, 1000)  # whoever wrote beyond their memory fail by now
"""


def test_gradients_of_few_scores_in_bfloat16_stay_within_their_memory() -> None:
    """In a process of its own: torch 2.15's convolution ends it on processors with AMX."""
    done = subprocess.run([sys.executable, "-c", GRADIENTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
