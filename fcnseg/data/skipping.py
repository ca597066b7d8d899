"""Training on a dataset of which some files are damaged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from fcnseg.data.dataset import Sample, SegmentationDataset, Wrapper, drawn, read_mask
from fcnseg.errors import InputError

T = TypeVar("T")

NEIGHBOURS = 20
"""Samples that are tried in the place of a damaged one."""


class Skipping(Wrapper):
    """A dataset that gives the next sound sample in the place of one that cannot be read.

    Which one that is depends on the files alone, so that a training is the same on any number of processes. Every
    reason is written once into a text file, which all processes of a training share.

    Args:
        dataset: any dataset.
        note: the text file; nothing else is to be in it.
        most: how many samples may be damaged, in all datasets that share the file.

    Raises:
        InputError: on reading, when there are more, or none of `NEIGHBOURS` neighbours is sound.
    """

    def __init__(self, dataset: SegmentationDataset, note: Path, most: int) -> None:
        super().__init__(dataset)
        self.note, self.most = note, most

    def __getitem__(self, index: int) -> Sample:
        return self._sound(index, lambda place: self.dataset[place])

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return self._sound(index, lambda place: read_mask(self.dataset, place))

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """What the dataset draws."""
        return self._sound(index, lambda place: drawn(self.dataset, place, seed))

    def _sound(self, index: int, read: Callable[[int], T]) -> T:
        for place in range(index, index + min(NEIGHBOURS, len(self.dataset))):
            try:
                return read(place % len(self.dataset))
            except InputError as error:
                self._write(str(error))
        raise InputError(f"sample {index} and those after it cannot be read; {self.note} has the reasons")

    def _write(self, reason: str) -> None:
        known = set(self.note.read_text().splitlines()) if self.note.is_file() else set()
        if reason in known:
            return
        self.note.parent.mkdir(parents=True, exist_ok=True)
        with open(self.note, "a") as file:  # a line at once, from whichever process
            file.write(f"{reason}\n")
        if len(known) >= self.most:
            raise InputError(f"{reason}; more than data.most_errors={self.most} cannot be read, see {self.note}")
