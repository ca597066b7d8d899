"""The progress bar of training, which does not hold up a GPU."""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from fcnseg.silence import is_silent

LOSS = "train/loss"


class ProgressBar(RichProgressBar):
    """Lightning's, but the loss in it is read every so often instead of after each batch.

    To read a value is to wait until the GPU has computed it, while it could be given the next batch. Lightning itself
    reads in each step whatever is logged for a progress bar.

    Args:
        seconds: from one reading to the next; at the ends of epochs and validations it is read as well.
        options: those of `RichProgressBar`.
    """

    def __init__(self, seconds: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self._shown: dict[str, Any] = {}
        self._due = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if is_silent():  # in notebooks a bar does not go where the standard output does
            self.disable()
        super().setup(trainer, pl_module, stage)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        if time.monotonic() >= self._due:
            loss = {key: value for key, value in trainer.callback_metrics.items() if key == LOSS}
            self._shown = {key: float(value) for key, value in loss.items()} | super().get_metrics(trainer, pl_module)
            self._due = time.monotonic() + self.seconds
        return self._shown

    def _get_train_description(self, current_epoch: int) -> str:
        """Epochs from 1 on, where Lightning's begin at 0; as long as the other bars' text."""
        epochs = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs is not None and epochs > 0 else "")
        return text.ljust(len(self.validation_description))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._due = 0.0
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._due = 0.0
        super().on_validation_end(trainer, pl_module)
