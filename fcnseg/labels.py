"""Label spaces: the names, colours and file values of a set of classes, and the way from one to another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np

from fcnseg.errors import InputError
from fcnseg.views import swatches, view

IGNORE_INDEX = 255
"""The value in a mask for pixels that neither train nor count, in every label space."""

ALIASES: dict[str, tuple[str, ...]] = {
    # One class under two names.
    "pavement": ("sidewalk",),
    "sidewalk": ("pavement",),
    "tree": ("vegetation",),
    "vegetation": ("tree",),
    "sign": ("traffic sign",),
    "traffic sign": ("sign",),
    "signsymbol": ("sign", "traffic sign"),
    "light": ("traffic light",),
    "traffic light": ("light",),
    "person": ("pedestrian",),
    "pedestrian": ("person",),
    "motorbike": ("motorcycle",),
    # CamVid and SYNTHIA label a cyclist together with the bicycle; Cityscapes labels the rider apart. Where the
    # two are apart, the whole goes to the bicycle, as in the published results from SYNTHIA to Cityscapes. In
    # CamVid's 11 classes motorcycles count as bicyclists.
    "bicyclist": ("cyclist", "bicycle"),
    "cyclist": ("bicyclist", "bicycle"),
    "bicycle": ("cyclist", "bicyclist"),
    "rider": ("cyclist", "bicyclist"),
    "motorcycle": ("motorbike", "bicyclist"),
}
"""What else a class may be called: for a class of one label space, names to look for in another, best first."""


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
        if bad := [i for i in (*self.ids, *self.ignored_ids) if not (isinstance(i, int) and 0 <= i <= 65535)]:
            raise InputError(f"label space {self.name}: id {_short(bad[0])}; expected whole numbers from 0 to 65535")
        if repeated := [i for i in self.ids if self.ids.count(i) > 1 or i in self.ignored_ids]:
            raise InputError(f"label space {self.name}: id {repeated[0]} means two things")
        for colour in self.palette:
            if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
                raise InputError(
                    f"label space {self.name}: colour {_short(colour)}; expected 3 whole numbers from 0 to 255"
                )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def lookup(self) -> np.ndarray:
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
        mask = self.lookup[values]
        if (mask < 0).any():
            bad = np.unique(values[mask < 0])
            shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            raise InputError(
                f"{source}: label value {shown} is outside the label space {self.name!r} "
                f"(classes {min(self.ids)} to {max(self.ids)}, ignored {', '.join(map(str, self.ignored_ids))})"
            )
        return mask.astype(np.uint8)

    def encode(self, mask: np.ndarray, ignored: int = 0) -> np.ndarray:
        """The (H, W) uint16 label file values of an (H, W) mask, `ignored` where it is ignored; undoes `decode`."""
        table = np.full(256, ignored, np.uint16)
        table[: self.num_classes] = self.ids
        return table[mask]

    def colours(self) -> np.ndarray:
        """(256, 3) uint8 palette: class colours first, black for every other value."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = self.palette
        return table

    def mapping_to(
        self,
        target: "LabelSpace",
        aliases: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, str | None] | None = None,
    ) -> "ClassMapping":
        """Which class of `target` each class here becomes: by `extra`, else the same name, else an alias.

        Names are compared without regard to capitals, underscores and hyphens. Classes that find no other
        become the ignore index.

        Args:
            target: the label space to go to.
            aliases: for a name, others to look for, best first; by default `ALIASES`.
            extra: a class of `target` for classes of this label space, or None to ignore them.

        Raises:
            InputError: for a name in `extra` that neither space has, or when no class finds another.
        """
        return ClassMapping(self, target, _pair(self, target, ALIASES if aliases is None else aliases, extra or {}))

    @classmethod
    def from_dict(cls, found: Any, source: str) -> "LabelSpace":
        """The label space that a file describes as `to_dict` does.

        Args:
            found: whatever stands in the file.
            source: the file, for the message.

        Raises:
            InputError: naming the source and what is wrong.
        """
        keys = [field.name for field in fields(cls)]
        if not isinstance(found, Mapping) or set(found) - set(keys) or not set(keys[:3]) <= set(found):
            raise InputError(f"{source}: no label space; expected {', '.join(keys)}")
        lists = {key: value for key, value in found.items() if key != "name"}
        if strange := [key for key, value in lists.items() if not isinstance(value, list | tuple)]:
            raise InputError(f"{source}: {strange[0]} of the label space is no list")
        if not all(isinstance(name, str) for name in (found["name"], *found["classes"])):
            raise InputError(f"{source}: names of the label space are no texts")
        if not all(isinstance(colour, list | tuple) for colour in found["palette"]):
            raise InputError(f"{source}: palette of the label space is no list of colours")
        try:
            return cls(**found)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, fit for JSON and checkpoints; `from_dict` reads it back."""
        return {k: _as_lists(v) for k, v in asdict(self).items()}

    def _repr_html_(self) -> str:
        """Every class with its colour and index, in notebooks."""
        return view(f"{self.name}: {self.num_classes} classes", swatches(self.classes, self.palette))


@dataclass(frozen=True)
class ClassMapping:
    """Which class of one label space becomes which class of another; `str()` shows it as a table.

    Attributes:
        source, target: the two label spaces.
        indices: for each class of `source`, the index of its class in `target`, or the ignore index.
    """

    source: LabelSpace
    target: LabelSpace
    indices: tuple[int, ...]

    @property
    def table(self) -> np.ndarray:
        """(256,) uint8: the new value of every value that a mask can have."""
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(self.indices)] = self.indices
        return table

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """Turn an (H, W) uint8 mask of the source into one of the target."""
        return np.take(self.table, mask)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Classes of the source whose pixels become ignored."""
        return tuple(n for n, i in zip(self.source.classes, self.indices, strict=True) if i == IGNORE_INDEX)

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes of the target that no class of the source becomes."""
        return tuple(name for i, name in enumerate(self.target.classes) if i not in self.indices)

    def __str__(self) -> str:
        rows = [
            (name, ", ".join(self.source.classes[i] for i, to in enumerate(self.indices) if to == index))
            for index, name in enumerate(self.target.classes)
        ]
        width = max(len(name) for name in ("ignored", *self.target.classes))
        lines = [f"{self.source.name} -> {self.target.name}"]
        lines += [f"  {name:<{width}}  <- {sources}" for name, sources in rows if sources]
        lines += [f"  {'ignored':<{width}}  <- {', '.join(self.ignored)}"] if self.ignored else []
        if self.missing:
            lines.append(f"  warning: nothing in {self.source.name} is {', '.join(self.missing)}")
        return "\n".join(lines)


def _pair(
    source: LabelSpace,
    target: LabelSpace,
    aliases: Mapping[str, Sequence[str]],
    extra: Mapping[str, str | None],
) -> tuple[int, ...]:
    index = {_plain(name): i for i, name in enumerate(target.classes)}
    others = {_plain(name): [_plain(other) for other in names] for name, names in aliases.items()}
    given = {}
    for name, wanted in extra.items():
        _require(name, source)
        given[_plain(name)] = IGNORE_INDEX if wanted is None else index[_require(wanted, target)]
    indices = []
    for name in map(_plain, source.classes):
        found = (index[other] for other in (name, *others.get(name, ())) if other in index)
        indices.append(given[name] if name in given else next(found, IGNORE_INDEX))
    if all(i == IGNORE_INDEX for i in indices):
        raise InputError(f"label space {source.name} has no class of {target.name}: {', '.join(target.classes)}")
    return tuple(indices)


def _require(name: str, space: LabelSpace) -> str:
    """The plain form of a class name that a label space must have."""
    names = [_plain(n) for n in space.classes]
    if _plain(name) in names:
        return _plain(name)
    near = get_close_matches(_plain(name), names, n=3) or names
    raise InputError(f"label space {space.name} has no class {name!r}; expected one of {', '.join(near)}")


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()


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


def _short(value: Any) -> str:
    """What a file gave instead of a number or some, never more than a few words of it."""
    plain = isinstance(value, int | float | str) or (
        isinstance(value, tuple) and len(value) < 5 and all(isinstance(part, int | float | str) for part in value)
    )
    return repr(value)[:40] if plain else f"of type {type(value).__name__}"
