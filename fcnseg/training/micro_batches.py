"""A batch that is trained on in micro-batches, see `SegmentationData.device_batch_size`: its number and its weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from fcnseg.training.losses import SegmentationLoss
from fcnseg.training.processes import all_reduce_sum


def micro_batches(trainer: Trainer) -> int:
    """How many of Lightning's batches make one batch of the data, with a step of its own."""
    return getattr(getattr(trainer, "datamodule", None), "micro_batches", 1)


def batch_number(trainer: Trainer) -> int:
    """Which batch of the data is trained on, counted from the start of training."""
    return trainer.fit_loop.total_batch_idx // micro_batches(trainer)


@dataclass(frozen=True)
class Whole:
    """What the means over a whole batch are divided by: sums over all processes and micro-batches.

    Attributes:
        weight: scalar.
        of_domains: (domains,) that of each domain.
    """

    weight: Tensor
    of_domains: Tensor


def weigh(criterion: SegmentationLoss, masks: Sequence[Tensor], domains: Sequence[Tensor]) -> Whole:
    """Weigh a batch by all of its (N, H, W) masks and (N,) domains, those of each micro-batch of this process.

    Every process must call this.
    """
    weights = torch.cat([criterion.weight_per_sample(mask.long()) for mask in masks])
    return Whole(all_reduce_sum(weights.sum()), criterion.weight_of_domains(weights.double(), torch.cat(list(domains))))


def recount(checkpoint: dict[str, Any], now: int) -> None:
    """Let a checkpoint count in micro-batches of which `now` make a batch, and not those that it was written with.

    So a run goes on with another number of processes, or another limit on what each takes at once. A batch that was
    not finished begins anew.
    """
    then = checkpoint.get("micro_batches", 1)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counter in (progress["total"], progress["current"]) if then != 1 or now != 1 else ():
        behind = counter["processed"] - counter["completed"]  # 1 where it was written at the end of a micro-batch
        count = counter["ready"] // then * now
        counter.update(ready=count, started=count, processed=count, completed=count - behind)
