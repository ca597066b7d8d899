"""Computed values as those of an image."""

import numpy as np


def as_type(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Floats as the type of an image: whole numbers are rounded, and cut off at the type's limits."""
    if image.dtype.kind == "f":
        return values.astype(image.dtype)
    return np.rint(values).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
