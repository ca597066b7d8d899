"""What the predictor gives for an image."""

from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fcnseg.atomic import replacing
from fcnseg.inference.averaging import entropy
from fcnseg.inference.overlay import add_legend, blend, save_mask
from fcnseg.labels import LabelSpace
from fcnseg.views import percent, shrunk

OVERLAY_COMPRESSION = 1
"""zlib's level: overlays, which are photographs, take 1.3 times the space of level 6 and a third of the time."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image with its predicted mask.

    Attributes:
        image: (H, W, 3) uint8; as `fcnseg.data.display.displayable` shows images of other kinds.
        mask: (H, W) uint8 class indices, in the image's own size.
        label_space: names and colours of the classes.
        probabilities: (classes, H, W) float32, where they were asked for.
        source: the image's file, where it came from one.
    """

    image: np.ndarray
    mask: np.ndarray
    label_space: LabelSpace
    probabilities: np.ndarray | None = field(default=None, repr=False)
    source: Path | None = None

    @property
    def entropy(self) -> np.ndarray | None:
        """(H, W) float32 of the probabilities, from 0 where the network is sure to 1 where all classes are equal."""
        if self.probabilities is None:
            return None
        return entropy(torch.from_numpy(self.probabilities)[None])[0].numpy()

    def overlay(self, opacity: float = 0.5, legend: bool = False, outline: bool = True) -> Image.Image:
        """The image under the classes' colours, each outlined; opacity 0 to 1, with a legend below on request."""
        picture = blend(self.image, self.mask, self.label_space, opacity, outline)
        return (
            add_legend(picture, self.label_space, present=np.flatnonzero(np.bincount(self.mask.ravel())))
            if legend
            else picture
        )

    def _repr_png_(self) -> bytes:
        """The overlay with a legend that tells each class's share of the pixels, in notebooks."""
        space = self.label_space
        counts = np.bincount(self.mask.ravel(), minlength=256)[: space.num_classes]
        shares = [f"{percent(count / self.mask.size)} %" for count in counts]
        names = tuple(f"{name}  {share}" for name, share in zip(space.classes, shares, strict=True))
        file = BytesIO()
        add_legend(shrunk(self.overlay()), replace(space, classes=names), present=np.flatnonzero(counts)).save(
            file, "PNG"
        )
        return file.getvalue()

    def save(self, mask: Path | None, overlay: Path | None = None, opacity: float = 0.5) -> None:
        """Write the index PNG, and then the overlay with its legend; None leaves one out."""
        if mask is not None:
            save_mask(self.mask, self.label_space, mask)
        if overlay is None:
            return
        with replacing(overlay) as temporary:
            self.overlay(opacity, legend=True).save(temporary, compress_level=OVERLAY_COMPRESSION)
