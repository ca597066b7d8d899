"""Preparing samples: resizing, and augmentation pipelines made of albumentations."""

from collections.abc import Callable, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np

from fcnseg.labels import IGNORE_INDEX

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(H, W, C) uint8 image, (H, W) uint8 mask and a seed, to the augmented pair."""


def resize_image(image: np.ndarray, size: Sequence[int] | None) -> np.ndarray:
    """Resample an (H, W, C) image to `size` = (height, width): area averages down, bilinear up.

    Training, validation and prediction all resize with this function.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] * image.shape[1] > size[0] * size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # OpenCV drops the axis of a single channel.
    return cv2.resize(image, (size[1], size[0]), interpolation=method).reshape(*size, *image.shape[2:])


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample an (H, W) mask to `size` = (height, width): the nearest pixel, no values in between."""
    # INTER_NEAREST takes the pixel at the corner of the cell and shifts masks by half a pixel.
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


class ResizeTo(A.DualTransform):
    """Resize to a size times a random factor, in one step from the original pixels.

    Args:
        size: (height, width) at factor 1.
        scale: (least, largest) factor, drawn uniformly in its logarithm.
        p: probability of a random factor; it is 1 otherwise.
    """

    def __init__(self, size: Sequence[int], scale: Sequence[float] = (1.0, 1.0), p: float = 1.0) -> None:
        super().__init__(p=1.0)
        self.size, self.scale, self.random_p = tuple(size), tuple(scale), p

    def get_params(self) -> dict[str, Any]:
        low, high = np.log(self.scale)
        factor = float(np.exp(self.py_random.uniform(low, high))) if self.py_random.random() < self.random_p else 1.0
        return {"target": tuple(max(1, round(side * factor)) for side in self.size)}

    def apply(self, img: np.ndarray, *, target: tuple[int, int], **params: Any) -> np.ndarray:
        return resize_image(img, target)

    def apply_to_mask(self, mask: np.ndarray, *, target: tuple[int, int], **params: Any) -> np.ndarray:
        return resize_mask(mask, target)


class Pipeline:
    """A chain of albumentations transforms whose randomness is one number.

    Args:
        transforms: albumentations transforms, applied in order.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform]) -> None:
        self.compose = A.Compose(list(transforms))

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment an (H, W, C) uint8 image and its (H, W) mask; the same seed gives the same pair."""
        self.compose.set_random_seed(seed)
        out = self.compose(image=image, mask=mask)
        return out["image"], out["mask"]


def street_pipeline(
    size: Sequence[int],
    scale: Sequence[float] = (0.75, 1.75),
    flip: float = 0.5,
    colour: float = 0.8,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.03,
) -> Pipeline:
    """Random scale, crop, horizontal flip and colours; padding is filled with the ignore index.

    Args:
        size: (height, width) of the result.
        scale: range of the random scale, 1 being the whole image resized to `size`.
        flip: probability of a mirror image.
        colour: probability of a colour change.
        brightness, contrast, saturation: largest relative change of each.
        hue: largest shift of the hue, as a fraction of the circle.
    """
    return Pipeline(
        [
            ResizeTo(size, scale),
            A.PadIfNeeded(size[0], size[1], border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=IGNORE_INDEX),
            A.RandomCrop(size[0], size[1]),
            A.HorizontalFlip(p=flip),
            A.ColorJitter(
                brightness=(1 - brightness, 1 + brightness),
                contrast=(1 - contrast, 1 + contrast),
                saturation=(1 - saturation, 1 + saturation),
                hue=(-hue, hue),
                p=colour,
            ),
        ]
    )


def resize_pipeline(size: Sequence[int]) -> Pipeline:
    """No augmentation: the whole image at `size`."""
    return Pipeline([ResizeTo(size)])
