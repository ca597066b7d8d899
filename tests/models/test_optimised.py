"""The form for inference: the scores of the network itself, from weights that nobody else notices."""

import copy

import pytest
import torch
from torch import nn

from fcnseg.errors import InputError
from fcnseg.models import FCN, OptimisedFCN, create_model, optimise

IMAGES = (2, 3, 70, 90)


def network(name: str = "fcn8s_vgg16_bn", padding: str = "same", **options) -> FCN:
    """With weights and statistics that are nowhere zero or one."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, padding=padding, width=0.1, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    for key, score in model.named_children():
        if key.startswith("score"):
            nn.init.normal_(score.weight)
    return model.eval()


@pytest.mark.parametrize("padding", ["same", "caffe"])
@pytest.mark.parametrize("name", ["fcn8s_vgg16_bn", "fcn2s_vgg16", "fcn4s_caffenet", "fcn8s_vgg16_bn_stem2"])
def test_scores_are_the_networks_own(name: str, padding: str) -> None:
    """In float64, where what is left of a difference is rounding."""
    model, images = network(name, padding).double(), torch.randn(IMAGES, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(images)
        for reuse in (False, True):
            torch.testing.assert_close(optimise(model)(images, reuse=reuse), expected, rtol=1e-9, atol=1e-9)


def test_normalisation_is_gone_and_the_network_as_it_was() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimised = optimise(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in optimised.modules())
    assert type(model) is FCN
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[key], values) for key, values in before.items())
    assert model.training is False
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_large_weights_are_held_once() -> None:
    model = network().to(memory_format=torch.channels_last)
    assert optimise(model).fc6.weight.data_ptr() == model.fc6.weight.data_ptr()


def test_in_16_bits_scores_are_those_of_autocast() -> None:
    """To the last bit, where there is no normalisation to fold."""
    model, images = network("fcn8s_vgg16").to(memory_format=torch.channels_last), torch.randn(IMAGES)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(images)
        optimised = optimise(model, "bf16-mixed")
        assert torch.equal(optimised(images), expected)
    assert optimised.fc6.weight.dtype == torch.bfloat16
    assert model.fc6.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiled_scores_are_those_of_the_same_precision(precision: str) -> None:
    model, images = network("fcn8s_alexnet"), torch.randn(IMAGES)
    with torch.inference_mode():
        expected = optimise(model, precision)(images)
        compiled = optimise(model, precision, compile=True)
        scale = expected.abs().max()
        torch.testing.assert_close(
            compiled(images) / scale, expected / scale, rtol=0, atol=1e-5 if precision == "32-true" else 0.02
        )
    assert compiled.compiled is not None, "it was not given up"


def test_where_nothing_can_be_compiled_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here")

    model, images = network(), torch.randn(IMAGES)
    optimised = optimise(model, compile=True)
    optimised.compiled = torch.compile(FCN.forward, backend=broken)
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="^not compiled, which changes the time alone: .*no compiler here") as told:
            scores = optimised(images)
        torch.testing.assert_close(scores, optimise(model)(images))
        optimised(images)
    assert len(told) == 1


def test_a_users_mistake_is_no_failure_of_the_compiler() -> None:
    optimised = optimise(network(), compile=True)
    with pytest.raises(InputError, match="images are uint8"):
        optimised(torch.zeros(IMAGES, dtype=torch.uint8))
    assert optimised.compiled is not None


def test_it_is_for_inference_alone(tmp_path) -> None:
    optimised = optimise(network())
    assert isinstance(optimised, OptimisedFCN)
    assert not optimised(torch.randn(IMAGES)).requires_grad
    assert optimise(optimised) is optimised
    for forbidden in (optimised.train, lambda: optimised.save_pretrained(tmp_path / "model")):
        with pytest.raises(InputError, match="optimised for inference"):
            forbidden()
    assert not (tmp_path / "model" / "config.json").exists()


def test_another_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision=fp32: expected one of 32-true, bf16-mixed, 16-mixed"):
        optimise(network(), "fp32")
