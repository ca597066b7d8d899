"""A contiguous part of a dataset, as for learning curves over the amount of data."""

from typing import Any

import numpy as np

from fcnseg.data.caching import Segmented, read_mask
from fcnseg.errors import InputError


class Part:
    """A share of a dataset's samples, one run of neighbours in their order, going on at the first after the last.

    The frames of a video hardly differ from their neighbours: every fourth frame holds nearly the variety of all,
    a run of a quarter of them a quarter of it.

    Args:
        dataset: any dataset.
        share: how much of it, above 0 and at most 1; at least one sample.
        start: where the run begins, as a share of all samples from 0 to below 1.

    Raises:
        InputError: when a value is out of range.
    """

    def __init__(self, dataset: Segmented, share: float, start: float = 0.0) -> None:
        if not _is_number(share) or not 0 < share <= 1:
            raise InputError(f"share={share}: expected a part of a dataset, above 0 and at most 1")
        if not _is_number(start) or not 0 <= start < 1:
            raise InputError(f"start={start}: expected where the part begins, from 0 to below 1")
        self.dataset, self.label_space = dataset, dataset.label_space
        count = min(len(dataset), max(1, round(share * len(dataset))))
        first = round(start * len(dataset))
        self.indices = [(first + i) % len(dataset) for i in range(count)]
        for name in ("scaling", "mean", "std", "mapping"):  # what else a dataset may tell of itself
            if hasattr(dataset, name):
                setattr(self, name, getattr(dataset, name))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return self.dataset[self.indices[index]]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return read_mask(self.dataset, self.indices[index])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
