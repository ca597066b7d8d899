"""Images of another domain beside training samples, whose labels are never looked at."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fcnseg.data.dataset import SegmentationDataset, drawn
from fcnseg.data.streams import SampleRef, Stream
from fcnseg.data.transforms import Augment
from fcnseg.errors import InputError

Style = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W, C) image and a target of the same size and type to the image in the target's look."""

DRAWN, AUGMENTED = 3, 4
"""Words that tell a target's chance from its sample's."""


class Targets:
    """Shows each sample of some domains an image of another one: the same one wherever and whenever it is drawn.

    The targets of a domain are an endless stream of fresh permutations, augmented by a chance of their own.

    Args:
        dataset: the images; labels are not used, if there are any.
        domains: names of the training domains whose samples get one.
        style: makes a sample look like its target, see `fcnseg.data.styles`; None: the target comes with the sample.
    """

    def __init__(self, dataset: SegmentationDataset, domains: Sequence[str], style: Style | None = None) -> None:
        self.dataset, self.domains, self.style = dataset, tuple(domains), style
        self._streams: dict[int, Stream] = {}

    def require(self, train: Mapping[str, SegmentationDataset], size: Sequence[int] | None) -> None:
        """Refuse domains that are not there, and images that differ in kind or size.

        Raises:
            InputError: naming what does not fit.
        """
        if size is None:
            raise InputError("targets: need images of one size; expected size=[height, width], not null")
        for name in self.domains:
            if name not in train:
                raise InputError(f"targets: no domain {name!r}; expected some of {', '.join(train)}")
            ours, theirs = (
                f"{image.shape[2]} channels of {image.dtype}" for image in _first(train[name], self.dataset)
            )
            if ours != theirs:
                raise InputError(f"targets: images have {theirs}, those of domain {name!r} {ours}")

    def over(self, dataset: SegmentationDataset) -> "Targets":
        """The same out of another dataset."""
        return Targets(dataset, self.domains, self.style)

    def by_position(self, names: Sequence[str]) -> dict[int, "Targets"]:
        """Itself for the position of each of its domains among those of these names."""
        return {names.index(name): self for name in self.domains}

    def beside(self, image: np.ndarray, ref: SampleRef, augment: Augment, seed: int) -> tuple[np.ndarray, Any]:
        """An augmented (H, W, C) image, in its target's look or as it is; and in that case the target.

        That is an image of the same size, and an (H, W) mask of 0, with the ignore index in what is padding.
        """
        target, known = self._target(ref, augment, seed)
        return (image, (target, known)) if self.style is None else (self.style(image, target), None)

    def _target(self, ref: SampleRef, augment: Augment, seed: int) -> tuple[np.ndarray, np.ndarray]:
        if ref.domain not in self._streams:
            self._streams[ref.domain] = Stream(((len(self.dataset), 1.0),), (seed, ref.domain, DRAWN))
        index = self._streams[ref.domain].sample(ref.count)
        image, mask, _ = drawn(self.dataset, index, (seed, ref.domain, ref.count, DRAWN))
        words = np.random.SeedSequence([seed, ref.domain, ref.count, AUGMENTED])
        return augment(image, np.zeros_like(mask), int(words.generate_state(1)[0]))


def _first(*datasets: SegmentationDataset) -> Iterator[np.ndarray]:
    """The first image of each."""
    for dataset in datasets:
        yield dataset[0][0]
