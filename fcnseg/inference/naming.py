"""Which images a path names, and what their results are called."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from fcnseg.data.files.listing import list_images
from fcnseg.errors import InputError


def find_images(source: str, results: Sequence[Path] = (), key: str = "input") -> tuple[list[Path], Path | None]:
    """The image files that a path or a glob pattern names, and the folder where it is one.

    A folder's are those of its subfolders too, but hidden ones and what lies in the folders of `results` within it.

    Args:
        key: of the setting, for messages.

    Raises:
        InputError: when there is none.
    """
    path = Path(source)
    if path.is_dir():
        own = [each for folder in results if (each := folder.resolve()) != path.resolve()]
        found = [
            each
            for each in list_images(path, recursive=True)
            if not any(part.startswith(".") for part in each.relative_to(path).parts)
            and not any(each.resolve().is_relative_to(folder) for folder in own)
        ]
        if not found:
            raise InputError(f"{key}={source}: no images")
        return found, path
    if path.is_file():
        return [path], None
    parent = Path(path.anchor or ".")
    pattern = str(path.relative_to(parent)) if path.is_absolute() else source
    if any(c in source for c in "*?["):
        if matching := sorted(p for p in parent.glob(pattern) if p.is_file()):
            return matching, None
        raise InputError(f"{key}={source}: no file matches")
    raise InputError(f"{key}={source}: no such file or folder")


def output_names(images: Sequence[Path], top: Path | None = None) -> list[Path]:
    """What the results of each image are called, without an ending; no two alike.

    They are called as the image, which lends its ending as well where only that tells it from another. Images of a
    folder keep their subfolders; those of a pattern keep them, as seen from the folder that holds them all, where
    images of several folders are called alike.

    Args:
        images: the files.
        top: the folder that they come from, where they come from one.
    """
    if top is not None:
        return _apart([path.relative_to(top) for path in images])
    homes = defaultdict(set)
    for path in images:
        homes[path.stem].add(path.parent)
    if all(len(folders) == 1 for folders in homes.values()):
        return _apart([Path(path.name) for path in images])
    common = os.path.commonpath([os.path.abspath(path.parent) for path in images])
    return _apart([Path(os.path.relpath(path, common)) for path in images])


def _apart(paths: Sequence[Path]) -> list[Path]:
    """Paths of images as names, with the endings of images as part of them where it has to be."""
    repeated = Counter(path.with_suffix("") for path in paths)
    names = [path if repeated[path.with_suffix("")] > 1 else path.with_suffix("") for path in paths]
    # Beside a.png and a.jpg there may be an a.png.png.
    return names if len(set(names)) == len(names) else list(paths)


def with_ending(name: Path, ending: str) -> Path:
    """A name that may have dots of its own, with an ending."""
    return name.with_name(f"{name.name}{ending}")
