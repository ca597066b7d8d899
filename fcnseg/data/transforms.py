"""Preparing samples: augmentation pipelines of albumentations or torchvision."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from fcnseg.data.resizing import padded_image, padded_mask, resize_image, resize_mask
from fcnseg.geometry import require_resize, shown_size
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
        InputError: for another name.
    """

    def __init__(
        self,
        size: Sequence[int] | None,
        scale: Sequence[float] = (1.0, 1.0),
        p: float = 1.0,
        resize: str = "keep",
    ) -> None:
        super().__init__(p=1.0)
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


def scaled_size(size: tuple[int, int], frame: Sequence[int] | None, resize: str, factor: float) -> tuple[int, int]:
    """(height, width) of an image of `size` as `shown_size` has it, times a factor; one pixel at least."""
    height, width = shown_size(size, frame, resize)
    return max(1, round(height * factor)), max(1, round(width * factor))


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


def with_gain(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """An (H, W, C) image with a gain about each channel's mean and an offset in its standard deviations."""
    mean, std = _moments(image)
    shift = mean * (1 - gain) + offset * std
    values = image * np.float32(gain) + shift.astype(np.float32)
    if image.dtype.kind == "f":
        return values
    return np.rint(values).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) mean and standard deviation of an (H, W, C) image over what is known of it; 0 where nothing is."""
    if image.dtype.kind != "f" or not (absent := np.isnan(image)).any():
        return image.mean(axis=(0, 1), dtype=np.float64), image.std(axis=(0, 1), dtype=np.float64)
    count = np.maximum((~absent).sum(axis=(0, 1)), 1)
    mean = np.where(absent, 0, image).sum(axis=(0, 1), dtype=np.float64) / count
    squares = np.where(absent, 0, image - mean) ** 2
    return mean, np.sqrt(squares.sum(axis=(0, 1), dtype=np.float64) / count)


class Pipeline:
    """A chain of albumentations transforms whose randomness is one number.

    Args:
        transforms: albumentations transforms, applied in order.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform]) -> None:
        self.compose = A.Compose(list(transforms))

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

    Raises:
        InputError: for another name.
    """
    cropped = [] if size is None else [PadToSize(size), A.RandomCrop(size[0], size[1])]
    return Pipeline(
        [
            ResizeTo(size, scale, resize=resize),
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
    padded = [] if size is None or resize == "native" else [PadAtEnd(size)]
    return Pipeline([ResizeTo(size, resize=resize), *padded])


class TorchvisionPipeline:
    """A chain of `torchvision.transforms.v2` transforms whose randomness is one number.

    Masks go through the transforms one higher than they are, the ignore index as 0: with torchvision's own fill of 0,
    whatever comes in from beyond an image's edge is ignored. A fill of another value needs a dictionary that gives
    masks their 0. They are resized to the nearest pixel by its centre, as `resize_mask` does; torchvision's own choice
    lies half a pixel off.

    Args:
        transforms: torchvision's transforms of version 2, applied in order.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment an (H, W, C) image and its (H, W) uint8 mask; the same seed gives the same pair."""
        picture = tv_tensors.Image(torch.from_numpy(image.transpose(2, 0, 1).copy()))
        shifted = _ShiftedMask(torch.from_numpy(mask + np.uint8(1))[None])
        with _seeded(seed):
            for transform in self.transforms:
                picture, shifted = transform(picture, shifted)
        return np.ascontiguousarray(picture.numpy().transpose(1, 2, 0)), shifted.numpy()[0] - np.uint8(1)


class _ShiftedMask(tv_tensors.Mask):
    """(1, H, W) mask plus one."""


class TorchvisionResizeTo(v2.Transform):
    """`ResizeTo` among torchvision's transforms.

    Args:
        size: (height, width) at factor 1; None: the image's own.
        scale: (least, largest) factor, drawn uniformly in its logarithm.
        resize: one of `RESIZES`.

    Raises:
        InputError: for another name.
    """

    def __init__(self, size: Sequence[int] | None, scale: Sequence[float] = (1.0, 1.0), resize: str = "keep") -> None:
        super().__init__()
        require_resize(resize)
        self.size, self.scale, self.resize = size, tuple(scale), resize

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = np.log(self.scale)
        factor = float(np.exp(torch.empty(1, dtype=torch.float64).uniform_(low, high).item()))
        height, width = flat_inputs[0].shape[-2:]
        return {"target": scaled_size((height, width), self.size, self.resize, factor)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, _ShiftedMask):
            resized = resize_mask(inpt.numpy()[0], params["target"])[None]
        else:
            resized = resize_image(inpt.numpy().transpose(1, 2, 0), params["target"]).transpose(2, 0, 1)
        return tv_tensors.wrap(torch.from_numpy(np.ascontiguousarray(resized)), like=inpt)


class PadAndCrop(v2.Transform):
    """A random crop, of an image in the middle of as much padding by 0 as it needs.

    torchvision's own crop pads on either side by all that is missing, so that the image lies anywhere in the crop.

    Args:
        size: (height, width) of the crop; None: nothing is padded or cropped.
    """

    def __init__(self, size: Sequence[int] | None) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if self.size is None:
            return {}
        missing = [max(to - n, 0) for n, to in zip(flat_inputs[0].shape[-2:], self.size, strict=True)]
        spare = [max(n - to, 0) for n, to in zip(flat_inputs[0].shape[-2:], self.size, strict=True)]
        (rows, columns), (top, left) = missing, (int(torch.randint(n + 1, ())) for n in spare)
        return {"pad": [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2], "place": (top, left)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if self.size is None else TF.crop(TF.pad(inpt, params["pad"]), *params["place"], *self.size)


class JitteredColours(v2.ColorJitter):
    """`Colours` among torchvision's transforms, of every image; `RandomApply` around it leaves some as they are."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, _ShiftedMask) or (inpt.dtype == torch.uint8 and inpt.shape[0] == 3):
            return super().transform(inpt, params)
        gain, factor = (
            1.0 if (value := params[key]) is None else value for key in ("contrast_factor", "brightness_factor")
        )
        changed = with_gain(inpt.numpy().transpose(1, 2, 0), gain, factor - 1).transpose(2, 0, 1)
        return tv_tensors.wrap(torch.from_numpy(np.ascontiguousarray(changed)), like=inpt)


@TF.register_kernel(TF.resize, _ShiftedMask)
def _resize_shifted(
    mask: _ShiftedMask, size: list[int], interpolation: Any = None, max_size: int | None = None, **options: Any
) -> torch.Tensor:
    resized = TF.resize_image(mask.as_subclass(torch.Tensor), size, v2.InterpolationMode.NEAREST_EXACT, max_size)
    return tv_tensors.wrap(resized, like=mask)


@TF.register_kernel(TF.resized_crop, _ShiftedMask)
def _crop_and_resize_shifted(
    mask: _ShiftedMask, top: int, left: int, height: int, width: int, size: list[int], **options: Any
) -> torch.Tensor:
    cropped = TF.crop_mask(mask.as_subclass(torch.Tensor), top, left, height, width)
    return _resize_shifted(tv_tensors.wrap(cropped, like=mask), size)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch for a while; afterwards they go on as if nothing had been."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
