"""The mean and deviation of another image's colours."""

import cv2
import numpy as np

from fcnseg.data.styles.values import as_type


class ColourStatistics:
    """Gives an image the mean and standard deviation that another one has in each channel.

    Reinhard et al., "Color transfer between images" (IEEE Computer Graphics and Applications 21, 2001). 8-bit RGB
    images are compared in CIE L*a*b*, as has become usual, in the place of the paper's own decorrelated space; others
    in their own channels.
    """

    def __call__(self, image: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(H, W, C) image with the colours of a target of any size and the same channels; in the image's type."""
        if image.dtype != np.uint8 or image.shape[2] != 3:
            return as_type(_moved(image.astype(np.float64), target.astype(np.float64)), image)
        lab = _moved(_to_lab(image), _to_lab(target)).astype(np.float32)
        return as_type(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB) * 255.0, image)


def _to_lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _moved(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Values with another's moments in each channel; one without variance gets the mean alone."""
    mean, deviation = source.mean((0, 1)), source.std((0, 1))
    factor = target.std((0, 1)) / np.where(deviation > 0, deviation, 1)
    return (source - mean) * factor + target.mean((0, 1))
