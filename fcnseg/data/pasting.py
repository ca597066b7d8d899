"""Rare classes: which they are, and pasting their objects from one image of a dataset into another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fcnseg.data.dataset import SegmentationDataset, drawn, is_labelled, read_mask
from fcnseg.data.rare_crops import require_probability
from fcnseg.data.resizing import resize_image, resize_mask
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

TRIES = 4
"""Images that are looked through for objects to paste."""


@dataclass(frozen=True)
class Paste:
    """Objects of rare classes out of another image of the dataset, put where they are there.

    An object is a connected region of one class. Of those of an image, or of its mirror image, each is taken with a
    probability of 1/2, and one in any case (after Ghiasi et al., "Simple copy-paste", CVPR 2021, who take instances, in
    random scales). Images of other sizes are resized. Which image it is, and which objects, the seed decides alone.

    Attributes:
        classes: indices of the rare classes.
        probability: that anything is pasted into an image.
    """

    classes: tuple[int, ...]
    probability: float

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, dataset: SegmentationDataset, index: int, seed: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """An (H, W, C) image and its (H, W) mask with objects of another image than `index`; theirs are left as is."""
        random = np.random.default_rng(list(seed))
        if random.random() >= self.probability or not is_labelled(dataset):
            return image, mask
        source = self._source(dataset, index, seed, random)
        if source is None or source[0].shape[2:] != image.shape[2:] or source[0].dtype != image.dtype:
            return image, mask
        theirs, labels = resize_image(source[0], mask.shape), resize_mask(source[1], mask.shape)
        if random.random() < 0.5:
            theirs, labels = theirs[:, ::-1], labels[:, ::-1]
        chosen = self._objects(labels, random)
        return np.where(chosen[..., None], theirs, image), np.where(chosen, labels, mask)

    def _source(
        self, dataset: SegmentationDataset, index: int, seed: Sequence[int], random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """An image with rare classes and its mask; None where the ones that are looked at have none."""
        for attempt in range(min(TRIES, len(dataset) - 1)):
            other = (index + 1 + int(random.integers(len(dataset) - 1))) % len(dataset)
            if not getattr(dataset, "drawn", False) and not np.isin(read_mask(dataset, other), self.classes).any():
                continue
            image, mask, _ = drawn(dataset, other, (*seed, attempt + 1))
            if np.isin(mask, self.classes).any():
                return image, mask
        return None

    def _objects(self, mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(H, W) bool: the pixels of the objects that are taken."""
        regions = np.zeros(mask.shape, np.int32)  # numbered from 1 on
        count = 0
        for index in self.classes:
            found, numbers = cv2.connectedComponents((mask == index).astype(np.uint8))
            regions += np.where(numbers > 0, numbers + count, 0).astype(np.int32)
            count += found - 1
        taken = np.zeros(count + 1, bool)
        if count:  # rescaling may have left none
            taken[1:] = random.random(count) < 0.5
            taken[1 + int(random.integers(count))] = True
        return taken[regions]


def require_rare(paste: float, names: Sequence[str] | None, space: LabelSpace) -> None:
    """Refuse what is no probability, and names of no class.

    Raises:
        InputError: naming the setting.
    """
    require_probability("paste", paste)
    if names is not None and (isinstance(names, str) or not names):
        raise InputError(f"data.rare_classes={names}: expected a list of class names, or null")
    for name in names or ():
        if name not in space.classes:
            raise InputError(f"data.rare_classes: no class {name!r}; expected names out of {', '.join(space.classes)}")


def prepare_rare(
    augment: Any, paste: float, names: Sequence[str] | None, space: LabelSpace, class_pixels: Callable[[], np.ndarray]
) -> Paste | None:
    """Tell an augmentation which classes are rare, where it asks; returns what pastes them, where that is asked for.

    Args:
        augment: one with `rare_crops` above 0 has `know_rare` too, see `fcnseg.data.transforms.Pipeline`.
        paste: probability.
        names: of the rare classes; None: those that fill less than the median class.
        space: of the masks.
        class_pixels: counts (num_classes, 2) pixels, as `SegmentationData.class_pixels` does; called if needed.
    """
    crops = getattr(augment, "rare_crops", 0)
    if not paste and not crops:
        return None
    if names is None:
        pixels = class_pixels()[:, 0]
        rare = tuple(np.flatnonzero((pixels > 0) & (pixels < np.median(pixels[pixels > 0]))).tolist())
    else:
        rare = tuple(space.classes.index(name) for name in names)
    if crops:
        augment.know_rare(rare)
    return Paste(rare, paste) if paste else None
