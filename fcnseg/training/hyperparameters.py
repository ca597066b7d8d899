"""The settings of a training beside its scores, for loggers that compare runs by them."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fcnseg.training.loggers import Recipients, send_final, send_settings

SCORES = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")


class Hyperparameters(Callback):
    """Sends settings when training begins, and to TensorBoard, with the last validation's scores, when it ends.

    The scores are called "final/mean_iou" and so on: "val/mean_iou" is a curve. A logger that fails is told of in one
    line.

    Args:
        settings: by their names; strings, numbers, truth values or None.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        self._to = Recipients((), "settings")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._to = Recipients(trainer.loggers if trainer.is_global_zero else (), "settings")
        self._to.each(lambda logger: send_settings(logger, self.settings))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores: Any = getattr(pl_module, "last_scores", None)
        if scores is not None:
            final = {f"final/{name}": float(getattr(scores, name)) for name in SCORES}
            self._to.each(lambda logger: send_final(logger, self.settings, final, trainer.global_step))
