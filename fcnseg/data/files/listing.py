"""Finding the files of datasets in their folders."""

import os
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from fcnseg.errors import InputError

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


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files of a folder by their ending, sorted by name; with those of its subfolders on request.

    What `is_hidden` names is passed over.

    Raises:
        InputError: when the folder is missing or holds none.
    """
    require_folder(folder)
    inside = _below(folder) if recursive else folder.iterdir()
    found = sorted(p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p.name) and not p.is_dir())
    if not found:
        raise InputError(f"{folder}: no images; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no sample.

    Those are `._x.png`, in which a Mac keeps what other disks cannot, `.x.png.A1b2C3` of an unfinished copy, `~$x.png`
    of an open document, and folders such as `.ipynb_checkpoints`, `__MACOSX` (of zip files) and `@eaDir` (of network
    drives).
    """
    return name.startswith((".", "~")) or name in ("__MACOSX", "@eaDir")


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(parent, name) for name in files)


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Files in a folder by shell pattern, sorted, without hidden ones.

    Raises:
        InputError: when there are none.
    """
    found = sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))
    if not found:
        raise InputError(f"{folder}: no files named {pattern}")
    return found


def labels_of(images: Iterable[Path], label_of: Callable[[Path], Path]) -> list[Path]:
    """The label file of every image; each folder is listed once, which is fast on network drives as well.

    Raises:
        InputError: naming the first label file that is missing, and how many are.
    """
    labels = [label_of(image) for image in images]
    present = {
        parent: {p.name for p in parent.iterdir()} if parent.is_dir() else set()
        for parent in {p.parent for p in labels}
    }
    if missing := [path for path in labels if path.name not in present[path.parent]]:
        more = f" ({len(missing)} of {len(labels)} labels are missing)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such label file{more}")
    return labels


def read_names(path: Path) -> list[str]:
    """Image names of a list, one in each line; further columns, folders and endings do not count.

    Raises:
        InputError: when the list is missing or empty.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of names ({error})") from error
    files = [Path(line.split()[0]) for line in lines if line.strip()]
    names = [file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name for file in files]
    if not names:
        raise InputError(f"{path}: an empty list; expected one image name in each line")
    return names
