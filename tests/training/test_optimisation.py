"""Parameter groups by the update they make, and schedules by their formulas."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

import fcnseg
from fcnseg.errors import InputError
from fcnseg.training import SegmentationModule
from fcnseg.training.optimisation import constant, cosine, one_cycle, parameter_groups, poly, scaled_rate

LR, DECAY = 0.1, 0.5


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 5, 1), nn.GroupNorm(1, 5)))


def optimizer(*rates: float, momentum: float = 0.9) -> SGD:
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], momentum=momentum)


def rates(schedule: Callable[..., LRScheduler], steps: int, *peaks: float) -> list[list[float]]:
    """The learning rate of each group at steps 0 to `steps`."""
    steered = optimizer(*peaks)
    scheduler = schedule(steered, steps)
    result = []
    for _ in range(steps):
        result.append([group["lr"] for group in steered.param_groups])
        steered.step()
        scheduler.step()
    return [*result, [group["lr"] for group in steered.param_groups]]


# Parameter groups


def test_linear_layers_decay_as_convolutions_do() -> None:
    """Trunks of timm have them; a layer's norm and a free parameter do not decay."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model.scale = nn.Parameter(torch.ones(1))
    decay = {id(p): group["weight_decay"] for group in parameter_groups(model, LR, DECAY) for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": DECAY, "0.bias": 0, "1.weight": 0, "1.bias": 0, "scale": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "rate", "decay"),
    [
        (AdamW, 1e-3, 1e-2),
        (SGD, 1e-3, 0),
        (partial(AdamW, lr=0.5), 0.5, 1e-2),
        (partial(SGD, lr=1, weight_decay=2), 1, 2),
    ],
)
def test_an_optimiser_keeps_its_own_defaults(optimizer: Callable[..., Optimizer], rate: float, decay: float) -> None:
    """A plain class of AdamW used to lose its weight decay."""
    module = SegmentationModule(fcnseg.create_model("fcn32s_vgg16", num_classes=2, width=0.05), optimizer=optimizer)
    weights, biases = module.configure_optimizers().param_groups
    assert (weights["lr"], weights["weight_decay"]) == (rate, decay)
    assert (biases["lr"], biases["weight_decay"]) == (2 * rate, 0)


def test_one_step_of_sgd_by_hand() -> None:
    """Weights: lr and decay. Biases: twice the lr, no decay. Norms: lr, no decay."""
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    SGD(parameter_groups(model, LR, DECAY)).step()
    expected = {
        "0.weight": lambda p: p - LR * (3 + DECAY * p),
        "0.bias": lambda p: p - 2 * LR * 3,
        "1.weight": lambda p: p - LR * 3,
        "1.bias": lambda p: p - LR * 3,
        "2.0.weight": lambda p: p - LR * (3 + DECAY * p),
        "2.0.bias": lambda p: p - 2 * LR * 3,
        "2.1.weight": lambda p: p - LR * 3,
        "2.1.bias": lambda p: p - LR * 3,
    }
    after = dict(model.named_parameters())
    assert after.keys() == expected.keys()
    for name, update in expected.items():
        torch.testing.assert_close(after[name].detach(), update(before[name]))


