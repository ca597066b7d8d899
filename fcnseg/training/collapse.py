"""A warning where a network takes nearly every pixel for one class, the oldest failure of this workflow."""

import sys
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from fcnseg.errors import InputError
from fcnseg.evaluation.metrics import as_counts

CHECK = (
    "check that masks hold class indices in the order of the classes (fcnseg data inspect), then a lower optimizer.lr, "
    "loss.class_weights=sqrt_median_frequency, and model.weights"
)


class CollapseWarning(Callback):
    """Says in one line, on the standard error, when validation finds one class in over `share` of the predictions.

    It is said once, and again when it has been otherwise in between; where as many labels are of that class there is
    nothing to say. "val/largest_share" is logged in every validation. The first step's scores may well be so: score
    layers begin at zero, and Lightning's sanity check is not looked at.

    Args:
        share: above 0 and below 1; None: no warning.

    Raises:
        InputError: for another share.
    """

    def __init__(self, share: float | None = 0.99) -> None:
        if share is not None and not (isinstance(share, int | float) and 0 < share < 1):
            raise InputError(f"callbacks.collapse.share={share!r}: expected a number above 0 and below 1, or null")
        self.share = share
        self.collapsed_to: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        evaluation: Any = getattr(pl_module, "last_evaluation", None)
        if self.share is None or trainer.sanity_checking or evaluation is None:
            return
        before, self.collapsed_to = self.collapsed_to, collapsed_to(evaluation.confusion, self.share)
        if self.collapsed_to is not None and self.collapsed_to != before and trainer.is_global_zero:
            name = class_name(pl_module, self.collapsed_to)
            found = f"{100 * largest_share(evaluation.confusion):.1f} % of the predictions are {name}"
            print(f"collapsed   step {trainer.global_step}: {found}; {CHECK}", file=sys.stderr, flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.collapsed_to is None else {"collapsed_to": self.collapsed_to}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.collapsed_to = state_dict["collapsed_to"]


def class_name(module: Any, index: int) -> str:
    """The name of a class of the module's network, or its number."""
    space = module.model.spec.label_space
    return str(space["classes"][index]) if space else f"class {index}"


def largest_share(confusion: torch.Tensor | np.ndarray) -> float:
    """The share of the class that most pixels are predicted as, of a (C, C) confusion matrix; 0 without any pixel."""
    predicted = as_counts(confusion).sum(axis=0)
    return float(predicted.max() / max(1.0, predicted.sum()))


def collapsed_to(confusion: torch.Tensor | np.ndarray, share: float = 0.99) -> int | None:
    """The class of more than a share of the predictions and of no such share of the labels; None: there is none.

    Args:
        confusion: (C, C) pixel counts, rows = labels, columns = predictions.
        share: from 0 to 1.
    """
    counts = as_counts(confusion)
    most = int(counts.sum(axis=0).argmax())
    one_class = largest_share(counts) > share and counts[most].sum() <= share * counts.sum()
    return most if one_class else None
