"""How the domains' gradients compare: what balanced gradient contribution balances."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.training.losses import SegmentationLoss
from fcnseg.training.processes import all_reduce_sum


class GradientMonitor(Callback):
    """Logs the norm of each domain's gradient, and the cosine between those of each two domains.

    A domain's gradient is that of the mean over its labelled pixels in the batch, or in its first micro-batch, without
    weights of domains, for the parameters that are trained together: "gradient/norm_NAME" and
    "gradient/cosine_NAME_OTHER". The cosine is 0 where a domain has no gradient. It takes a forward pass and a backward
    pass for each domain, and memory for a gradient of each. Training is as without it, to the last bit: batch
    normalisation's statistics, the random state and the gradients are left as they are.

    With `trainer.precision=16-mixed` small gradients are lost, since they are not scaled.

    Args:
        every_n_steps: steps of the optimiser from one measurement to the next, the first before the first step;
            None: no measurement.

    Raises:
        InputError: when the number of steps is not one.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise InputError(
                f"callbacks.gradients.every_n_steps={every_n_steps!r}: expected a whole number from 1 on, or null"
            )
        self.every_n_steps = every_n_steps

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = pl_module.loss
        if self.every_n_steps and not (isinstance(loss, SegmentationLoss) and len(loss.domains) > 1):
            raise InputError("callbacks.gradients: compares domains; expected a loss and data of two or more")
        if self.every_n_steps and getattr(pl_module, "adaptation", None) is not None:
            raise InputError("callbacks.gradients: knows nothing of adaptation=; expected one of the two")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        first = batch_idx % trainer.accumulate_grad_batches == 0
        if self.every_n_steps and first and trainer.global_step % self.every_n_steps == 0:
            measured = self.measure(trainer, pl_module, batch, batch_idx)
            trainer.callback_metrics.update(measured)
            for logger in trainer.loggers:
                logger.log_metrics({name: float(value) for name, value in measured.items()}, trainer.global_step)

    def measure(self, trainer: Trainer, module: Any, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Norms and cosines on a batch of every process; on all processes they are the same."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        loss: Any = module.loss
        with _untouched(module):
            module.on_train_batch_start(batch, batch_idx)  # drop what the step will drop
            with trainer.precision_plugin.train_step_context():
                parts = loss.per_domain_means(module.training_logits(batch), batch["mask"], batch["domain"])
            gradients = [_gradient(part, parameters) for part in parts]
        norms = [gradient.norm() for gradient in gradients]
        result = {f"gradient/norm_{name}": norm for name, norm in zip(loss.domains, norms, strict=True)}
        for (i, one), (j, other) in combinations(enumerate(loss.domains), 2):
            cosine = gradients[i] @ gradients[j] / (norms[i] * norms[j]).clamp(min=1e-30)
            result[f"gradient/cosine_{one}_{other}"] = cosine
        return result


def _gradient(part: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The gradient over all processes as one vector, without a trace in the parameters' own."""
    found = torch.autograd.grad(part, parameters, retain_graph=True, materialize_grads=True)
    return all_reduce_sum(torch.cat([gradient.float().flatten() for gradient in found]))


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Leave the random state and all buffers as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    device = next(module.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
