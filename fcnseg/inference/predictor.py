"""From an image to its mask: load a model once, call it on paths, PIL images, arrays or tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcnseg.atomic import replacing
from fcnseg.classes import distinct_colours
from fcnseg.data.display import displayable
from fcnseg.data.resizing import resize_image, scale_values
from fcnseg.errors import InputError
from fcnseg.inference.device import default_device, fast_precision
from fcnseg.inference.overlay import add_legend, blend, save_mask
from fcnseg.inference.pixels import ImageLike, file_values
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, from_pretrained, optimise
from fcnseg.models.optimised import PRECISIONS


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image with its predicted mask.

    Attributes:
        image: (H, W, 3) uint8; as `fcnseg.data.display.displayable` shows images of other kinds.
        mask: (H, W) uint8 class indices, in the image's own size.
        label_space: names and colours of the classes.
    """

    image: np.ndarray
    mask: np.ndarray
    label_space: LabelSpace

    def overlay(self, opacity: float = 0.5, legend: bool = False) -> Image.Image:
        """The image under the classes' colours; opacity 0 to 1, with a legend below on request."""
        picture = blend(self.image, self.mask, self.label_space, opacity)
        return add_legend(picture, self.label_space, present=np.unique(self.mask).tolist()) if legend else picture

    def save(self, mask: Path, overlay: Path, opacity: float = 0.5) -> None:
        """Write the index PNG and the overlay with its legend."""
        save_mask(self.mask, self.label_space, mask)
        with replacing(overlay) as temporary:
            self.overlay(opacity, legend=True).save(temporary)


class Predictor:
    """Segments images with a trained model, prepared exactly as in validation.

    Args:
        model: a network whose spec says how its images are prepared. It is moved to the device; what is used is its
            optimised form, and not changed by training that goes on.
        device: "cpu", "cuda", ...; the first GPU, or else the CPU, by default.
        precision: "32-true"; "bf16-mixed" or "16-mixed", as in `optimise`; or "auto": bf16-mixed where the hardware
            is fast in it and it gives `AGREEMENT` of the first image's pixels the class that 32-true gives them.
        compile: by torch.compile, see `optimise`.

    Attributes:
        agreement: with "auto", the share of the first image's pixels that had the same class in both, 0 to 1.

    Raises:
        InputError: for another device or precision.
    """

    AGREEMENT = 0.98

    def __init__(
        self, model: FCN, device: str | None = None, precision: str = "32-true", compile: bool = False
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision={precision}: expected one of auto, {', '.join(PRECISIONS)}")
        model = model.to(default_device(device))
        self.precision = fast_precision(model.mean.device) if precision == "auto" else precision
        self.model = optimise(model, self.precision, compile)
        self.agreement: float | None = None
        self._exact = None
        if precision == "auto" and self.precision != "32-true":
            self._exact = optimise(model, "32-true", compile)  # until the first image has told
        space = model.spec.label_space
        self.label_space = LabelSpace(**space) if space else _numbered(model.spec.num_classes)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | None = None, revision: str | None = None, **options: Any
    ) -> "Predictor":
        """Load a model folder, a checkpoint, "demo", a model of the Hub, ...: whatever `fcnseg.from_pretrained` takes.

        Args:
            options: `precision` and `compile`.

        Raises:
            InputError: when there is no such model or it cannot be read.
        """
        return cls(from_pretrained(source, revision=revision), device, **options)

    @torch.inference_mode()
    def __call__(self, image: ImageLike, *, scaled: bool = False) -> Segmentation:
        """Segment a path, a PIL image, an (H, W, C) or (H, W) array, or a (C, H, W) or (H, W) tensor.

        C is the model's number of channels; a grey uint8 image will do for a model of three. Values are of the type
        that the model was trained on, and of any of uint8, uint16 and floats where it applies a scaling.

        Args:
            image: in the values of a file; a scaling that the model was trained with is applied here.
            scaled: whether that has been done already, as in the samples of a dataset.

        Raises:
            InputError: for an unreadable file, or an image of another kind; it says what to give instead.
        """
        spec = self.model.spec
        pixels = file_values(image, spec)
        values = pixels if scaled else scale_values(pixels, spec.scaling)
        resized = np.ascontiguousarray(resize_image(values, spec.input_size).transpose(2, 0, 1))
        batch = torch.from_numpy(resized)[None].to(self.model.mean.device)
        mask = self._segment(batch, pixels.shape[:2])[0]
        return Segmentation(displayable(pixels), mask.to(torch.uint8).cpu().numpy(), self.label_space)

    def _segment(self, batch: Tensor, size: tuple[int, int]) -> Tensor:
        mask = self.model.segment(batch, size)
        if self._exact is None:
            return mask
        exact = self._exact.segment(batch, size)
        self.agreement = float((mask == exact).double().mean())
        if self.agreement < self.AGREEMENT:
            self.precision, self.model, mask = "32-true", self._exact, exact
        self._exact = None
        return mask


def _numbered(classes: int) -> LabelSpace:
    """A label space for a model that came without one: numbers as names."""
    return LabelSpace("numbered", tuple(f"class {i}" for i in range(classes)), tuple(distinct_colours(classes)))
