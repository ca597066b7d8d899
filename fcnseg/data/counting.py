"""How many pixels a dataset's labels have of each class."""

from functools import partial

import numpy as np

from fcnseg.data.dataset import SegmentationDataset, read_mask
from fcnseg.data.storage.host import once
from fcnseg.data.streams import Parts
from fcnseg.labels import IGNORE_INDEX


def mean_pixels(dataset: SegmentationDataset, parts: Parts, limit: int) -> np.ndarray:
    """(classes, 2): of an image on average each class's pixels, and all pixels of the images that show it.

    Args:
        dataset: with labels.
        parts: of it, weighed as they are drawn.
        limit: about as many masks are counted, spread evenly, once per host.
    """
    mean, start = np.zeros((dataset.label_space.num_classes, 2)), 0
    for length, weight in parts:
        indices = range(start, start + length, max(1, -(-length * len(parts) // limit)))
        count = partial(_class_pixels, dataset, indices, len(mean))
        counted = np.array(once(dataset, indices, "class pixels", count), float)
        mean += weight / sum(share for _, share in parts) * counted / len(indices)
        start += length
    return mean


def _class_pixels(dataset: SegmentationDataset, indices: range, classes: int) -> list[list[int]]:
    return np.sum([_count(read_mask(dataset, index), classes) for index in indices], axis=0).tolist()


def _count(mask: np.ndarray, classes: int) -> np.ndarray:
    pixels = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:classes]
    return np.stack([pixels, (pixels > 0) * pixels.sum()], axis=1)
