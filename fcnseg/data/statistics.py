"""Mean and standard deviation of a dataset's channels, for images that are not like ImageNet's."""

import numpy as np

from fcnseg.data.dataset import SegmentationDataset

PIXELS = 2_000_000
"""About as many pixels decide."""


def channel_statistics(dataset: SegmentationDataset, limit: int = 200) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, in the images' own values.

    Up to `limit` images, spread evenly over the dataset, give the pixels of a regular grid. A channel's values are
    clipped at their 0.1 and 99.9 percentiles over all these pixels, so that a few of a thousand, such as the corner
    reflectors in a radar image, cannot decide. Nothing is random. A constant channel gets a standard deviation of 1,
    so that one can divide by it.

    Args:
        dataset: of (H, W, C) images of any sizes and type.
        limit: of images.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(int))
    share = max(1, PIXELS // len(indices))
    values = np.concatenate([_grid(dataset[int(index)][0], share) for index in indices]).astype(np.float64)
    values = values.clip(*np.percentile(values, (0.1, 99.9), axis=0))
    mean, std = values.mean(axis=0), values.std(axis=0)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())


def _grid(image: np.ndarray, pixels: int) -> np.ndarray:
    """(N, C) values of at most about `pixels` pixels, evenly over the image."""
    step = int(np.ceil(np.sqrt(max(1.0, image.shape[0] * image.shape[1] / pixels))))
    return image[step // 2 :: step, step // 2 :: step].reshape(-1, image.shape[2])
