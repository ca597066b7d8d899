"""What lies beyond an image's reach is computed once: the same logits as if it were computed each time."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fcnseg.geometry import Layer
from fcnseg.models import FCN, create_model

NETWORKS = [
    "fcn8s_vgg16", "fcn2s_vgg16_bn", "fcn32s_caffenet", "fcn4s_alexnet", "fcn16s_vgg19", "fcn8s_vgg16_stem2",
    "fcn8s_caffenet_stem4",
]  # fmt: skip


def network(name: str = "fcn8s_vgg16") -> FCN:
    """No weight or bias is zero, so that nothing of the surroundings is."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, padding="caffe", width=0.05)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


def multiply_adds(model: FCN, *arguments: object, **options: object) -> int:
    """Of the trunk, while it computes."""
    counted = FlopCounterMode(display=False)
    with counted, torch.inference_mode():
        model(*arguments, **options)
    return counted.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(97, 131), (64, 96), (1, 1), (40, 200)])
def test_the_logits_are_those_of_the_whole(name: str, size: tuple[int, int]) -> None:
    model = network(name)
    batch = images(2, 3, *size)
    with torch.inference_mode():
        whole = model(batch)
        for _ in range(2):  # with surroundings that were computed now, and with those that were kept
            torch.testing.assert_close(model(batch, reuse=True), whole, rtol=1e-11, atol=1e-11 * whole.abs().max())
    assert whole.std() > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_float32_they_differ_by_roundings(layout: torch.memory_format) -> None:
    model, batch = network().float().to(memory_format=layout), images(1, 3, 97, 131).float()
    with torch.inference_mode():
        whole = model(batch)
        assert float((model(batch, reuse=True) - whole).abs().max()) < 1e-5 * float(whole.abs().max())


def test_it_is_less_to_compute() -> None:
    model, batch = network().float(), images(1, 3, 360, 480).float()
    with torch.inference_mode():
        model(batch, reuse=True)
    assert multiply_adds(model, batch) > 1.5 * multiply_adds(model, batch, reuse=True)


def test_other_weights_types_and_sizes_have_other_surroundings() -> None:
    model = network()

    def check(*shape: int, dtype: torch.dtype = torch.float64) -> None:
        batch = images(1, 3, *shape).to(dtype)
        with torch.no_grad():
            whole = model(batch)
            found = model(batch, reuse=True)
        assert float((found - whole).abs().max()) < (1e-11 if dtype == torch.float64 else 1e-4) * float(
            whole.abs().max()
        )

    check(64, 96)
    check(96, 64)
    with torch.no_grad():
        model.backbone.conv1_1.bias.add_(1)
    check(64, 96)
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})
    check(64, 96)
    model.float()
    check(64, 96, dtype=torch.float32)
    for size in range(40, 50):
        check(64, size, dtype=torch.float32)
    assert len(model._surroundings._kept) <= 4, "memory is bounded"


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_what_an_optimiser_has_changed_is_computed_anew(mode: bool) -> None:
    """Fused optimisers change weights without counting the versions of their tensors up."""
    model, batch = network(), images(2, 3, 40, 50)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            whole = model(batch)
            torch.testing.assert_close(model(batch, reuse=True), whole, rtol=1e-11, atol=1e-11 * whole.abs().max())
        model.train(mode)
        model(batch).square().mean().backward()
        optimizer.step()
        for module in model.modules():
            module.training = False  # as some trainers do, without a call of eval()


@pytest.mark.parametrize("how", ["gradients", "training"])
def test_where_more_is_asked_than_logits_all_is_computed(how: str) -> None:
    model, batch = network("fcn8s_vgg16_bn"), images(2, 3, 40, 50)
    with torch.inference_mode():
        model(batch, reuse=True)
    model.train(how == "training")
    model.dropout.eval()
    if how == "gradients":
        batch.requires_grad_()
        gradients = [torch.autograd.grad(model(batch, reuse=reuse).sum(), batch)[0] for reuse in (False, True)]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)
        return
    with torch.no_grad():
        torch.testing.assert_close(model(batch, reuse=True), model(batch), rtol=0, atol=0)


def test_copies_keep_none_of_it() -> None:
    model, batch = network(), images(1, 3, 64, 96)
    with torch.inference_mode():
        whole = model(batch, reuse=True)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert not other._surroundings._kept
            torch.testing.assert_close(other(batch, reuse=True), whole)


def test_half_precision_and_autocast() -> None:
    model, batch = network().float(), images(1, 3, 64, 96).float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        whole, found = model(batch), model(batch, reuse=True)
    assert float((found - whole).abs().max()) < 0.05 * float(whole.abs().max())
    with torch.inference_mode():
        assert not torch.equal(model(batch, reuse=True), found), "of float32 there are others"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_a_layer_sees_and_reaches_by_brute_force(data: st.DataObject) -> None:
    kernel = data.draw(st.integers(1, 5))
    layer = Layer(
        "layer", kernel, data.draw(st.integers(1, 4)), data.draw(st.integers(0, kernel)), data.draw(st.integers(1, 2))
    )
    size = data.draw(st.integers(layer.extent, 20))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    touched = [
        {i * layer.stride - layer.padding + k * layer.dilation for k in range(kernel)}
        for i in range(layer.output_size(size))
    ]
    reaching = [i for i, pixels in enumerate(touched) if min(pixels) < stop and max(pixels) >= start]
    first, end = layer.reached(start, stop, size)
    assert list(range(first, end)) == reaching
    for i, pixels in enumerate(touched):
        assert layer.seen(i, i + 1) == (min(pixels), max(pixels) + 1)


def test_what_takes_too_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = network(), images(1, 3, 40, 56)
    with torch.inference_mode():
        expected = model(batch)
        model(batch, reuse=True)
        (kept,) = model._surroundings._kept.values()
        monkeypatch.setattr("fcnseg.models.surroundings.LIMIT", kept.nbytes)
        model(batch[..., :50], reuse=True)
        assert len(model._surroundings._kept) == 1, "the older one had to go"
        monkeypatch.setattr("fcnseg.models.surroundings.LIMIT", 1000)
        model._surroundings.forget()
        for _ in range(2):
            assert torch.equal(model(batch, reuse=True), expected)
        assert list(model._surroundings._kept.values()) == [None]


def test_where_there_is_no_memory_for_it_the_plain_computation_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    model, batch = network(), images(1, 3, 40, 56)
    monkeypatch.setattr("fcnseg.models.surroundings._step", full)
    with torch.inference_mode():
        assert torch.equal(model(batch, reuse=True), model(batch))