def test_the_optimisers_own_options_do_not_override_the_groups() -> None:
    groups = AdamW(parameter_groups(network(), LR, DECAY, bias_lr_factor=1.0), lr=9.0, weight_decay=9.0).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(LR, DECAY), (LR, 0.0), (LR, 0.0)]


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn32s_vgg16_bn", "fcn8s_alexnet"])
def test_every_trainable_parameter_of_a_network_is_there_once(name: str) -> None:
    model = fcnseg.create_model(name, num_classes=3, width=0.05)
    model.score_fr.weight.requires_grad = False
    listed = [id(parameter) for group in parameter_groups(model, LR, DECAY) for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert id(model.score_fr.weight) not in listed


def test_empty_groups_are_left_out() -> None:
    groups = parameter_groups(nn.Conv2d(3, 4, 3, bias=False), LR, DECAY)
    assert [group["weight_decay"] for group in groups] == [DECAY]


# Schedules


def test_constant_stays() -> None:
    assert rates(constant, 50, 0.1, 0.2) == [pytest.approx([0.1, 0.2])] * 51


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_follows_its_formula_down_to_zero(power: float) -> None:
    followed = rates(partial(poly, power=power), 40, 0.1, 0.2)
    for step, pair in enumerate(followed):
        factor = (1 - step / 40) ** power
        assert pair == pytest.approx([0.1 * factor, 0.2 * factor], abs=1e-12)
    assert followed[0] == [0.1, 0.2]
    assert followed[-1] == [0, 0]


def test_poly_has_the_power_of_deeplab() -> None:
    assert rates(poly, 10, 1.0)[5] == pytest.approx([0.5**0.9])


def half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.1), (40, 0.25), (1000, 0.3)])
def test_one_cycle_rises_and_falls_along_two_cosines(steps: int, warmup: float) -> None:
    """From 1/25 of the peak up to the peak, then down to 1/250000 of it, as in torch and fastai."""
    top, end = round(warmup * steps) - 1, steps - 1
    followed = rates(partial(one_cycle, warmup=warmup), steps, 0.1, 0.2)
    for step, pair in enumerate(followed[:steps]):
        rise, fall = step / top, (step - top) / (end - top)
        factor = half_cosine(1 / 25, 1, rise) if rise <= 1 else half_cosine(1, 1 / 250_000, fall)
        assert pair == pytest.approx([0.1 * factor, 0.2 * factor], rel=1e-6)
    assert followed[0] == pytest.approx([0.004, 0.008])
    assert followed[top] == pytest.approx([0.1, 0.2])
    assert followed[end] == pytest.approx([0.1 / 250_000, 0.2 / 250_000])


@pytest.mark.parametrize(
    ("make", "momentum"),
    [(lambda p: SGD(p, lr=0.1, momentum=0.9), lambda g: g["momentum"]), (AdamW, lambda g: g["betas"][0])],
    ids=["sgd", "adamw"],
)
def test_one_cycle_moves_the_momentum_the_other_way(
    make: Callable[..., Optimizer], momentum: Callable[[dict[str, Any]], float]
) -> None:
    steered = make([nn.Parameter(torch.zeros(1))])
    scheduler = one_cycle(steered, 100, warmup=0.1)
    followed = []
    for _ in range(100):
        followed.append(momentum(steered.param_groups[0]))
        steered.step()
        scheduler.step()
    assert followed[0] == pytest.approx(0.95)
    assert followed[9] == pytest.approx(0.85)
    assert followed[99] == pytest.approx(0.95)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_one_cycle_survives_short_runs(steps: int, warmup: float) -> None:
    """With 10 steps and a warm-up of a tenth, torch alone divides by zero."""
    followed = rates(partial(one_cycle, warmup=warmup), steps, 0.1)
    assert all(0 < rate <= 0.1 + 1e-12 for (rate,) in followed[:steps])
    if steps > 2:
        assert max(followed)[0] > 0.08
        assert followed[steps - 1][0] == pytest.approx(0.1 / 250_000)


@pytest.mark.parametrize(("rule", "expected"), [("none", 0.1), ("linear", 0.8), ("sqrt", 0.1 * math.sqrt(8))])
def test_the_rate_follows_the_batch_by_its_rule(rule: str, expected: float) -> None:
    assert scaled_rate(0.1, rule, batch_size=80, reference_batch=10) == pytest.approx(expected)
    assert scaled_rate(0.1, rule, batch_size=10, reference_batch=10) == 0.1


# Pretrained trunks


