"""A gain and an offset for images of any channels, whatever the unit of their values."""

import numpy as np


def with_gain(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """An (H, W, C) image with a gain about each channel's mean and an offset in its standard deviations."""
    mean, std = _moments(image)
    shift = mean * (1 - gain) + offset * std
    values = image * np.float32(gain) + shift.astype(np.float32)
    if image.dtype.kind == "f":
        return values
    return np.rint(values).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) mean and standard deviation of an (H, W, C) image over what is known of it; 0 where nothing is."""
    if image.dtype.kind != "f" or not (absent := np.isnan(image)).any():
        return image.mean(axis=(0, 1), dtype=np.float64), image.std(axis=(0, 1), dtype=np.float64)
    count = np.maximum((~absent).sum(axis=(0, 1)), 1)
    mean = np.where(absent, 0, image).sum(axis=(0, 1), dtype=np.float64) / count
    squares = np.where(absent, 0, image - mean) ** 2
    return mean, np.sqrt(squares.sum(axis=(0, 1), dtype=np.float64) / count)
