"""Scaling and resizing of images and masks, alike in training, validation and prediction."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import cv2
import numpy as np

from fcnseg.errors import InputError
from fcnseg.geometry import shown_size
from fcnseg.labels import IGNORE_INDEX

SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log1p,
    "decibel": lambda amplitude: 20 * np.log10(amplitude),
    "decibel_intensity": lambda intensity: 10 * np.log10(intensity),
}
"""What can be done to the values of an image as it is read; backscatter spans orders of magnitude."""

WINDOW = "window"
"""Of a scaling that has numbers of its own: window:LEVEL:WIDTH."""


def scale_values(image: np.ndarray, scaling: str | None) -> np.ndarray:
    """Bring an image's values onto another scale, as float32; None leaves it as it is.

    In decibels values of 0 and below are no data, nan; their logarithm by "log" is 0. What is nan stays so.

    Args:
        image: of any shape, in the file's values.
        scaling: "log" is ln(1 + x), "decibel" 20 log10(x) for amplitudes, "decibel_intensity" 10 log10(x);
            "window:LEVEL:WIDTH" is (x - LEVEL) / WIDTH + 1/2, cut off below 0 and above 1, as radiologists look at
            Hounsfield units: window:40:400 for soft tissue. (DICOM's linear function, PS3.3 C.11.2.1.2, differs from
            it by half a unit, for which that standard has LINEAR_EXACT.)

    Raises:
        InputError: for an unknown scaling.
    """
    if scaling is None:
        return image
    check_scaling(scaling)
    values = np.asarray(image, np.float32)
    if window := _level_and_width(scaling):
        level, width = window
        return ((values - np.float32(level)) / np.float32(width) + np.float32(0.5)).clip(0, 1)
    positive = values > 0
    scaled = SCALINGS[scaling](np.where(positive, values, 1)).astype(np.float32)
    if scaling != "log":
        return np.where(positive, scaled, np.float32(np.nan))
    return np.where(np.isnan(values), values, np.where(positive, scaled, np.float32(0)))


def check_scaling(scaling: str | None) -> None:
    """
    Raises:
        InputError: for an unknown scaling.
    """
    if scaling is None or (isinstance(scaling, str) and (scaling in SCALINGS or _level_and_width(scaling))):
        return
    raise InputError(f"scaling={scaling!r}: expected one of {', '.join(SCALINGS)}, or {WINDOW}:LEVEL:WIDTH")


def _level_and_width(scaling: Any) -> tuple[float, float] | None:
    name, *numbers = str(scaling).split(":")
    try:
        level, width = map(float, numbers)
    except ValueError:
        return None
    return (level, width) if name == WINDOW and isfinite(level) and isfinite(width) and width > 0 else None


def resize_image(image: np.ndarray, size: Sequence[int] | None) -> np.ndarray:
    """Resample an (H, W, C) image to `size` = (height, width): area averages down, bilinear up, each axis by its own.

    Training, validation and prediction all resize with this function. Any number of channels, in uint8, uint16 or
    float32. What is nan, no data, has no part in averages: a pixel that is made of known ones by half or more is
    their average (normalised convolution, Knutsson and Westin, CVPR 1993), another nan.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image
    if image.dtype.kind == "f" and (absent := np.isnan(image)).any():
        known = resize_image((~absent).astype(np.float32), size)
        total = resize_image(np.where(absent, np.float32(0), image), size)
        return np.where(known >= 0.5, total / np.maximum(known, 0.5), np.float32(np.nan)).astype(image.dtype)
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
    if mask.shape == tuple(size):
        return mask
    # INTER_NEAREST takes the pixel at the corner of the cell and shifts masks by half a pixel.
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def scaled_size(size: tuple[int, int], frame: Sequence[int] | None, resize: str, factor: float) -> tuple[int, int]:
    """(height, width) of an image of `size` as `shown_size` has it, times a factor; one pixel at least."""
    height, width = shown_size(size, frame, resize)
    return max(1, round(height * factor)), max(1, round(width * factor))


def framed_image(image: np.ndarray, frame: Sequence[int] | None, resize: str) -> np.ndarray:
    """An (H, W, C) image as a network that sees `frame` = (height, width) is shown it, see `shown_size`.

    What is left of the frame is padded at its end with the image's last pixels: nothing else is as little of an edge.
    """
    return padded_image(resize_image(image, shown_size(_size(image), frame, resize)), frame, resize)


def padded_image(image: np.ndarray, frame: Sequence[int] | None, resize: str = "keep") -> np.ndarray:
    """An (H, W, C) image with its last row and column repeated up to `frame` = (height, width)."""
    beyond = _beyond(image, frame, resize)
    return np.pad(image, (*beyond, (0, 0)), mode="edge") if beyond else image


def padded_mask(mask: np.ndarray, frame: Sequence[int] | None, resize: str = "keep") -> np.ndarray:
    """An (H, W) mask with the ignore index beyond its end, up to `frame` = (height, width)."""
    beyond = _beyond(mask, frame, resize)
    return np.pad(mask, beyond, constant_values=IGNORE_INDEX) if beyond else mask


def _beyond(pixels: np.ndarray, frame: Sequence[int] | None, resize: str) -> tuple[tuple[int, int], ...]:
    """How much is missing before and after either axis; nothing where nothing is."""
    if frame is None or resize == "native":
        return ()
    missing = [max(to - length, 0) for length, to in zip(_size(pixels), frame, strict=True)]
    return tuple((0, n) for n in missing) if any(missing) else ()


def _size(pixels: np.ndarray) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
