"""`TorchvisionPipeline`, and the transforms of a street pipeline among those of `torchvision.transforms.v2`."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from fcnseg.data.gains import with_gain
from fcnseg.data.rare_crops import corner_around, require_probability
from fcnseg.data.resizing import resize_image, resize_mask, scaled_size
from fcnseg.geometry import require_resize, require_size


class TorchvisionPipeline:
    """A chain of `torchvision.transforms.v2` transforms whose randomness is one number.

    Masks go through the transforms one higher than they are, the ignore index as 0: with torchvision's own fill of 0,
    whatever comes in from beyond an image's edge is ignored. A fill of another value needs a dictionary that gives
    masks their 0. They are resized to the nearest pixel by its centre, as `resize_mask` does; torchvision's own choice
    lies half a pixel off.

    Args:
        transforms: torchvision's transforms of version 2, applied in order.
        rare_crops: probability that the crop of a `PadAndCrop` is laid around a pixel of a rare class.

    Raises:
        InputError: for another probability, or where nothing is cropped so.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], rare_crops: float = 0.0) -> None:
        self.transforms, self.rare_crops = list(transforms), rare_crops
        self._crops = [each for each in transforms if isinstance(each, PadAndCrop) and each.size is not None]
        require_probability("augment.rare_crops", rare_crops, self._crops or None)
        for crop in self._crops:
            crop.rare = rare_crops

    def know_rare(self, classes: Sequence[int]) -> None:
        """Be told which classes are rare."""
        for crop in self._crops:
            crop.classes = tuple(classes)

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
        if size is not None:
            require_size(size)
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
        self.size, self.rare = size, 0.0
        self.classes: tuple[int, ...] = ()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if self.size is None:
            return {}
        missing = [max(to - n, 0) for n, to in zip(flat_inputs[0].shape[-2:], self.size, strict=True)]
        spare = [max(n - to, 0) for n, to in zip(flat_inputs[0].shape[-2:], self.size, strict=True)]
        (rows, columns), (top, left) = missing, (int(torch.randint(n + 1, ())) for n in spare)
        pad = [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2]
        if self.rare and float(torch.rand(())) < self.rare:
            mask = TF.pad(flat_inputs[1], pad).numpy()[0] - np.uint8(1)
            top, left = corner_around(mask, self.classes, self.size, _below) or (top, left)
        return {"pad": pad, "place": (top, left)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if self.size is None else TF.crop(TF.pad(inpt, params["pad"]), *params["place"], *self.size)


def _below(count: int) -> int:
    return int(torch.randint(count, ()))


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
