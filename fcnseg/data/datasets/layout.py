"""Layouts: YAML files that say where a dataset's images and labels lie, what the labels mean, and how it is split.

    name: streets                        # of the dataset and of its label space
    source: paper, authors, where to get it, and under which terms
    images: "rgb/{split}/{city}/{name}.jpg"
    names: "{city}_{name}"               # how samples are called; by default {name}
    labels:                              # kinds of labels; the first is the default
      ids:
        files: "gt/{split}/{city}/{name}_ids.png"
        classes: [[1, road, [128, 64, 128]], [2, car, [0, 0, 142]]]     # id, name, colour
        ignored: [0, 255]                # ids that do not count; by default 255
    splits:
      train: {count: 2975, exclude: [aachen_000001]}
      val: {folder: validation}          # what {split} stands for, where it is not the split's name
      test: {labels: null}               # images alone
      small: {folder: train, list: small.txt}

A pattern's fields in braces stand for part of the name of a file or folder each; the label of an image is the file with
the same fields. Further keys:

    classes   also the name of a known label space, such as cityscapes19, with its `ids` in the order of its classes
    a kind    `labels_as`, `label_channel`, `ignored_colours` as in `Pairs`, with ids of your choice for colours;
              `images`, where they lie elsewhere than those of other kinds
    a split   `labels`, the kind that it has by default; `images`, a pattern of its own; `list`, a text file of names,
              or {file, variable, digits} of numbers in a MATLAB file; `count`, the images of the whole release
    exclude   names to leave out, of all splits
    sizes     "differ": pairs of different sizes are left out
    becomes   by target label space, which class becomes which beyond names that agree, see `Remapped`
    channels, scaling   as in `Pairs`
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fcnseg.data.files.yaml_files import read_yaml
from fcnseg.errors import InputError
from fcnseg.label_spaces import get_label_space
from fcnseg.labels import IGNORE_INDEX, LabelSpace

SHIPPED = Path(__file__).parent / "layouts"

MOST_VALUES = 100_000
"""That a layout may have; all classes and a thousand names to leave out are a few thousand."""

PLAIN = ("images", "names", "sizes", "becomes", "channels", "scaling")
READING = ("labels_as", "label_channel", "ignored_colours")


@dataclass(frozen=True)
class Kind:
    """A kind of labels.

    Attributes:
        files: pattern of the label files.
        label_space: what their values mean.
        images: pattern of the images where it differs from the layout's.
        reading: how files are read, settings of `Pairs`.
    """

    files: str
    label_space: LabelSpace
    images: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """A split; the attributes are the keys above."""

    folder: str
    labels: str | None
    images: str | None = None
    list: Any = None
    exclude: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Layout:
    """A layout; the attributes are the keys above."""

    name: str
    images: str
    labels: Mapping[str, Kind]
    splits: Mapping[str, Split]
    names: str = "{name}"
    exclude: tuple[str, ...] = ()
    sizes: str = "equal"
    becomes: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    channels: int = 3
    scaling: str | None = None


def read_layout(source: str | Path) -> Layout:
    """A layout by the name of one that is shipped, or from a YAML file.

    Raises:
        InputError: naming the file and the key.
    """
    path = SHIPPED / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        names = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
        near = get_close_matches(str(source), names, n=3) or names
        raise InputError(f"layout {source}: no such file, and none that is shipped, such as {', '.join(near)}")
    return _layout(read_yaml(path, MOST_VALUES), str(path))


def fields_of(pattern: str) -> list[str]:
    """The fields of a pattern, in order.

    Raises:
        ValueError: when its braces do not match.
    """
    return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]


def _layout(found: Any, path: str) -> Layout:
    _check_keys(
        found, ("name", "source", "labels", "splits", "exclude", *PLAIN), ("name", "images", "labels", "splits"), path
    )
    name = str(found["name"])
    for key in ("labels", "splits"):
        if not isinstance(found[key], dict) or not found[key]:
            raise InputError(f"{path}, {key}: expected a mapping with at least one entry")
    if found.get("sizes", "equal") not in ("equal", "differ"):
        raise InputError(f"{path}, sizes: {found['sizes']!r}; expected equal or differ")
    becomes = found.get("becomes", {})
    if not isinstance(becomes, dict) or not all(isinstance(classes, dict) for classes in becomes.values()):
        raise InputError(f"{path}, becomes: expected a mapping such as {{cityscapes19: {{curb: sidewalk}}}}")
    labels = {str(key): _kind(kind, name, f"{path}, labels.{key}") for key, kind in found["labels"].items()}
    splits = {
        str(key): _split(split, str(key), labels, f"{path}, splits.{key}") for key, split in found["splits"].items()
    }
    others = {key: found[key] for key in PLAIN if key in found}
    layout = Layout(name, labels=labels, splits=splits, exclude=_names(found, path), **others)
    _check_patterns(layout, path)
    return layout


def _kind(found: Any, name: str, where: str) -> Kind:
    _check_keys(found, ("files", "classes", "ids", "ignored", "images", *READING), ("files", "classes"), where)
    classes = found["classes"]
    try:
        if isinstance(classes, str):
            space = get_label_space(classes)
            ids, ignored = found.get("ids", space.ids), found.get("ignored", space.ignored_ids)
            space = replace(space, ids=tuple(ids), ignored_ids=tuple(ignored))
        else:
            ids, names, colours = zip(*classes, strict=True)
            space = LabelSpace(name, tuple(map(str, names)), colours, ids, tuple(found.get("ignored", (IGNORE_INDEX,))))
    except InputError as error:
        raise InputError(f"{where}.classes: {error}") from None
    except (TypeError, ValueError):
        raise InputError(
            f"{where}.classes: expected a label space, or a list such as [[1, road, [128, 64, 128]]]"
        ) from None
    return Kind(found["files"], space, found.get("images"), {key: found[key] for key in READING if key in found})


def _split(found: Any, name: str, kinds: Mapping[str, Kind], where: str) -> Split:
    found = {} if found is None else found
    _check_keys(found, ("folder", "labels", "images", "list", "exclude", "count"), (), where)
    labels = found.get("labels", next(iter(kinds)))
    if labels is not None and (not isinstance(labels, str) or labels not in kinds):
        raise InputError(f"{where}.labels: {labels!r}; expected null or one of {', '.join(kinds)}")
    named = found.get("list")
    if isinstance(named, dict):
        _check_keys(named, ("file", "variable", "digits"), ("file", "variable"), f"{where}.list")
        digits = named.get("digits", 0)
        if not isinstance(named["variable"], str) or type(digits) is not int or not 0 <= digits <= 99:
            raise InputError(f"{where}.list: expected the name of a variable, and digits from 0 to 99")
    elif named is not None and not isinstance(named, str):
        raise InputError(
            f"{where}.list: {named!r}; expected a file of names, or a mapping of file, variable and digits"
        )
    folder = str(found.get("folder", name))
    for key, place in (("folder", folder), ("list", named["file"] if isinstance(named, dict) else named)):
        if place is not None:
            _require_below(place, f"{where}.{key}")
    exclude = _names(found, where)
    return Split(folder, labels, found.get("images"), named, exclude, found.get("count"))


def _names(found: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The names that a layout or a split excludes."""
    names = found.get("exclude") or []
    if not isinstance(names, list):
        raise InputError(f"{where}.exclude: {names!r}; expected a list of names")
    return tuple(map(str, names))


