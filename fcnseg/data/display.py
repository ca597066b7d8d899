"""Images of any kind as pictures for the eye."""

import numpy as np

ROWS = 256
"""Of a picture, that are stretched at once."""


def displayable(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of an (H, W, C) image: its first three channels, or its first one as grey.

    8 bits are shown as they are; in other types each channel goes from black at its 2nd to white at its 98th
    percentile, and no data is black.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    if shown.dtype == np.uint8:
        return shown
    picture = np.empty(shown.shape, np.uint8)
    for channel in range(3):
        values = shown[..., channel]
        lacks_all = np.isnan(values).all()
        low, high = (0, 0) if lacks_all else np.nanpercentile(values, (2, 98))
        width = high - low if high > low else 1
        for start in range(0, len(values), ROWS):  # floats of all of a large picture would take eight times its memory
            stretched = np.nan_to_num((values[start : start + ROWS] - low) / width)
            picture[start : start + ROWS, :, channel] = np.rint(stretched.clip(0, 1) * 255)
    return picture