def test_the_trunk_learns_at_its_own_rate() -> None:
    """One step of SGD by hand: a tenth of the head's rates, and the head's decay."""
    model = fcnseg.create_model("fcn8s_vgg16_bn", num_classes=3, width=0.05)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    SGD(parameter_groups(model, LR, DECAY, backbone_lr_factor=0.1)).step()
    for name, parameter in model.named_parameters():
        start = before[name]
        rate = LR * (0.1 if name.startswith("backbone.") else 1)
        if parameter.dim() == 1:
            expected = start - rate * (1 if ".bn" in name else 2) * 3
        else:
            expected = start - rate * (3 + DECAY * start)
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_without_a_rate_of_its_own_the_trunk_is_in_the_heads_groups() -> None:
    """So that checkpoints of before there was a choice fit."""
    model = fcnseg.create_model("fcn8s_vgg16_bn", num_classes=3, width=0.05)
    assert [len(group["params"]) for group in parameter_groups(model, LR, DECAY)] == [18, 18, 26]
    divided = parameter_groups(model, LR, DECAY, backbone_lr_factor=0.0)
    assert [len(group["params"]) for group in divided] == [5, 5, 13, 13, 26]
    assert [group["lr"] for group in divided] == [LR, 2 * LR, 0, 0, 0]


@pytest.mark.parametrize("factor", [-0.1, math.inf, math.nan, True, "1", None])
def test_what_is_no_factor_is_refused(factor: Any) -> None:
    model = fcnseg.create_model("fcn32s_vgg16", num_classes=3, width=0.05)
    for name in ("bias_lr_factor", "backbone_lr_factor"):
        with pytest.raises(InputError, match=f"{name}={factor}: expected a number from 0 on"):
            SegmentationModule(model, **{name: factor})


def test_frozen_batch_norm_wants_some_and_nothing_separate() -> None:
    with pytest.raises(InputError, match="frozen_batch_norm=true: the network has no batch normalisation"):
        SegmentationModule(fcnseg.create_model("fcn32s_vgg16", num_classes=3, width=0.05), frozen_batch_norm=True)
    with pytest.raises(InputError, match="frozen_batch_norm=true: nothing is left for domain_statistics=separate"):
        SegmentationModule(
            fcnseg.create_model("fcn32s_vgg16_bn", num_classes=3, width=0.05),
            domain_statistics="separate",
            frozen_batch_norm=True,
        )


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.25), (40, 0.0), (7, 0.5)])
def test_cosine_is_torchs_after_a_linear_rise(steps: int, warmup: float) -> None:
    def torchs(steered: Optimizer, total: int) -> LRScheduler:
        rise = round(warmup * total)
        fall = CosineAnnealingLR(steered, total - rise)
        if not rise:
            return fall
        return SequentialLR(steered, [LinearLR(steered, 1 / (rise + 1), 1, rise), fall], [rise])

    followed, expected = rates(partial(cosine, warmup=warmup), steps, 0.1, 0.2), rates(torchs, steps, 0.1, 0.2)
    assert np.array(followed) == pytest.approx(np.array(expected), abs=1e-9)
    assert followed[-1] == [0, 0]
    assert rates(partial(cosine, warmup=warmup, least=0.1), steps, 0.1)[-1] == pytest.approx([0.01])


def test_cosine_goes_on_from_its_state_at_its_own_length_alone() -> None:
    steered = optimizer(0.1)
    whole = cosine(steered, 20)
    for _ in range(9):
        steered.step()
        whole.step()
    again = cosine(optimizer(0.1), 20)
    again.load_state_dict(whole.state_dict())
    again.optimizer.step()
    again.step()
    whole.step()
    assert again.get_last_lr() == whole.get_last_lr()
    with pytest.raises(InputError, match="a schedule over 20 steps, and over 30"):
        cosine(optimizer(0.1), 30).load_state_dict(whole.state_dict())
    with pytest.raises(InputError, match=r"scheduler\.warmup=1: expected a share"):
        cosine(optimizer(0.1), 20, warmup=1)
