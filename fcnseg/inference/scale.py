"""At what size a network sees an image: the training's, the image's own, or a multiple of it."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fcnseg.data.resizing import framed_image, resize_image
from fcnseg.errors import InputError
from fcnseg.models.spec import ModelSpec

DENOMINATOR = 64
"""The greatest of factors: images are seen at multiples of so many pixels at most."""


@dataclass(frozen=True)
class Scale:
    """A choice of size.

    Attributes:
        factor: on the image's own size; None: the size that the model was trained at, where it was trained at one.

    With a factor p/q an image is extended to multiples of q pixels at its end, by its last ones, so that every pixel
    becomes as large as every other, wherever in an image of any size.
    """

    factor: Fraction | None = None

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) in the image's own pixels that is seen of an image of `size`."""
        if self.factor is None:
            return size
        q = self.factor.denominator
        return -(-size[0] // q) * q, -(-size[1] // q) * q

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which an image of `size` is seen, for a factor."""
        assert self.factor is not None
        height, width = (int(n * self.factor) for n in self.covered(size))
        return height, width

    def sees(self, size: tuple[int, int], spec: ModelSpec) -> tuple[int, int]:
        """The (height, width) at which an image of `size` is seen."""
        return (spec.input_size or size) if self.factor is None else self.seen(size)

    def shown(self, size: tuple[int, int], spec: ModelSpec) -> tuple[int, int] | None:
        """The (height, width) of what is seen that shows the image, beyond which is padding; None: all of it."""
        return spec.shown_size(size) if self.factor is None else None

    def applied(self, image: np.ndarray, spec: ModelSpec | None) -> np.ndarray:
        """An (H, W, C) image as it is seen; without a factor it is prepared as in the training that the spec tells."""
        if self.factor is None:
            return image if spec is None else framed_image(image, spec.input_size, spec.resize)
        height, width = self.covered(image.shape[:2])
        size, beyond = self.seen(image.shape[:2]), (height - image.shape[0], width - image.shape[1])
        if any(beyond):
            image = np.pad(image, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="edge")
        return resize_image(image, size)


def parse_scale(scale: str | float) -> Scale:
    """A scale by its name, "training" or "native", or as a factor.

    Raises:
        InputError: for another name, or a factor out of range.
    """
    if scale == "training":
        return Scale()
    if scale == "native":
        return Scale(Fraction(1))
    try:
        factor = Fraction(str(scale)).limit_denominator(DENOMINATOR)
    except (ValueError, ZeroDivisionError):
        factor = Fraction(0)
    if not Fraction(1, DENOMINATOR) <= factor <= 16:
        raise InputError(f"scale={scale}: expected training, native, or a factor from 1/{DENOMINATOR} to 16")
    return Scale(factor)
