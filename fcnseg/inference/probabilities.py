"""How sure a network is: class probabilities and their entropy as files."""

from pathlib import Path

import numpy as np
from PIL import Image

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace


def save_probabilities(probabilities: np.ndarray, label_space: LabelSpace, path: Path | str) -> None:
    """Write (C, H, W) probabilities as a compressed .npz: `probabilities` as float16, and the names in `classes`.

    float16 keeps a probability to 5 parts in 10,000 of it, down to 6e-5; below, to 6e-8.

    Raises:
        InputError: for an array of another shape, or a path that does not end in .npz.
    """
    _require_classes(probabilities, label_space)
    _require_suffix(path, ".npz", "probabilities are")
    with replacing(path) as temporary, temporary.open("wb") as file:
        names = np.array(label_space.classes, dtype=str)
        np.savez_compressed(file, probabilities=probabilities.astype(np.float16), classes=names)


def save_entropy(entropy: np.ndarray, path: Path | str, bits: int = 8) -> None:
    """Write an (H, W) entropy as a grey PNG from black, certain, to white, undecided.

    Args:
        entropy: 0 to 1, as `Segmentation.entropy` tells it: -sum p log p (Shannon 1948) over log C.
        bits: 8 or 16; the largest value, 255 or 65535, is 1.

    Raises:
        InputError: for an array of another shape, another number of bits, or a path that does not end in .png.
    """
    _require_suffix(path, ".png", "entropy is")
    if bits not in (8, 16):
        raise InputError(f"bits={bits}: expected 8 or 16")
    if entropy.ndim != 2:
        raise InputError(f"entropy is (H, W); got shape {entropy.shape}")
    values = np.rint(entropy.clip(0, 1) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def _require_classes(probabilities: np.ndarray, label_space: LabelSpace) -> None:
    if probabilities.ndim != 3 or len(probabilities) != label_space.num_classes:
        raise InputError(
            f"probabilities are (C, H, W) with the {label_space.num_classes} classes of {label_space.name!r}; "
            f"got shape {probabilities.shape}"
        )


def _require_suffix(path: Path | str, suffix: str, what: str) -> None:
    if Path(path).suffix.lower() != suffix:
        raise InputError(f"{path}: {what} saved as {suffix}")
