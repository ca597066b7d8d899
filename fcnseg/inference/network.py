"""What the predictor runs: a network in PyTorch, or an exported one in its own runtime."""

from typing import Protocol

import torch
from torch import Tensor

from fcnseg.models.spec import ModelSpec


class Network(Protocol):
    """Scores images; `FCN` and exported files do."""

    spec: ModelSpec

    @property
    def device(self) -> torch.device:
        """Where images are to be."""

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, h, w) images in the values of their files to (N, num_classes, h, w) float logits."""

    def tiling(self) -> dict[str, int] | None:
        """In which tiles an image can be computed, as `FCN.tiling`; None where it cannot be."""
