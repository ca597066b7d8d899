"""Datasets whose files are found by a layout, see `fcnseg.data.datasets.layout`."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from itertools import compress
from pathlib import Path
from typing import Any

from fcnseg.data.datasets.layout import Layout, Split, read_layout
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.images import image_size
from fcnseg.data.files.listing import find_files, read_names, require_folder, require_labels
from fcnseg.data.files.matlab import read_matlab
from fcnseg.data.files.path_list import PathList
from fcnseg.errors import InputError

Found = list[tuple[Path, dict[str, str]]]
"""Files, with the fields of each."""


class LaidOut(Pairs):
    """One split of a dataset that a layout describes.

    Args:
        layout: the name of one that is shipped, such as "gta5", or a YAML file of one's own.
        root: the folder that the layout's patterns begin in.
        split: one that it has.
        labels: which kind of labels to read; by default the split's own. "none": the images alone, as those of a split
            whose labels are not published, which then is an unlabelled domain.
        only: shell patterns that fields of the images must fit, such as {"condition": ["fog", "night"]}.
        exclude: names to leave out; by default those that the layout excludes.

    Attributes:
        becomes: by target label space, how its classes go there, which `Remapped` follows.

    Raises:
        InputError: when the layout is none, the folder is not laid out so, or an image has no label.
    """

    def __init__(
        self,
        layout: str | Path,
        root: str | Path,
        split: str = "train",
        labels: str | None = None,
        *,
        only: Mapping[str, str | Sequence[str]] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        described = read_layout(layout)
        part = _one(described.splits, split, f"{described.name}: split")
        kind = _kind(described, part, split, labels)
        chosen = described.labels[kind or part.labels or next(iter(described.labels))]
        root = require_folder(Path(root))
        pattern = part.images or chosen.images or described.images
        found = _all_files(root, pattern, part.folder)
        if not only and part.list is None and part.count not in (None, len(found)):
            _warn(f"{described.name}: split {split} has {len(found)} images here, {part.count} in its release")
        found = _chosen(_listed(found, part, root), only or {}, root)
        found = _without(found, [*described.exclude, *part.exclude] if exclude is None else exclude)
        files = None if kind is None else require_labels(_labels(found, root, chosen.files, part.folder))
        if files and described.sizes == "differ":
            found, files = _of_equal_size(found, files)
        names = [described.names.format(**fields, split=part.folder) for _, fields in found]
        self.becomes = dict(described.becomes)
        super().__init__(
            [path for path, _ in found], files, chosen.label_space, names,
            channels=described.channels, scaling=described.scaling, **chosen.reading,
        )  # fmt: skip


def _kind(layout: Layout, part: Split, split: str, labels: str | None) -> str | None:
    """The kind of labels to read, or None."""
    if labels == "none" or (labels is None and part.labels is None):
        return None
    if part.labels is None:
        raise InputError(f"{layout.name}: the labels of split {split!r} are not published; expected labels=none")
    if labels is not None:
        _one(layout.labels, labels, f"{layout.name}: labels")
    return labels or part.labels


def _one(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise InputError(f"{what} {name!r}; expected one of {', '.join(known)}")
    return known[name]


def _all_files(root: Path, pattern: str, split: str) -> Found:
    """The files of a pattern, sorted, with their fields.

    Raises:
        InputError: naming the first folder that is missing, or the pattern when no file fits.
    """
    parts = pattern.replace("{split}", split).split("/")
    fixed = next(i for i, part in enumerate(parts) if "{" in part)
    folder = root
    for part in parts[:fixed]:
        folder = require_folder(folder / part)
    inside = "/".join(parts[fixed:])
    wanted = re.compile(_expression(inside))
    files = find_files(folder, re.sub(r"\{\w+\}", "*", inside))
    fits = [(path, wanted.fullmatch(path.relative_to(folder).as_posix())) for path in files]
    return [(path, fit.groupdict()) for path, fit in fits if fit]


def _expression(pattern: str) -> str:
    """A regular expression of a pattern; a field that comes twice is the same both times."""
    seen: set[str] = set()
    pieces = []
    for text in re.split(r"(\{\w+\})", pattern):
        name = text[1:-1]
        if not text.startswith("{"):
            pieces.append(re.escape(text))
        else:
            pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
    return "".join(pieces)


def _labels(found: Found, root: Path, pattern: str, split: str) -> PathList:
    return PathList(root / pattern.format(**fields, split=split) for _, fields in found)


def _listed(found: Found, split: Split, root: Path) -> Found:
    """The files that a split's list names, all of which must be there."""
    if split.list is None:
        return found
    source = root / (split.list if isinstance(split.list, str) else split.list["file"])
    names = set(read_names(source) if isinstance(split.list, str) else _numbers(source, **split.list))
    if missing := sorted(names - {fields["name"] for _, fields in found}):
        more = f" ({len(missing)} of {len(names)} images are missing)" if len(missing) > 1 else ""
        raise InputError(f"{root}: no image {missing[0]}, but {source} names it{more}")
    return [(path, fields) for path, fields in found if fields["name"] in names]


def _numbers(path: Path, file: str, variable: str, digits: int = 0) -> list[str]:
    """The numbers of a variable of a MATLAB file, as names of so many digits."""
    values = read_matlab(path, lambda content: content[variable], f"a file with numbers {variable}")
    return [f"{int(value):0{digits}d}" for value in values.ravel()]


def _chosen(found: Found, only: Mapping[str, str | Sequence[str]], root: Path) -> Found:
    """The files whose fields fit shell patterns."""
    if not isinstance(only, Mapping):
        raise InputError(f"only={only}: expected a mapping such as {{{next(iter(found[0][1]))}: pattern}}")
    for name, patterns in only.items():
        if any(name not in fields for _, fields in found):
            raise InputError(f"only: the images have no field {name!r}; expected one of {', '.join(found[0][1])}")
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        kept = [(path, fields) for path, fields in found if any(fnmatchcase(fields[name], each) for each in wanted)]
        if not kept:
            values = ", ".join(sorted({fields[name] for _, fields in found})[:8])
            raise InputError(f"{root}: no {name} fits {' or '.join(wanted)}; there are {values}")
        found = kept
    return found


def _without(found: Found, names: Iterable[str]) -> Found:
    """The files but those of some names, with a warning."""
    names = set(names)
    kept = [(path, fields) for path, fields in found if fields["name"] not in names]
    if len(kept) < len(found):
        _warn(f"left out: {', '.join(sorted(fields['name'] for _, fields in found if fields['name'] in names))}")
    return kept


def _of_equal_size(found: Found, labels: PathList) -> tuple[Found, PathList]:
    """The pairs of equal size, with a warning of the others; reads the beginning of every file."""
    with ThreadPoolExecutor(8) as pool:  # which wait for the disk
        sizes = [list(pool.map(image_size, files)) for files in ([path for path, _ in found], labels)]
    equal = [size == other for size, other in zip(*sizes, strict=True)]
    if others := [path.name for (path, _), same in zip(found, equal, strict=True) if not same]:
        _warn(f"left out, since their labels have another size: {', '.join(others)}")
    return list(compress(found, equal)), PathList(compress(labels, equal))


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
