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
    normalised, mean, variance, count = _Normalise.apply(input, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * count / (count - 1).clamp(min=1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = (1, -1, *(1,) * (input.dim() - 2))
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) per channel over all processes (Ioffe and Szegedy 2015, section 3)."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = input.double() if input.dtype == torch.float64 else input.float()
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
        count = values.new_tensor([input.numel() / input.shape[1]])
        first = all_reduce_sum(torch.cat([values.sum(axes), count]))
        count = first[-1:]
        mean = first[:-1] / count
        centred = values - mean.view(shape)
        variance = all_reduce_sum(centred.square().sum(axes)) / count
        scale = (variance + eps).rsqrt()
        normalised = centred * scale.view(shape)
        ctx.save_for_backward(normalised, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.axes, ctx.shape, ctx.dtype = axes, shape, input.dtype
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        normalised, scale, count = ctx.saved_tensors
        gradient = gradient.to(normalised.dtype)
        sums = torch.cat([gradient.sum(ctx.axes), (gradient * normalised).sum(ctx.axes)])
        of_gradient, of_both = (part.view(ctx.shape) for part in (all_reduce_sum(sums) / count).chunk(2))
        result = (gradient - of_gradient - normalised * of_both) * scale.view(ctx.shape)
        return result.to(ctx.dtype), None
