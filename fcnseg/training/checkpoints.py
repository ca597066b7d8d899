"""Writing checkpoints so that a full disk or a killed job cannot damage one."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fcnseg.atomic import replacing
from fcnseg.errors import InputError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its target and then renames it.

    Lightning's own writer collects the file in the system's temporary folder and moves it; where that is
    another disk the move is a copy, and a full disk leaves half a checkpoint under the final name.
    """

    def __init__(self) -> None:
        super().__init__()
        self._homes: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store, which has transactions of its own
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        require_finite(checkpoint, path)
        home = Path(path).absolute().parent
        if home in self._homes and not home.is_dir():  # made again, it would lie on whatever disk is there instead
            raise InputError(f"{path}: not written, since the folder is gone that checkpoints were written to")
        content = io.BytesIO()  # in memory first: torch's file writer reports a full disk as an internal error
        torch.save(checkpoint, content)
        with replacing(str(path), durable=True) as temporary:
            temporary.write_bytes(content.getbuffer())
        self._homes.add(home)


def require_finite(checkpoint: dict[str, Any], path: _PATH) -> None:
    """Refuse to write weights of nan or infinity over good ones.

    Raises:
        InputError: naming the weights.
    """
    for name, value in checkpoint.get("state_dict", {}).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: not written, since {name} is not finite; a lower optimizer.lr may help")


class LastCheckpoint(ModelCheckpoint):
    """A checkpoint to go on from: at the end of every epoch and, with `every_n_train_steps`, within it.

    Lightning's own does one or the other. Within an epoch it is written after a step of the optimiser alone, since
    gradients that accumulate are in no checkpoint. The last batch is left to the end of the epoch: between the two
    the epoch's validation is outstanding, and a resumed run would leave it out.

    Args:
        every_n_train_steps: steps of the optimiser; None: at the end of epochs only.
        options: those of `ModelCheckpoint`.

    Raises:
        InputError: when the number of steps is not one.
    """

    def __init__(self, *, every_n_train_steps: int | None = None, **options: Any) -> None:
        steps = every_n_train_steps
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise InputError(
                f"callbacks.last.every_n_train_steps={steps!r}: expected a whole number from 1 on, or null"
            )
        super().__init__(**options, every_n_epochs=1, save_on_train_epoch_end=True)
        self.steps = steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.steps and trainer.global_step % self.steps == 0 and self.at_rest(trainer, batch_idx):
            self.save(trainer)

    def at_rest(self, trainer: Trainer, batch_idx: int) -> bool:
        """Whether after this batch a checkpoint holds all that there is to go on with, and none is written anyway."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        return stepped and not trainer.is_last_batch

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint now."""
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
