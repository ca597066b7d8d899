"""Images of any kind as pictures for the eye."""

import numpy as np


def displayable(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of an (H, W, C) image: its first three channels, or its first one as grey.

    8 bits are shown as they are; in other types each channel goes from black at its 2nd to white at its 98th
    percentile, and no data is black.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    if shown.dtype == np.uint8:
        return shown
    if np.isnan(shown).all(axis=(0, 1)).any():
        shown = np.nan_to_num(shown)  # a channel without any value
    low, high = np.nanpercentile(shown, (2, 98), axis=(0, 1))
    stretched = np.nan_to_num((shown - low) / np.where(high > low, high - low, 1))
    return np.rint(stretched.clip(0, 1) * 255).astype(np.uint8)
