"""How the samples of a packed dataset are stored: sizes, and pixels as they are or as JPEG and PNG files."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from fcnseg.data.dataset import Sample
from fcnseg.data.resizing import resize_image, resize_mask
from fcnseg.data.storage.cache import checksum, pieces
from fcnseg.errors import InputError
from fcnseg.geometry import require_resize, require_size, shown_size


@dataclass(frozen=True)
class Packing:
    """How samples are packed.

    Attributes:
        size: (height, width) that samples are resized to; their own by default.
        resize: how they come to it, one of `RESIZES`. With "keep" they fit into it, without padding, which training
            adds where it needs it.
        jpeg_quality: 1 to 100 for images as JPEG, which is smaller and not lossless; pixels as they are by default,
            which is what reads fastest.

    Raises:
        InputError: when a value is out of range.
    """

    size: tuple[int, int] | None = None
    jpeg_quality: int | None = None
    resize: str = "keep"

    def __post_init__(self) -> None:
        if self.size is not None:
            require_size(self.size)
            object.__setattr__(self, "size", tuple(self.size))
        quality = self.jpeg_quality
        if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
            raise InputError(f"jpeg_quality={quality!r}: expected a whole number from 1 to 100")
        require_resize(self.resize)

    def resized(self, image: np.ndarray, mask: np.ndarray, name: str) -> Sample:
        size = shown_size((mask.shape[0], mask.shape[1]), self.size, self.resize)
        return resize_image(image, size), resize_mask(mask, size), name

    def settings(self) -> dict[str, Any]:
        """Plain values for JSON: what samples depend on."""
        named = asdict(self) if self.size else {"size": None, "jpeg_quality": self.jpeg_quality}
        return json.loads(json.dumps(named))

    def encode(self, sample: Sample) -> dict[str, Any]:
        """A sample as litdata stores it: arrays, of one axis where they are the bytes of a JPEG and a PNG file."""
        image, mask, name = sample
        if self.jpeg_quality is not None:
            image, mask = encode_jpeg(image, self.jpeg_quality, name), cv2.imencode(".png", mask)[1]
        return {"image": image, "mask": mask, "name": name, "checksum": checksum(pieces(image, mask, name))}


def encode_jpeg(image: np.ndarray, quality: int, name: str) -> np.ndarray:
    """The bytes of an (H, W, 3) uint8 RGB image as a JPEG file."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise InputError(
            f"jpeg_quality={quality}: {name} is {image.dtype} with {image.shape[2]} channels; expected uint8 RGB"
        )
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def decode_image(stored: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(_decode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) if stored.ndim == 1 else stored


def decode_mask(stored: np.ndarray) -> np.ndarray:
    return _decode(stored, cv2.IMREAD_GRAYSCALE) if stored.ndim == 1 else stored


def _decode(file: np.ndarray, flags: int) -> np.ndarray:
    decoded = cv2.imdecode(file, flags)
    if decoded is None:
        raise ValueError("no image")
    return decoded
