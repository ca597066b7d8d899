"""An image beyond memory at the size of the training's images, which it is shrunk to strip by strip."""

from collections.abc import Callable

import numpy as np

from fcnseg.data.resizing import resize_image

STRIP_BYTES = 64 * 10**6
"""Of a strip's values as float32."""

Rows = Callable[[int, int], np.ndarray]
"""Gives (stop - start, W, C) rows of an image."""


def shrunk(rows: Rows, size: tuple[int, int], target: tuple[int, int], done: Callable[[int], None]) -> np.ndarray:
    """What `resize_image` makes of an image, (h, w, C), in memory that grows with H * w and with W.

    Args:
        rows: the image.
        size: its (H, W) in pixels.
        target: (h, w).
        done: is told the number of rows after each strip.

    Values are averaged along rows and then along columns, as floats, and rounded once where the image holds integers.
    """
    first = rows(0, 1)
    step = max(STRIP_BYTES // (4 * first.size), 1)
    narrow = np.empty((size[0], target[1], first.shape[2]), np.float32)
    for start in range(0, size[0], step):
        stop = min(start + step, size[0])
        narrow[start:stop] = resize_image(rows(start, stop).astype(np.float32), (stop - start, target[1]))
        done(stop - start)
    small = resize_image(narrow, target)
    return small if first.dtype.kind == "f" else np.rint(small).astype(first.dtype)
