"""Preparing samples: augmentation pipelines of albumentations; see `fcnseg.data.torchvision_transforms` for others."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np

from fcnseg.data.gains import with_gain
from fcnseg.data.rare_crops import corner_around, require_probability
from fcnseg.data.resizing import padded_image, padded_mask, resize_image, resize_mask, scaled_size
from fcnseg.geometry import require_resize, require_size
from fcnseg.labels import IGNORE_INDEX

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(H, W, C) uint8, uint16 or float32 image, (H, W) uint8 mask and a seed, to the augmented pair."""


class ResizeTo(A.DualTransform):
    """Resize to a size times a random factor, in one step from the original pixels.

    Args:
        size: (height, width) at factor 1; None: the image's own.
        scale: (least, largest) factor, drawn uniformly in its logarithm.
        p: probability of a random factor; it is 1 otherwise.
        resize: one of `RESIZES`: how images come to the size; with "keep" they fit into it.

    Raises:
        InputError: for another name, or a size that is none.
    """

    def __init__(
        self,
        size: Sequence[int] | None,
        scale: Sequence[float] = (1.0, 1.0),
        p: float = 1.0,
        resize: str = "keep",
    ) -> None:
        super().__init__(p=1.0)
        if size is not None:
            require_size(size)
        require_resize(resize)
        self.size, self.resize = size and tuple(size), resize
        self.scale, self.random_p = tuple(scale), p

    def get_params(self) -> dict[str, Any]:
        low, high = np.log(self.scale)
        factor = float(np.exp(self.py_random.uniform(low, high))) if self.py_random.random() < self.random_p else 1.0
        return {"factor": factor}

    def apply(self, img: np.ndarray, *, factor: float, **params: Any) -> np.ndarray:
        return resize_image(img, self.target(img, factor))

    def apply_to_mask(self, mask: np.ndarray, *, factor: float, **params: Any) -> np.ndarray:
        return resize_mask(mask, self.target(mask, factor))

    def target(self, pixels: np.ndarray, factor: float) -> tuple[int, int]:
        return scaled_size((pixels.shape[0], pixels.shape[1]), self.size, self.resize, factor)


class PadAtEnd(A.DualTransform):
    """Pad what is less than a size: images with their last pixels, masks with the ignore index.

    Args:
        size: (height, width).
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__(p=1.0)
        self.size = tuple(size)

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return padded_image(img, self.size)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return padded_mask(mask, self.size)


class PadToSize(A.PadIfNeeded):
    """Pad both ends of what is less than a size by 0, masks by the ignore index; what is not is left as it is.

    The original copies every image, padded or not.

    Args:
        size: (height, width).
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__(size[0], size[1], border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=IGNORE_INDEX)

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return super().apply(img, **params) if _is_padded(params) else img

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return super().apply_to_mask(mask, **params) if _is_padded(params) else mask


def _is_padded(params: dict[str, Any]) -> bool:
    return any(params[f"pad_{side}"] for side in ("top", "bottom", "left", "right"))


class RareCrop(A.RandomCrop):
    """A random crop, laid around a pixel of a rare class with a probability, where there is one, see `corner_around`.

    Args:
        size: (height, width).
        rare: the probability.

    Attributes:
        classes: indices of the rare classes.
    """

    def __init__(self, size: Sequence[int], rare: float) -> None:
        super().__init__(size[0], size[1])
        self.size, self.rare = tuple(size), rare
        self.classes: tuple[int, ...] = ()

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        found = super().get_params_dependent_on_data(params, data)
        if self.py_random.random() < self.rare:
            corner = corner_around(data["mask"], self.classes, self.size, self.py_random.randrange)
            if corner is not None:
                top, left = corner
                found["crop_coords"] = (left, top, left + self.size[1], top + self.size[0])
        return found


