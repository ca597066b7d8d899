"""An average over the weights of the last steps, which is validated and saved in the place of the weights."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.training.strategies import FullySharded

CURRENT = "current_state"
"""Where a checkpoint has the weights that are trained, beside their average in "state_dict"."""


class WeightAverage(Callback):
    """Keeps an exponential moving average of the weights, and puts it in their place wherever they are looked at.

    After each step of the optimiser, however many batches it took, average = decay average + (1 - decay) weights
    (Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992). Running means and variances of
    batch normalisation are averaged in the same way; counts are those of now. Validation, "best.ckpt", the scores at
    the end, and the stage that follows have the average. Checkpoints hold the weights as well, and a run that goes on
    from one is to the last bit the run that was never interrupted. Of several processes each has the same average.

    Lightning's own `EMAWeightAveraging` averages constants too, such as the mean of the images, which rounding then
    moves, and keeps the average of a network on a GPU in the host's memory.

    Args:
        decay: from 0 on and below 1, such as 0.999; None: no average.
        warmup: begin with a shorter memory, min(decay, (1 + n) / (10 + n)) after n updates, as TensorFlow's
            `ExponentialMovingAverage` does with `num_updates`: else the first weights weigh for 1 / (1 - decay) steps.

    Raises:
        InputError: for another decay; and when training starts, where each process has but a share of the weights.
    """

    def __init__(self, decay: float | None = None, warmup: bool = True) -> None:
        if decay is not None and not (isinstance(decay, int | float) and 0 <= decay < 1):
            raise InputError(f"callbacks.ema.decay={decay!r}: expected a number from 0 on and below 1, or null")
        self.decay, self.warmup = decay, warmup
        self.updates = 0
        self._average: dict[str, Tensor] = {}  # by the module's name for what is averaged
        self._restored: dict[str, Tensor] | None = None
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.decay is None:
            return
        _require_whole(trainer)
        self._average = {name: value.clone() for name, value in _averaged(pl_module).items()}
        for name, value in self._average.items():
            if self._restored is not None:
                value.copy_(self._restored[name])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.decay is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        current = _averaged(pl_module)
        torch._foreach_lerp_(list(self._average.values()), [current[name] for name in self._average], 1 - decay)
        self.updates += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._exchange(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._exchange(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average as the weights: after the last checkpoint, before the last scores."""
        self._exchange(pl_module)
        self._average = {}

    def state_dict(self) -> dict[str, Any]:
        return {} if self.decay is None else {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average:
            checkpoint[CURRENT] = checkpoint["state_dict"]
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the weights, also without an average; one that begins now begins with them."""
        if CURRENT in checkpoint:
            _require_whole(trainer)
            self._restored = checkpoint["state_dict"]
            pl_module.load_state_dict(checkpoint[CURRENT])

    @torch.no_grad()
    def _exchange(self, module: LightningModule) -> None:
        """Let the module have the average, and keep its weights meanwhile; or the other way round."""
        for name, current in _averaged(module).items() if self._average else ():
            kept = current.clone()
            current.copy_(self._average[name])
            self._average[name].copy_(kept)


def _require_whole(trainer: Trainer) -> None:
    if isinstance(trainer.strategy, FullySharded):
        raise InputError(
            "callbacks.ema: an average does not go with trainer=fsdp, whose processes have shares of the weights; "
            "expected trainer=ddp, or decay=null in a run from its beginning"
        )


def _averaged(module: LightningModule) -> dict[str, Tensor]:
    """What is averaged: the floats among the parameters and the buffers that checkpoints hold."""
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
