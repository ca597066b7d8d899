"""Computing a part of a trunk a second time in the backward pass, instead of keeping what it computed in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise training batches without a trace in the running statistics."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, batches


def recomputed(part: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """What the part makes of x; with gradients it is made again in the backward pass (Chen et al., arXiv 1604.06174).

    Args:
        module: whose batch normalisation the part uses; its running statistics see the batch once.
    """
    if not torch.is_grad_enabled():
        return part(x)
    # Modes of the forward pass, such as that which synchronises statistics, are over when the backward pass comes.
    contexts = partial(_contexts, module, _get_current_function_mode_stack())
    return checkpoint(part, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(
    module: nn.Module, modes: Sequence[TorchFunctionMode]
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _again(module, modes)


@contextmanager
def _again(module: nn.Module, modes: Sequence[TorchFunctionMode]) -> Iterator[None]:
    with frozen_statistics(module), ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield
