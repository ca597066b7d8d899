"""The low frequencies of another image's amplitude."""

import numpy as np

from fcnseg.data.styles.values import as_type
from fcnseg.errors import InputError


class Fourier:
    """Gives an image the amplitude of the lowest frequencies of another one; phases, and so edges, stay.

    Yang and Soatto, "FDA: Fourier domain adaptation for semantic segmentation" (CVPR 2020), equations 2 and 3: in each
    channel, within a square of half side `beta` times the smaller side around frequency 0.

    Args:
        beta: above 0 and at most 0.5; the paper's are 0.01, 0.05 and 0.09.

    Raises:
        InputError: for another one.
    """

    def __init__(self, beta: float = 0.01) -> None:
        if not isinstance(beta, int | float) or not 0 < beta <= 0.5:
            raise InputError(f"beta={beta!r}: expected a number above 0 and at most 0.5")
        self.beta = beta

    def __call__(self, image: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(H, W, C) image with the look of a target of its size and channels; the result has the image's type."""
        height, width = image.shape[:2]
        source, other = (np.fft.rfft2(each.astype(np.float64), axes=(0, 1)) for each in (image, target))
        half = int(self.beta * min(height, width))
        rows = np.abs(np.fft.fftfreq(height, 1 / height)) <= half
        low = np.ix_(rows, np.arange(source.shape[1]) <= half)
        source[low] = np.abs(other[low]) * np.exp(1j * np.angle(source[low]))
        return as_type(np.fft.irfft2(source, (height, width), axes=(0, 1)), image)