class HorizontalFlip(A.HorizontalFlip):
    """A horizontal flip of any number of channels; OpenCV's, in the original, ends at 128 of them."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return np.ascontiguousarray(img[:, ::-1])


class Colours(A.ColorJitter):
    """Random colours for 8-bit RGB; for every other image a random gain and offset, the same in all channels.

    Contrast is then the gain about the mean of each channel, and brightness the offset in its standard deviations,
    so that the unit of the values does not matter. Integers stay in the range of their type.
    """

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        if img.dtype == np.uint8 and img.shape[2:] == (3,):
            return super().apply(img, **params)
        return with_gain(img, params["contrast"], params["brightness"] - 1)


class Pipeline:
    """A chain of albumentations transforms whose randomness is one number.

    Args:
        transforms: albumentations transforms, applied in order.

    Attributes:
        rare_crops: with what probability crops are laid around rare classes.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform]) -> None:
        self.compose = A.Compose(list(transforms))
        self._crops = [transform for transform in transforms if isinstance(transform, RareCrop)]
        self.rare_crops = max((crop.rare for crop in self._crops), default=0.0)

    def know_rare(self, classes: Sequence[int]) -> None:
        """Be told which classes are rare."""
        for crop in self._crops:
            crop.classes = tuple(classes)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment an (H, W, C) image and its (H, W) mask; the same seed gives the same pair."""
        # One generator for all: `set_random_seed` would begin one in each transform with the same numbers.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = self.compose(image=image, mask=mask)
        return out["image"], out["mask"]


def street_pipeline(
    size: Sequence[int] | None,
    scale: Sequence[float] = (0.75, 1.75),
    flip: float = 0.5,
    colour: float = 0.8,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.03,
    resize: str = "keep",
    rare_crops: float = 0.0,
) -> Pipeline:
    """Random scale, crop, horizontal flip and colours; padding is 0 in the image and the ignore index in the mask.

    With resize "native" crops are of an image's own pixels, times the scale; without a size nothing is cropped.

    Any number of channels, in uint8, uint16 or float32. What happens to other images than 8-bit RGB in the place of
    colours is said under `Colours`.

    Args:
        size: (height, width) of the result; None: the image's own, times the scale.
        scale: range of the random scale, 1 being the whole image resized to `size`.
        flip: probability of a mirror image.
        colour: probability of a colour change.
        brightness, contrast, saturation: largest relative change of each.
        hue: largest shift of the hue, as a fraction of the circle.
        resize: how images come to `size`, one of `RESIZES`.
        rare_crops: probability that a crop is laid around a pixel of a rare class, see `RareCrop`.

    Raises:
        InputError: for another name or probability, or rare classes where nothing is cropped.
    """
    require_probability("augment.rare_crops", rare_crops, size)
    resized = ResizeTo(size, scale, resize=resize)
    cropped: list[A.BasicTransform] = []
    if size is not None:
        crop = RareCrop(size, rare_crops) if rare_crops else A.RandomCrop(size[0], size[1])
        cropped = [PadToSize(size), crop]
    return Pipeline(
        [
            resized,
            *cropped,
            HorizontalFlip(p=flip),
            _colours(colour, brightness, contrast, saturation, hue),
        ]
    )


class Turn(A.DualTransform):
    """One of the eight ways to lay a square on itself; of what is not square, one of four that keep its sides."""

    def get_params(self) -> dict[str, Any]:
        return {"way": self.py_random.randrange(8)}

    def apply(self, img: np.ndarray, *, way: int, **params: Any) -> np.ndarray:
        quarters, mirrored = way % 4, way >= 4
        if img.shape[0] != img.shape[1]:
            quarters = quarters // 2 * 2
        return np.ascontiguousarray(np.rot90(img[:, ::-1] if mirrored else img, quarters))

    def apply_to_mask(self, mask: np.ndarray, *, way: int, **params: Any) -> np.ndarray:
        return self.apply(mask, way=way)


def window_pipeline(
    turn: float = 1.0,
    colour: float = 0.8,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
) -> Pipeline:
    """Turns and mirror images, and colours, of windows that stay in their resolution, as seen from above or inside.

    Args:
        turn: probability of one of the eight ways to lay a window on itself, see `Turn`.
        colour, brightness, contrast, saturation, hue: as in `street_pipeline`.
    """
    return Pipeline([Turn(p=turn), _colours(colour, brightness, contrast, saturation, hue)])


def _colours(p: float, brightness: float, contrast: float, saturation: float, hue: float) -> Colours:
    return Colours(
        brightness=(1 - brightness, 1 + brightness),
        contrast=(1 - contrast, 1 + contrast),
        saturation=(1 - saturation, 1 + saturation),
        hue=(-hue, hue),
        p=p,
    )


def resize_pipeline(size: Sequence[int] | None, resize: str = "keep") -> Pipeline:
    """No augmentation: the whole image as the network is shown it in validation, padding ignored.

    Args:
        size: (height, width) of the result; None: the image's own.
        resize: how images come to it, one of `RESIZES`.

    Raises:
        InputError: for another name.
    """
    resized = ResizeTo(size, resize=resize)
    padded = [] if size is None or resize == "native" else [PadAtEnd(size)]
    return Pipeline([resized, *padded])
