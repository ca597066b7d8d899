"""From the pixels of label files to values: which channel they lie in, or which colours stand for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcnseg.errors import InputError

Colour = tuple[int, int, int]

ONE_CHANNEL = (
    "expected one channel of class indices, or label_channel=0 for those in the first channel, "
    "or labels_as=colour for colours"
)


def label_values(
    path: Path,
    pixels: np.ndarray,
    channel: int | None = None,
    colours: Sequence[tuple[Colour, int]] | None = None,
) -> np.ndarray:
    """(H, W) uint16 of the (H, W, C) pixels of a label file; the arguments are those of `read_label`.

    Raises:
        InputError: naming the file, when it holds something else.
    """
    if colours is not None:
        return _look_up(path, pixels, colours)
    count = pixels.shape[2]
    if pixels.dtype.kind != "u" or (channel is None and count > 1):
        raise InputError(f"{path}: label has {count} channel{'s' * (count != 1)} of {pixels.dtype}; {ONE_CHANNEL}")
    if not 0 <= (channel or 0) < count:
        raise InputError(f"{path}: label has {count} channel{'s' * (count != 1)}; there is no channel {channel}")
    return pixels[..., channel or 0].astype(np.uint16)


def _look_up(path: Path, pixels: np.ndarray, colours: Sequence[tuple[Colour, int]]) -> np.ndarray:
    """(H, W) values of (H, W, 3) colours."""
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: label has {pixels.dtype} colours; expected 8 bits per channel")
    known = _codes(np.array([colour for colour, _ in colours]))
    order = np.argsort(known)
    codes = _codes(pixels)
    places = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    if (strange := known[places] != codes).any():
        found, counts = np.unique(codes[strange], return_counts=True)
        shown = [
            f"({code >> 16}, {code >> 8 & 255}, {code & 255}) on {count} pixel{'s' * (count != 1)}"
            for code, count in sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
        ]
        more = f" and {len(shown) - 5} more colours" if len(shown) > 5 else ""
        raise InputError(f"{path}: label has colours of no class: {', '.join(shown[:5])}{more}")
    return np.array([value for _, value in colours], np.uint16)[places]


def _codes(colours: np.ndarray) -> np.ndarray:
    """One number for each (red, green, blue)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
