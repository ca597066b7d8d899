"""Label spaces: the names, colours and file values of a set of classes."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fcnseg.errors import InputError

IGNORE_INDEX = 255
"""The value in a mask for pixels that neither train nor count, in every label space."""


@dataclass(frozen=True)
class LabelSpace:
    """Class names with their colours, and which value each has in a label file.

    Attributes:
        name: what the label space is called in reports.
        classes: class names; a class's position is its index in masks and logits.
        palette: one (red, green, blue) colour per class, 0 to 255.
        ids: the value of each class in label files; by default the class index itself.
        ignored_ids: values that are legal in label files and become the ignore index.

    Raises:
        InputError: when names, colours or ids do not fit together.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...] = ()
    ignored_ids: tuple[int, ...] = (IGNORE_INDEX,)

    def __post_init__(self) -> None:
        # Configs and JSON bring lists; frozen values compare and hash as tuples.
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "palette", tuple(tuple(colour) for colour in self.palette))
        object.__setattr__(self, "ids", tuple(self.ids) or tuple(range(len(self.classes))))
        object.__setattr__(self, "ignored_ids", tuple(self.ignored_ids))
        if not self.classes:
            raise InputError(f"label space {self.name}: no classes; expected at least one")
        if len(set(self.classes)) != len(self.classes):
            raise InputError(f"label space {self.name}: a class name stands twice in {self.classes}")
        if not len(self.classes) == len(self.palette) == len(self.ids):
            raise InputError(
                f"label space {self.name}: {len(self.classes)} classes, {len(self.palette)} colours "
                f"and {len(self.ids)} ids; expected as many of each"
            )
        if len(self.classes) > IGNORE_INDEX:
            raise InputError(f"label space {self.name}: {len(self.classes)} classes; at most {IGNORE_INDEX} fit")
        if repeated := [i for i in self.ids if self.ids.count(i) > 1 or i in self.ignored_ids]:
            raise InputError(f"label space {self.name}: id {repeated[0]} means two things")
        if bad := [i for i in (*self.ids, *self.ignored_ids) if not (isinstance(i, int) and 0 <= i <= 65535)]:
            raise InputError(f"label space {self.name}: id {bad[0]!r}; expected whole numbers from 0 to 65535")
        for colour in self.palette:
            if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
                raise InputError(f"label space {self.name}: colour {colour}; expected 3 whole numbers from 0 to 255")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def _lookup(self) -> np.ndarray:
        """(65536,) class index for every 16-bit file value; -1 where the value is illegal."""
        table = np.full(65536, -1, np.int16)
        table[list(self.ignored_ids)] = IGNORE_INDEX
        table[list(self.ids)] = np.arange(self.num_classes)
        return table

    def decode(self, values: np.ndarray, source: str = "label") -> np.ndarray:
        """Turn the (H, W) integer values of a label file into a (H, W) uint8 mask.

        Raises:
            InputError: when a value is neither an id nor ignored; names `source` and the values.
        """
        mask = self._lookup[values]
        if (mask < 0).any():
            bad = np.unique(values[mask < 0])
            shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            raise InputError(
                f"{source}: label value {shown} is outside the label space {self.name!r} "
                f"(classes {min(self.ids)} to {max(self.ids)}, ignored {', '.join(map(str, self.ignored_ids))})"
            )
        return mask.astype(np.uint8)

    def colours(self) -> np.ndarray:
        """(256, 3) uint8 palette: class colours first, black for every other value."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = self.palette
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, fit for JSON and checkpoints; `LabelSpace(**...)` reads it back."""
        return {k: _as_lists(v) for k, v in asdict(self).items()}


def _as_lists(value: Any) -> Any:
    return [_as_lists(v) for v in value] if isinstance(value, tuple) else value


# The classes that CamVid and SYNTHIA share, in the order and colours of the 11-class CamVid release.
STREET11 = LabelSpace(
    name="street11",
    classes=(
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignored_ids=(11, IGNORE_INDEX),
)  # fmt: skip

# PASCAL VOC's classes in the order of its devkit; a colour is the class index's bits, spread over the three channels.
VOC21 = LabelSpace(
    name="voc21",
    classes=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus",
        "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
        "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    palette=(
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
        (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
        (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ),
)  # fmt: skip
