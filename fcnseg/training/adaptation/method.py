"""What a method of adaptation does to a step of a training."""

from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.models import FCN
from fcnseg.training.losses import PixelLoss, SegmentationLoss
from fcnseg.training.strategies import FullySharded


class Adaptation(nn.Module, ABC):
    """A method that has a part in each step. What it keeps as a module is in every checkpoint.

    The same on any number of processes: what it draws comes from the samples' own numbers, and sums are over all.
    """

    def begin(self, model: FCN) -> None:
        """Take the network that will be trained, before anything is loaded into either."""

    def prepare(self, batch: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
        """The batch that is trained on, on its device: with other images or masks, or a "pixel_weight" (N, H, W).

        Args:
            batch: as it was loaded, see `fcnseg.data.targets`.
            seeds: one for each sample, which nothing else uses.
        """
        return batch

    def loss(self, logits: Tensor, batch: dict[str, Any]) -> Tensor | None:
        """What this process's samples add to a loss that is summed over all of them: a scalar, or None.

        Args:
            logits: (N, C, H, W), of the prepared batch.
            batch: the prepared batch.
        """
        return None

    def after_step(self, model: FCN, steps: int) -> None:
        """Follow the network, of which so many steps of the optimiser are done."""


def weighed(criterion: SegmentationLoss, weight: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss's `per_sample`, of pixels with an (N, H, W) weight each if there is one."""
    if weight is None:
        return criterion.per_sample
    assert isinstance(criterion, PixelLoss)
    return lambda logits, mask: (criterion.per_pixel(logits, mask) * weight).sum((1, 2))


def require_pixels(criterion: nn.Module) -> None:
    """Refuse a loss that an adaptation cannot weigh the pixels of.

    Raises:
        InputError: for another loss than a mean over pixels.
    """
    if not isinstance(criterion, PixelLoss) or criterion.reduction != "mean":
        raise InputError("adaptation: weighs the pixels of a mean; expected loss=cross_entropy, focal or ohem")


def require_whole(trainer: Trainer) -> None:
    """Refuse a trainer that an adaptation would be wrong with.

    Raises:
        InputError: for gradients of several batches, or divided weights.
    """
    if trainer.accumulate_grad_batches > 1:
        raise InputError(
            f"adaptation: does not go with gradients of {trainer.accumulate_grad_batches} batches; expected "
            "trainer.accumulate_grad_batches=1 and no data.device_batch_size"
        )
    if isinstance(trainer.strategy, FullySharded):
        raise InputError("adaptation: does not go with trainer=fsdp, which divides the weights; expected trainer=ddp")
