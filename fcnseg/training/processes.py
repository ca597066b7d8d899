"""What makes a training on several processes the training of one: sums over all of them, in the forward pass too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


def count_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all training processes, in the place of the values; no gradient goes through it."""
    if count_processes() > 1:
        dist.all_reduce(values)
    return values


def all_reduce_max(values: Tensor) -> Tensor:
    """The greatest of all training processes, in the place of the values."""
    if count_processes() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def gathered(items: list[T]) -> list[T]:
    """The items of all training processes, one process's after the other's; every process must call this."""
    if count_processes() == 1:
        return items
    lists: list[Any] = [None] * count_processes()
    dist.all_gather_object(lists, items)
    return [item for one in lists for item in one]


@contextmanager
def synchronised_statistics() -> Iterator[None]:
    """Within the block batch normalisation takes mean and variance over the batches of all processes together.

    It holds for whatever calls `torch.nn.functional.batch_norm` in training mode, timm's layers among them, on any
    device. Processes may hold different numbers of samples, each at least one. Every process must make the same calls,
    and those of the backward pass, in the same order.
    """
    if count_processes() == 1:
        yield
        return
    with _SynchronisedMoments():
        yield


class _SynchronisedMoments(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return batch_norm(*args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, in training mode with the moments of all processes' batches (N, C, ...)."""
    if not training:
        with torch._C.DisableTorchFunction():
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    result, mean, variance, count = _Normalise.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * count / (count - 1).clamp(min=1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return result


class _Normalise(torch.autograd.Function):
    """weight (x - mean) / sqrt(variance + eps) + bias per channel, with the moments of all processes.

    Ioffe and Szegedy 2015, section 3. Each pass over the values is one of torch's own kernels.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = input.double() if input.dtype == torch.float64 else input.float()
        mean, variance, count = _moments(values)
        with torch._C.DisableTorchFunction():
            result = F.batch_norm(values, mean, variance, _like(weight, values), _like(bias, values), False, 0.0, eps)
        ctx.save_for_backward(input, weight, mean, variance, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.eps, ctx.dtype = eps, input.dtype if weight is None else weight.dtype
        return result.to(input.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        input, weight, mean, variance, count = ctx.saved_tensors
        values, gradient = input.to(mean.dtype), gradient.to(mean.dtype)
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, torch.ones_like(mean), mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = all_reduce_sum(torch.cat([of_bias, of_weight])) / count
        scale = (variance + ctx.eps).rsqrt() * (1 if weight is None else weight.to(mean.dtype))
        for_mean, for_variance = (-scale * part for part in sums.chunk(2))
        with torch._C.DisableTorchFunction():
            result = F.batch_norm(values, mean, variance, for_variance, for_mean, False, 0.0, ctx.eps)
        result.addcmul_(gradient, scale.view(-1, *(1,) * (input.dim() - 2)))
        _, weighed, shifted, _ = ctx.needs_input_grad
        of_own = of_weight.to(ctx.dtype) if weighed else None, of_bias.to(ctx.dtype) if shifted else None
        return result.to(input.dtype), *of_own, None


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) of (N, C, ...) over all processes, and how many values of a channel they have (1,).

    Variances are combined by Chan, Golub and LeVeque's formula ("Algorithms for computing the sample variance", 1983).
    """
    if values.device.type == "cpu":  # where var_mean is slow
        mean, variance = torch.batch_norm_update_stats(values, None, None, 0.0)
    else:
        variance, mean = torch.var_mean(values, [axis for axis in range(values.dim()) if axis != 1], correction=0)
    number = values.numel() / values.shape[1]
    sums = all_reduce_sum(torch.cat([mean * number, mean.new_tensor([number])]))
    count = sums[-1:]
    whole = sums[:-1] / count
    return whole, all_reduce_sum((variance + (mean - whole).square()) * number) / count, count


def _like(parameter: Tensor | None, values: Tensor) -> Tensor | None:
    return None if parameter is None else parameter.to(values.dtype)
