"""What happens when a step's loss or gradients are nan or infinite: training stops, or passes over the step."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.training.micro_batches import batch_number
from fcnseg.training.processes import all_reduce_sum, gathered

ACTIONS = ("stop", "skip")


class NonFiniteGuard(Callback):
    """Looks at every step's loss and gradients before the optimiser takes them.

    "stop" ends the training with a line that names the step and its samples; the checkpoints stay those of before.
    "skip" leaves weights, the optimiser's state and normalisation statistics as they were, and goes on with the next
    batch. Either way the batch is kept, `step_N.npz` with images, masks, domains and names, to be looked at.

    In "16-mixed" infinite gradients are no mistake: the loss is scaled by a factor that is lowered when they occur.
    There the loss alone is looked at.

    Args:
        action: "stop" or "skip".
        dirpath: the folder for batches.
        most: with "skip", how many steps in a row may be passed over before training stops.

    Raises:
        InputError: for another action or number; and when training stops.
    """

    def __init__(self, action: str = "stop", dirpath: str | Path = "nonfinite", most: int = 20) -> None:
        if action not in ACTIONS:
            raise InputError(f"on_nonfinite={action!r}: expected {' or '.join(ACTIONS)}")
        if not isinstance(most, int) or most < 1:
            raise InputError(f"callbacks.nonfinite.most={most!r}: expected a whole number from 1 on")
        self.action, self.folder, self.most = action, Path(dirpath), most
        self.skipped = 0
        self._row = 0
        self._batches: list[dict[str, Any]] = []
        self._loss: Tensor | None = None
        self._statistics: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches, self._loss = [], None
            if self.action == "skip":
                self._statistics = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        self._batches.append(batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        found = self._strange(trainer, pl_module)
        if found is None:
            self._row = 0
            return
        self.skipped += 1
        self._row += 1
        step = batch_number(trainer)
        names = gathered([name for batch in self._batches for name in batch.get("name", ())])
        self._keep(step, trainer.global_rank)
        samples = f" of {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else ""
        about, kept = f"step {step}: {found}{samples}", f"kept in {self.folder}"
        if self.action == "stop":
            raise InputError(
                f"{about} ({kept}); a lower optimizer.lr or trainer.gradient_clip_val may help, "
                "on_nonfinite=skip goes on"
            )
        if self._row > self.most:
            raise InputError(f"{about} ({kept}), as in the {self.most} steps before it; a lower optimizer.lr may help")
        for parameter in pl_module.parameters():
            parameter.grad = None  # so that the optimiser changes neither it nor its state
        for buffer, before in self._statistics:
            buffer.copy_(before)
        if trainer.is_global_zero:
            print(f"skipped     {about} ({kept})")

    def _strange(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        """What is not finite, on any process."""
        assert self._loss is not None
        values = [self._loss.float()]
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            gradients = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]  # a process's own share
            values.append(torch.stack([n.float() for n in torch._foreach_norm(gradients)]).sum())
        bad = all_reduce_sum((~torch.stack([v.reshape(()) for v in values]).isfinite()).float()).tolist()
        return "non-finite loss" if bad[0] else "non-finite gradients" if any(bad) else None

    def _keep(self, step: int, rank: int) -> None:
        arrays: dict[str, np.ndarray] = {}
        for number, batch in enumerate(self._batches):
            for key, value in ((key, value) for key, value in batch.items() if key != "whole"):
                name = key if len(self._batches) == 1 else f"{key}_{number}"
                arrays[name] = value.cpu().numpy() if isinstance(value, Tensor) else np.array(value)
        path = self.folder / (f"step_{step}.npz" if rank == 0 else f"step_{step}_rank_{rank}.npz")
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
