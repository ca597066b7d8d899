"""Parameter groups and learning-rate schedules."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, PolynomialLR, StepLR

from fcnseg.errors import InputError

LR_RULES = ("none", "linear", "sqrt")


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, bias_lr_factor: float = 2.0, backbone_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Split parameters as the reference does: biases learn at twice the rate and do not decay.

    Weights are those of convolutions and linear layers. Scales and shifts of normalisation layers, and whatever else a
    trunk may have, do not decay either, but learn at the plain rate.

    Args:
        lr: rate of the head's weights.
        bias_lr_factor: rate of biases, relative to their weights'.
        backbone_lr_factor: rates of all that is in `model.backbone`, relative to the head's (discriminative rates,
            Howard and Ruder, ACL 2018, section 3.2). With 1, head and trunk share their groups; else the head's come
            first.
    """
    found: dict[tuple[float, str], list[nn.Parameter]] = {}
    for path, module in model.named_modules():
        factor = backbone_lr_factor if path.partition(".")[0] == "backbone" else 1.0
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                layer = isinstance(module, nn.Conv2d | nn.Linear)
                kind = "norms" if not layer else "biases" if name == "bias" else "weights"
                found.setdefault((factor, kind), []).append(parameter)
    options = {
        "weights": {"lr": lr, "weight_decay": weight_decay},
        "biases": {"lr": lr * bias_lr_factor, "weight_decay": 0.0},
        "norms": {"lr": lr, "weight_decay": 0.0},
    }
    return [
        {"params": found[factor, kind], "lr": group["lr"] * factor, "weight_decay": group["weight_decay"]}
        for factor in dict.fromkeys((1.0, backbone_lr_factor))
        for kind, group in options.items()
        if (factor, kind) in found
    ]


def require_factor(name: str, value: Any) -> None:
    """
    Raises:
        InputError: for anything but a finite number from 0 on.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"{name}={value}: expected a number from 0 on")


def freeze_batch_norm(model: nn.Module) -> list[nn.Module]:
    """Take the scales and shifts of batch normalisation out of the training; the layers, for `eval` before each batch.

    Raises:
        InputError: where there are none.
    """
    layers: list[nn.Module] = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        raise InputError("frozen_batch_norm=true: the network has no batch normalisation; expected false")
    for layer in layers:
        layer.requires_grad_(False)
    return layers


def scaled_rate(lr: float, rule: str, batch_size: int, reference_batch: int) -> float:
    """The learning rate for batches of another size than the one that a rate was found with.

    Where losses are means, a step of k times the batch is an average over k times the samples. "linear" makes it k
    times as long, that of k small steps, to go as far in an epoch (Goyal et al., "Accurate, large minibatch SGD",
    arXiv 1706.02677, section 2.1, who warm the rate up; `scheduler=one_cycle` does). "sqrt" keeps the variance of a
    step's noise (Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997,
    who found the linear rule the better one); "none" leaves the rate.

    Raises:
        InputError: for another rule, or a size below 1.
    """
    if rule not in LR_RULES:
        raise InputError(f"lr_rule={rule}: expected one of {', '.join(LR_RULES)}")
    if not isinstance(reference_batch, int) or reference_batch < 1:
        raise InputError(f"lr_reference_batch={reference_batch}: expected a whole number from 1 on")
    ratio = batch_size / reference_batch
    return lr if rule == "none" else lr * (ratio if rule == "linear" else math.sqrt(ratio))


def default_of(optimizer: Callable[..., Optimizer], option: str, otherwise: float) -> float:
    """The value of an option that an optimiser's class, function or partial is called with."""
    parameter = inspect.signature(optimizer).parameters.get(option)
    return otherwise if parameter is None or parameter.default is parameter.empty else float(parameter.default)


class _OfOneLength:
    """A schedule that goes on from a checkpoint of a training of its own length alone.

    Those of torch take the length of the interrupted training over, so that one which was to be longer ends in an
    error, or learns nothing at a rate of zero.
    """

    length: str

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        then, now = state_dict.get(self.length), getattr(self, self.length)
        if then is not None and then != now:
            raise InputError(
                f"resume: the learning rate follows a schedule over {then} steps, and over {now} in this run; expected "
                "the same trainer.max_epochs and max_steps (model.weights=CHECKPOINT begins anew from the weights)"
            )
        super().load_state_dict(state_dict)  # type: ignore[misc]


class _Poly(_OfOneLength, PolynomialLR):
    length = "total_iters"


class _Step(_OfOneLength, StepLR):
    length = "step_size"


class _OneCycle(_OfOneLength, OneCycleLR):
    length = "total_steps"


class _Cosine(_OfOneLength, LambdaLR):
    length = "total_steps"

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float, least: float) -> None:
        self.total_steps, self.rise, self.least = total_steps, round(warmup * total_steps), least
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / (self.rise + 1)
        share = (step - self.rise) / max(1, self.total_steps - self.rise)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """A fixed learning rate, as the reference trains."""
    return PolynomialLR(optimizer, total_iters=total_steps, power=0.0)


def poly(optimizer: Optimizer, total_steps: int, power: float = 0.9) -> LRScheduler:
    """The learning rate falls to zero as (1 - step / total_steps) ** power."""
    return _Poly(optimizer, total_iters=total_steps, power=power)


def step(optimizer: Optimizer, total_steps: int, every: float = 0.33, factor: float = 0.1) -> LRScheduler:
    """Multiply the learning rate by `factor` after each share `every` of all steps, as DIGITS does by default."""
    return _Step(optimizer, max(1, round(every * total_steps)), factor)


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, **options: Any) -> LRScheduler:
    """Rise to each group's learning rate over the share `warmup` of all steps, then fall to near zero.

    Smith and Topin, "Super-convergence" (2017); momentum cycles the other way.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    # A rise needs two steps: OneCycleLR divides by zero where the warm-up is exactly one step long.
    rise = warmup if warmup * total_steps > 1 else 0.0
    return _OneCycle(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=rise, **options)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, least: float = 0.0) -> LRScheduler:
    """Rise in equal steps over the share `warmup` of all steps, then fall along half a cosine to `least` of the rate.

    Loshchilov and Hutter, "SGDR" (ICLR 2017) without restarts, after the warm-up of Goyal et al. (arXiv 1706.02677).

    Raises:
        InputError: for a share that is none.
    """
    for name, value in (("warmup", warmup), ("least", least)):
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(f"scheduler.{name}={value!r}: expected a share from 0 on and below 1")
    return _Cosine(optimizer, total_steps, warmup, least)
