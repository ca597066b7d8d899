"""An image as a network sees it, and the way between its own pixels and the network's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fcnseg.data.display import displayable
from fcnseg.data.resizing import scale_values
from fcnseg.errors import InputError
from fcnseg.inference.pixels import ImageLike, file_values
from fcnseg.inference.predictor import label_space_of
from fcnseg.inference.scale import parse_scale
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, OptimisedFCN, resampled_rows

_Number = TypeVar("_Number", int, float)

Pixel = tuple[int, int]
"""Row and column, from 0 on."""


@dataclass(frozen=True, eq=False)
class Seen:
    """An image and what a network sees of it.

    Attributes:
        picture: (H, W, 3) uint8, the image for the eye in its own size.
        images: (1, C, h, w) normalised floats on the network's device, as `FCN.forward` takes them.
        shown: (height, width) of the beginning of `images` that shows the image; what follows is padding.
        covered: (height, width) in the image's own pixels of what is shown; (H, W), but for some factors of scale.
        label_space: of the network.
    """

    picture: np.ndarray
    images: Tensor = field(repr=False)
    shown: tuple[int, int]
    covered: tuple[int, int]
    label_space: LabelSpace = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.picture.shape[0], self.picture.shape[1]

    def require_pixel(self, pixel: Sequence[int]) -> Pixel:
        """
        Raises:
            InputError: for anything but a row and a column within the image.
        """
        height, width = self.size
        whole = len(pixel) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in pixel)
        if not whole or not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
            shown = ",".join(map(str, pixel))
            raise InputError(
                f"pixel=[{shown}]: outside of the image; expected a row from 0 to {height - 1} and a column "
                f"from 0 to {width - 1}"
            )
        return pixel[0], pixel[1]

    def network_pixel(self, pixel: Pixel) -> Pixel:
        """The network's pixel that the middle of one of the image's lies on."""
        row, column = ((2 * n + 1) * shown // (2 * own) for n, shown, own in self._axes(pixel))
        return row, column

    def own_place(self, place: tuple[float, float]) -> tuple[float, float]:
        """Where a (row, column) of the network's pixels lies on the image; whole numbers are centres of pixels."""
        row, column = ((n + 0.5) * own / shown - 0.5 for n, shown, own in self._axes(place))
        return row, column

    def _axes(self, place: tuple[_Number, _Number]) -> Iterator[tuple[_Number, int, int]]:
        return zip(place, self.shown, self.covered, strict=True)

    def own_rows(self, maps: Tensor, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of (N, C, h, w) maps of the network's pixels in the image's size: (N, C, rows, W).

        Interpolated as logits are when a mask is made of them.
        """
        shown = maps[..., : self.shown[0], : self.shown[1]]
        rows = resampled_rows(lambda a, b: shown[..., a:b, :], self.shown, self.covered, start, stop)
        return rows[..., : self.size[1]]

    def class_index(self, name: str | int) -> int:
        """The index of a class, by its name or by itself.

        Raises:
            InputError: naming close ones, or all.
        """
        classes = self.label_space.classes
        if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(classes):
            return name
        if name in classes:
            return classes.index(str(name))
        near = get_close_matches(str(name), classes, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(classes)}"
        raise InputError(f"class={name}: no class of this network; {hint}")


def look(model: FCN, image: ImageLike, scale: str | float = "training") -> Seen:
    """Show a network an image, prepared exactly as `fcnseg.Predictor` prepares it.

    Args:
        image: as `Predictor` takes it.
        scale: at what size the network sees it: "training", "native", or a factor on its own size.

    Raises:
        InputError: for an unreadable file, an image of another kind, another scale, or a network that was optimised
            for inference, which has no gradients.
    """
    if isinstance(model, OptimisedFCN):
        raise InputError("this network was optimised for inference; explain the one that it was made of")
    spec, chosen = model.spec, parse_scale(scale)
    pixels = file_values(image, spec)
    seen = np.ascontiguousarray(chosen.applied(scale_values(pixels, spec.scaling), spec).transpose(2, 0, 1))
    size = (pixels.shape[0], pixels.shape[1])
    shown = chosen.shown(size, spec) or (seen.shape[1], seen.shape[2])
    images = model.normalise(torch.from_numpy(seen)[None].to(model.device))
    return Seen(displayable(pixels), images, shown, chosen.covered(size), label_space_of(model))
