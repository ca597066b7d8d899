"""Scaling and resizing of images and masks, alike in training, validation and prediction."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from fcnseg.errors import InputError

SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log1p,
    "decibel": lambda amplitude: 20 * np.log10(amplitude),
    "decibel_intensity": lambda intensity: 10 * np.log10(intensity),
}
"""What can be done to the values of an image as it is read; backscatter spans orders of magnitude."""


def scale_values(image: np.ndarray, scaling: str | None) -> np.ndarray:
    """Bring an image's values onto a logarithmic scale, as float32; None leaves it as it is.

    Values of 0 and below, where there is no signal or no data, become 0.

    Args:
        image: of any shape, in the file's values.
        scaling: "log" is ln(1 + x), "decibel" 20 log10(x) for amplitudes, "decibel_intensity" 10 log10(x).

    Raises:
        InputError: for an unknown scaling.
    """
    if scaling is None:
        return image
    if scaling not in SCALINGS:
        raise InputError(f"scaling {scaling!r}: expected one of {', '.join(SCALINGS)}")
    positive = image > 0
    values = SCALINGS[scaling](np.where(positive, image, 1).astype(np.float32))
    return np.where(positive, values, 0).astype(np.float32)


def resize_image(image: np.ndarray, size: Sequence[int] | None) -> np.ndarray:
    """Resample an (H, W, C) image to `size` = (height, width): area averages down, bilinear up, each axis by its own.

    Training, validation and prediction all resize with this function. Any number of channels, in uint8, uint16 or
    float32.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image
    least = min(image.shape[0], size[0]), min(image.shape[1], size[1])
    if least not in (image.shape[:2], tuple(size)):
        # OpenCV's averages are for images that shrink along both axes; along one alone they become interpolation.
        return resize_image(resize_image(image, least), size)
    method = cv2.INTER_AREA if least == tuple(size) else cv2.INTER_LINEAR
    if image.ndim == 3 and image.shape[2] > 4:  # OpenCV averages no more than four channels at once
        parts = [resize_image(image[..., i : i + 4], size) for i in range(0, image.shape[2], 4)]
        return np.concatenate(parts, axis=2)
    # OpenCV drops the axis of a single channel.
    return cv2.resize(image, (size[1], size[0]), interpolation=method).reshape(*size, *image.shape[2:])


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample an (H, W) mask to `size` = (height, width): the nearest pixel, no values in between."""
    # INTER_NEAREST takes the pixel at the corner of the cell and shifts masks by half a pixel.
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
