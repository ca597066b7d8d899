"""Images of any kind as pictures for the eye."""

import numpy as np


def displayable(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of an (H, W, C) image: its first three channels, or its first one as grey.

    8 bits are shown as they are; in other types each channel goes from black at its 2nd to white at its 98th
    percentile.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    if shown.dtype == np.uint8:
        return shown
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    stretched = (shown - low) / np.where(high > low, high - low, 1)
    return np.rint(stretched.clip(0, 1) * 255).astype(np.uint8)
