"""Pairing the images of one folder with the labels of another, or of the same, by their names."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fcnseg.data.files.listing import is_image, list_images, require_folder, stem
from fcnseg.data.files.naming import Patterns, common_part, suggestion
from fcnseg.data.files.path_list import PathList
from fcnseg.errors import InputError


def paired(images: Path, labels: Path, recursive: bool, patterns: Patterns) -> tuple[PathList, PathList]:
    """The images of a folder, sorted, and the label of each, which has the same name, endings aside.

    One folder of labels is looked at after the other, so that a million names are never strings at once.

    Args:
        images, labels: the two folders.
        recursive: whether subfolders count; the labels then lie in subfolders of the same names.
        patterns: what the files are called, see `fcnseg.data.files.naming.common_part`.

    Raises:
        InputError: for a missing folder, an image without a label, or two files of a name.
    """
    one = is_one_folder(images, labels, patterns)
    found = list_images(images, recursive)
    if one or patterns[0] != "*":
        fits = partial(common_part, pattern=patterns[0], other=patterns[1] if one else None)
        found = PathList.of_runs(
            (home, [n for n in names if fits(stem(n)) is not None]) for home, names in found.runs()
        )
    require_folder(labels)
    try:
        return found, PathList.of_runs(_label_runs(found, images, labels, patterns, one))
    except KeyError:
        raise _unpaired(images, labels, recursive, patterns, one) from None


def common_names(images: PathList, folder: Path, pattern: str) -> PathList:
    """How pairs are called: by the image's place in its folder and what its name shares with the label's."""
    top = len(os.path.join(folder, ""))
    return PathList.of_runs(
        (home[top:], [str(common_part(stem(name), pattern)) for name in names]) for home, names in images.runs()
    )


def is_one_folder(images: Path, labels: Path, patterns: Patterns) -> bool:
    """Whether images and labels lie in the same folder.

    Raises:
        InputError: when they do, and nothing tells them apart.
    """
    if not (images.is_dir() and labels.is_dir() and images.samefile(labels)):
        return False
    if patterns[0] == patterns[1]:
        names = [path.stem for path in list_images(images)]
        found = suggestion(names, names) or "'label_names=*_mask' tells them apart where labels are called so"
        raise InputError(f"{images}: images and labels in one folder; {found}")
    return True


def _label_runs(
    images: PathList, top: Path, labels: Path, patterns: Patterns, one: bool
) -> Iterator[tuple[str, list[str]]]:
    """The labels of images below `top`, in their order.

    Raises:
        KeyError: when an image has none, or another image of its name has it.
    """
    start, _, end = patterns[1].partition("*")
    above, home = len(os.path.join(top, "")), os.path.join(labels, "")
    listed: dict[str, dict[str, str]] = {}  # of the folder in turn and those above it, to which files may return
    for folder, names in images.runs():
        inside = folder[above:]
        listed = {path: endings for path, endings in listed.items() if inside.startswith(path)}
        if inside not in listed:
            listed[inside] = _endings(home + inside, patterns[1], patterns[0] if one else None)
        endings = listed[inside]
        shared = [str(common_part(stem(name), patterns[0])) for name in names]
        yield home + inside, [f"{start}{name}{end}{endings.pop(name)}" for name in shared]


def _endings(folder: str, pattern: str, other: str | None) -> dict[str, str]:
    """The endings of a folder's labels by what their names share with their images; none where there is no folder."""
    found: dict[str, str] = {}
    if not os.path.isdir(folder):
        return found
    with os.scandir(folder) as entries:
        for file in (entry.name for entry in entries if is_image(entry)):
            bare = stem(file)
            name = common_part(bare, pattern, other)
            if name is not None and found.setdefault(name, file[len(bare) :]) != file[len(bare) :]:
                first, second = sorted((file, f"{bare}{found[name]}"))
                raise _ambiguous(Path(folder, second), first)
    return found


def _unpaired(images: Path, labels: Path, recursive: bool, patterns: Patterns, one: bool) -> InputError:
    """What keeps images from their labels, from a second look at all names."""
    pictures, by_name = (
        _by_name(folder, recursive, patterns[i], patterns[1 - i] if one else None)
        for i, folder in enumerate((images, labels))
    )
    missing = [path for name, path in pictures.items() if name not in by_name]
    if not missing:
        return InputError(f"{labels}: files come or go while they are listed; try again")
    more = f" ({len(missing)} images have none)" if len(missing) > 1 else ""
    found = suggestion(pictures, by_name)
    return InputError(f"{missing[0]}: no label of that name in {labels}{more}{found and f'; {found}'}")


def _by_name(folder: Path, recursive: bool, pattern: str, other: str | None) -> dict[str, Path]:
    """Files by their path in the folder without its ending, which must be unique to pair them."""
    found: dict[str, Path] = {}
    for path in list_images(folder, recursive):
        name = common_part(path.relative_to(folder).with_suffix("").as_posix(), pattern, other)
        if name is None:
            continue
        if first := found.get(name):
            raise _ambiguous(path, first.name)
        found[name] = path
    return found


def _ambiguous(path: Path, first: str) -> InputError:
    return InputError(f"{path}: {first} has the same name but for its ending; pairs would be ambiguous")
