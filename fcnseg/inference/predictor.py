"""From an image to its mask: load a model once, call it on paths, PIL images or arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fcnseg.data.folder import read_image
from fcnseg.data.transforms import resize_image
from fcnseg.errors import InputError
from fcnseg.files import replacing
from fcnseg.inference.overlay import add_legend, blend, save_mask
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, default_device
from fcnseg.models.store import from_pretrained


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image with its predicted mask.

    Attributes:
        image: (H, W, 3) uint8.
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
        model: a network whose spec says how its images are prepared.
        device: "cpu", "cuda", ...; the first GPU, or else the CPU, by default.
    """

    def __init__(self, model: FCN, device: str | None = None) -> None:
        self.model = model.to(default_device(device)).eval()
        space = model.spec.label_space
        self.label_space = LabelSpace(**space) if space else _numbered(model.spec.num_classes)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str | None = None, revision: str | None = None) -> "Predictor":
        """Load a model folder, a checkpoint, "demo", a model of the Hub, ...: whatever `fcnseg.from_pretrained` takes.

        Raises:
            InputError: when there is no such model or it cannot be read.
        """
        return cls(from_pretrained(source, revision=revision), device)

    @torch.inference_mode()
    def __call__(self, image: str | Path | Image.Image | np.ndarray) -> Segmentation:
        """Segment a path, a PIL image or an (H, W, 3) or (H, W) uint8 array.

        Raises:
            InputError: for an unreadable file or an array of another kind.
        """
        pixels = _pixels(image)
        resized = np.ascontiguousarray(resize_image(pixels, self.model.spec.input_size).transpose(2, 0, 1))
        batch = torch.from_numpy(resized)[None].to(self.model.mean.device)
        mask = self.model.segment(batch, pixels.shape[:2])[0]
        return Segmentation(pixels, mask.to(torch.uint8).cpu().numpy(), self.label_space)


def _pixels(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any accepted image as (H, W, 3) uint8."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"image is a {image.shape} {image.dtype} array; expected (H, W, 3) or (H, W) uint8")
    return image


def _numbered(classes: int) -> LabelSpace:
    """A label space for a model that came without one: numbers as names, hues around the circle."""
    hues = Image.new("HSV", (classes, 1))
    hues.putdata([(i * 256 // classes, 200, 220) for i in range(classes)])
    palette = np.asarray(hues.convert("RGB"))[0].tolist()
    return LabelSpace("numbered", tuple(f"class {i}" for i in range(classes)), tuple(palette))
