"""Datasets of image and label files, paired by name, and the reading of both."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".webp"})


def require_folder(path: Path) -> Path:
    """Return `path` if it is a folder.

    Raises:
        InputError: naming the path, and the nearest names beside it.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path}: expected a folder, found a file")
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=3)
    raise InputError(f"{path}: no such folder" + (f"; did you mean {', '.join(near)}?" if near else ""))


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder by their ending, sorted by name.

    Raises:
        InputError: when the folder is missing or holds none.
    """
    inside = require_folder(folder).iterdir()
    found = sorted(p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
    if not found:
        raise InputError(f"{folder}: no images; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        InputError: when the file is missing, no readable image, or has more than 8 bits per channel.
    """
    with _Opened(path) as image:
        if image.mode.startswith(("I", "F")):  # PIL would cut such values off at 255
            raise InputError(f"{path}: image has {image.mode} pixels; expected 8 bits per channel")
        return np.asarray(image.convert("RGB"))


def read_label(path: Path) -> np.ndarray:
    """Read the (H, W) integer values of an index or palette PNG, as they stand in the file.

    Raises:
        InputError: when the file is missing, unreadable, or has several channels.
    """
    with _Opened(path) as image:
        if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
            raise InputError(f"{path}: label is a {image.mode} image; expected one channel of class indices")
        values = np.asarray(image)
    if values.dtype.kind not in "bui" or values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: label values {values.min()} to {values.max()}; expected 0 to 65535")
    return values.astype(np.uint16)


class _Opened:
    """Open and decode an image file, turning every way that can fail into one InputError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Image.Image:
        try:
            self.image = Image.open(self.path)
            self.image.load()
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.path}: cannot be read as an image ({error})") from error
        return self.image

    def __exit__(self, *exception: object) -> None:
        self.image.close()


class PairedFolder:
    """Images of one folder with the labels of the same names (endings aside) in another.

    Args:
        images, labels: the two folders.
        label_space: what the values in the label files mean.

    Raises:
        InputError: for a missing folder, or an image without a label.
    """

    def __init__(self, images: str | Path, labels: str | Path, label_space: LabelSpace) -> None:
        self.label_space = label_space
        self.images = list_images(Path(images))
        pictures = _by_stem(self.images)
        by_stem = _by_stem(list_images(Path(labels)))
        if missing := [path for stem, path in pictures.items() if stem not in by_stem]:
            more = f" ({len(missing)} images have none)" if len(missing) > 1 else ""
            raise InputError(f"{missing[0]}: no label of that name in {labels}{more}")
        self.labels = [by_stem[path.stem] for path in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The (H, W, 3) uint8 image, the (H, W) uint8 mask with 255 ignored, and the name.

        Raises:
            InputError: naming the file, when it is unreadable, its label has another size, or a value
                outside the label space.
        """
        image = read_image(self.images[index])
        mask = self.mask(index)
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"{self.labels[index]}: label is {mask.shape[1]}x{mask.shape[0]}, "
                f"its image {image.shape[1]}x{image.shape[0]}; expected the same size"
            )
        return image, mask, self.images[index].stem

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask alone, without reading the image."""
        return self.label_space.decode(read_label(self.labels[index]), str(self.labels[index]))


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    """Files by their name without its ending, which must be unique to pair them."""
    found: dict[str, Path] = {}
    for path in paths:
        if other := found.get(path.stem):
            raise InputError(f"{path}: {other.name} has the same name but for its ending; pairs would be ambiguous")
        found[path.stem] = path
    return found
