"""What values images have in memory, and how many bytes of them a file may make."""

import os
from pathlib import Path

import numpy as np

from fcnseg.errors import InputError

MAX_BYTES = 2**29
"""A file that takes more when decoded passes for a decompression bomb; the environment's FCNSEG_MAX_BYTES overrides
it. That is PIL's own limit of 179 million pixels of RGB."""

CHUNK = 2**20


def max_bytes() -> int:
    """The bytes of decoded values beyond which a file is refused.

    Raises:
        InputError: when the environment holds no such number.
    """
    given = os.environ.get("FCNSEG_MAX_BYTES", str(MAX_BYTES))
    if not given.isdecimal() or int(given) == 0:
        raise InputError(f"FCNSEG_MAX_BYTES={given}: expected a whole number of bytes above 0")
    return int(given)


def require_bytes(path: Path, size: int, what: str = "an image") -> None:
    """Refuse a file whose values would take more than `max_bytes`, before room is made for them.

    Raises:
        InputError: naming the file, the bytes it takes and the setting that allows them.
    """
    if size > (most := max_bytes()):
        raise InputError(
            f"{path}: cannot be read as {what} (it takes {size} bytes, more than {most}, and may be a decompression "
            f"bomb; set the environment variable FCNSEG_MAX_BYTES to allow as many as it has)"
        )


def as_file_values(pixels: np.ndarray) -> np.ndarray:
    """uint8 and uint16 as they are, complex numbers as amplitudes, others as float32; nan for what is not finite."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        values = (np.abs(pixels) if pixels.dtype.kind == "c" else pixels).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return values


def without_data(image: np.ndarray) -> np.ndarray | None:
    """(H, W) bool, true where no channel of an (H, W, C) image has a value; None where each pixel has one."""
    if image.dtype.kind != "f" or not (absent := np.isnan(image)).any():
        return None
    return absent.all(axis=2)
