"""Images mixed of two domains by class, and a teacher that labels the one without labels."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models import FCN
from fcnseg.training.adaptation.method import Adaptation


class ClassMix(Adaptation):
    """Pastes half of a sample's classes onto its target, whose labels are the predictions of a teacher.

    With labelled samples this is Tranheden et al., "DACS" (WACV 2021); with samples that have no labelled pixel, for
    which the teacher's predictions stand in, Olsson et al., "ClassMix" (WACV 2021). The teacher is a mean of the
    weights of all steps (Tarvainen and Valpola, NIPS 2017). Pixels of the target count in the loss by the share of its
    pixels of which the teacher is confident; the papers take that share over a batch, here it is each image's own,
    which does not depend on the processes. Colours change with the augmentation of sample and target, not after mixing.

    Args:
        decay: of the teacher: after step n it keeps min(1 - 1 / n, decay) of itself; from 0 on and below 1.
        confidence: probability from which on the teacher is confident, from 0 to 1.

    Raises:
        InputError: when a value is out of range.
    """

    teacher: FCN

    def __init__(self, decay: float = 0.99, confidence: float = 0.968) -> None:
        super().__init__()
        if not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise InputError(f"decay={decay!r}: expected a number from 0 on and below 1")
        if not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
            raise InputError(f"confidence={confidence!r}: expected a number from 0 to 1")
        self.decay, self.confidence = decay, confidence

    def begin(self, model: FCN) -> None:
        self.teacher = deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def prepare(self, batch: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
        images, masks = batch["image"].clone(), batch["mask"].clone()
        weights = torch.ones(masks.shape, device=masks.device)
        batch = {**batch, "image": images, "mask": masks, "pixel_weight": weights}
        if "target" not in batch:
            return batch
        places, targets = batch["target_of"], batch["target"]
        own = images[places]
        labels, share = self._labels(targets, batch["target_mask"])
        given = masks[places]
        if (without := (given == IGNORE_INDEX).flatten(1).all(1)).any():
            given[without] = self._labels(own[without], torch.zeros_like(given[without]))[0]
        chosen = torch.stack([_half(mask, seeds[place]) for mask, place in zip(given, places.tolist(), strict=True)])
        images[places] = torch.where(chosen[:, None], own, targets)
        masks[places] = torch.where(chosen, given, labels)
        weights[places] = torch.where(chosen, 1.0, share[:, None, None])
        return batch

    def after_step(self, model: FCN, steps: int) -> None:
        kept = min(1 - 1 / steps, self.decay)
        teachers, students = ([each.detach() for each in network.parameters()] for network in (self.teacher, model))
        with torch.no_grad():
            torch._foreach_lerp_(teachers, students, 1 - kept)
            for teacher, student in zip(self.teacher.buffers(), model.buffers(), strict=True):
                teacher.copy_(student)

    def train(self, mode: bool = True) -> Self:
        """The teacher stays in evaluation mode: no dropout, and the statistics that it has."""
        super().train(mode)
        if "teacher" in self._modules:
            self.teacher.eval()
        return self

    def _labels(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W) predicted classes, ignored in padding, and (N,) the share of pixels that are confident."""
        most, labels = self.teacher.logits(images).float().softmax(1).max(1)
        inside = known != IGNORE_INDEX
        confident = ((most >= self.confidence) & inside).flatten(1).sum(1)
        return labels.masked_fill(~inside, IGNORE_INDEX), confident / inside.flatten(1).sum(1).clamp(min=1)


def _half(mask: Tensor, seed: int) -> Tensor:
    """(H, W) bool: the pixels of half of a mask's classes, rounded up, by chance."""
    classes = mask.unique()
    classes = classes[classes != IGNORE_INDEX].cpu().numpy()
    taken = np.random.default_rng(seed).permutation(classes)[: -(-len(classes) // 2)]
    return torch.isin(mask, torch.from_numpy(taken).to(mask.device))