def _check_patterns(layout: Layout, path: str) -> None:
    """Refuse patterns that are none, or labels with fields that no image tells."""
    images = {"images": layout.images} | {
        f"{what}.{key}.images": entry.images
        for what, entries in (("labels", layout.labels), ("splits", layout.splits))
        for key, entry in entries.items()
        if entry.images is not None
    }
    for where, pattern in images.items():
        if "name" not in _fields(pattern, f"{path}, {where}"):
            raise InputError(f"{path}, {where}: {pattern!r}; expected a pattern with {{name}}")
    known = {"split", *_fields(layout.images, path)}
    told = {"names": (layout.names, known)}
    for key, kind in layout.labels.items():
        told[f"labels.{key}.files"] = kind.files, {"split", *_fields(kind.images or layout.images, path)}
    for where, (pattern, fields) in told.items():
        if unknown := [name for name in _fields(pattern, f"{path}, {where}") if name not in fields]:
            raise InputError(
                f"{path}, {where}: {{{unknown[0]}}} is no field of the images; they have {', '.join(sorted(fields))}"
            )


def _fields(pattern: Any, where: str) -> list[str]:
    try:
        found = fields_of(pattern)
    except (TypeError, ValueError):
        found = [""]
    if any(not name.isidentifier() for name in found):
        raise InputError(f"{where}: {pattern!r}; expected a path with fields in braces, such as rgb/{{name}}.png")
    _require_below(pattern, where)
    return found


def _require_below(path: Any, where: str) -> None:
    """Refuse paths that lead out of the folder that holds the dataset: a layout may be from anybody."""
    if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"{where}: {path!r}; expected a path below the dataset's folder, without ..")


def _check_keys(found: Any, known: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected a mapping with {', '.join(needed or known)}")
    for key in found:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise InputError(
                f"{where}: no such key {key!r}; "
                + (f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}")
            )
    if missing := [key for key in needed if key not in found]:
        raise InputError(f"{where}: {missing[0]} is missing")
