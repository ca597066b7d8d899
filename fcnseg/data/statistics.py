"""What normalises the channels of a dataset whose images are not like ImageNet's, over all that is data in them."""

from dataclasses import dataclass

import numpy as np

from fcnseg.data.dataset import SegmentationDataset
from fcnseg.errors import InputError

PIXELS = 2_000_000
"""About as many pixels decide."""

IMAGES = 200
"""At most as many images do."""

CLIPPED = (2, 98)
"""The percentiles that values are clipped to, where they are to be."""

WAYS = ("moments", "percentiles")


@dataclass(frozen=True)
class Normalisation:
    """How channels are brought to a common range: (value - mean) / std, cut off beyond -clip and clip.

    Attributes:
        mean, std: per channel, in image values.
        clip: None cuts nothing off.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: float | None = None


def normalisation(dataset: SegmentationDataset, way: str = "moments", limit: int = IMAGES) -> Normalisation:
    """By mean and standard deviation ("moments"), or from the 2nd to the 98th percentile as -1 to 1 ("percentiles").

    Args:
        dataset: of (H, W, C) images of any sizes and type.
        way: which of the two.
        limit: of images.

    Raises:
        InputError: for another way.
    """
    if way not in WAYS:
        raise InputError(f"statistics={way}: expected one of {', '.join(WAYS)}")
    if way == "moments":
        return Normalisation(*channel_statistics(dataset, limit))
    ends = [np.percentile(values, CLIPPED) if len(values) else (0, 0) for values in _sample(dataset, limit)]
    low, high = np.array(ends, np.float64).T
    half = (high - low) / 2
    return Normalisation(tuple(((low + high) / 2).tolist()), tuple(np.where(half > 0, half, 1).tolist()), clip=1.0)


def channel_statistics(
    dataset: SegmentationDataset, limit: int = IMAGES
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, in the images' own values.

    Up to `limit` images, spread evenly over the dataset, give the pixels of a regular grid; what is no data, nan, is
    left out. A channel's values are clipped at their 0.1 and 99.9 percentiles over all these pixels, so that a few of
    a thousand, such as the corner reflectors in a radar image, cannot decide. Nothing is random. A constant channel
    gets a standard deviation of 1, so that one can divide by it, and one without data a mean of 0.

    Args:
        dataset: of (H, W, C) images of any sizes and type.
        limit: of images.
    """
    mean, std = [], []
    for values in _sample(dataset, limit):
        if not len(values):
            values = np.zeros(1)
        values = values.clip(*np.percentile(values, (0.1, 99.9)))
        mean.append(float(values.mean()))
        std.append(float(values.std()) or 1.0)
    return tuple(mean), tuple(std)


def spread(length: int, limit: int = IMAGES) -> list[int]:
    """The indices of the samples that decide: at most `limit`, evenly over all."""
    return np.unique(np.linspace(0, length - 1, min(limit, length)).round().astype(int)).tolist()


def _sample(dataset: SegmentationDataset, limit: int) -> list[np.ndarray]:
    """For each channel, the float64 values of the pixels that decide."""
    indices = spread(len(dataset), limit)
    share = max(1, PIXELS // len(indices))
    values = np.concatenate([_grid(dataset[index][0], share) for index in indices]).astype(np.float64)
    return [channel[~np.isnan(channel)] for channel in values.T]


def _grid(image: np.ndarray, pixels: int) -> np.ndarray:
    """(N, C) values of at most about `pixels` pixels, evenly over the image."""
    step = int(np.ceil(np.sqrt(max(1.0, image.shape[0] * image.shape[1] / pixels))))
    return image[step // 2 :: step, step // 2 :: step].reshape(-1, image.shape[2])
