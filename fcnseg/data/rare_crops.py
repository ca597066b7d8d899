"""Where a crop is laid so that it holds a rare class."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fcnseg.errors import InputError


def corner_around(
    mask: np.ndarray, classes: Sequence[int], size: Sequence[int], below: Callable[[int], int]
) -> tuple[int, int] | None:
    """(top, left) of a crop that holds a pixel of one of some classes; None where the mask shows none of them.

    A class out of those that are there is drawn, one of its pixels, and one of the crops that hold that pixel.

    Args:
        mask: (H, W) uint8, at least as large as the crop.
        classes: indices.
        size: (height, width) of the crop.
        below: draws a whole number from 0 on and below another one.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    present = [index for index in classes if counts[index]]
    if not present:
        return None
    pixels = np.flatnonzero(mask == present[below(len(present))])
    place = divmod(int(pixels[below(len(pixels))]), mask.shape[1])
    top, left = (_start(at, length, side, below) for at, length, side in zip(place, mask.shape, size, strict=True))
    return top, left


def _start(at: int, length: int, side: int, below: Callable[[int], int]) -> int:
    first, last = max(0, at - side + 1), min(at, length - side)
    return first + below(last - first + 1)


def require_probability(name: str, value: object, cropped: Any = True) -> None:
    """Refuse what is no probability, and one of crops where nothing is cropped.

    Args:
        name: of the setting within `data`.
        value: of it.
        cropped: None where nothing is cropped.

    Raises:
        InputError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"data.{name}={value!r}: expected a probability from 0 to 1")
    if value and cropped is None:
        raise InputError(f"data.{name}={value}: nothing is cropped here; expected a data.size, or 0")
