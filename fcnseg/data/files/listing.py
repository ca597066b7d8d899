"""Finding the files of datasets in their folders."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from fcnseg.data.files.path_list import PathList
from fcnseg.errors import InputError, refuse_endless

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


def list_images(folder: Path, recursive: bool = False) -> PathList:
    """Image files of a folder by their ending, sorted by name; with those of its subfolders on request.

    What `is_hidden` names is passed over. Nothing is asked of a file beyond what the listing of its folder tells.

    Raises:
        InputError: when the folder is missing or holds none.
    """
    found = PathList.of_runs(image_runs(require_folder(folder), recursive))
    if not len(found):
        raise InputError(f"{folder}: no images; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def image_runs(folder: Path, recursive: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The files of `list_images` as runs of names in one folder, see `PathList.of_runs`; none without any."""
    return _runs(os.path.join(folder, ""), recursive)


def is_image(entry: "os.DirEntry[str]") -> bool:
    """Whether what a folder holds is an image file, by its name."""
    name = entry.name
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and not is_hidden(name) and not _is_folder(entry)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no sample.

    Those are `._x.png`, in which a Mac keeps what other disks cannot, `.x.png.A1b2C3` of an unfinished copy, `~$x.png`
    of an open document, and folders such as `.ipynb_checkpoints`, `__MACOSX` (of zip files) and `@eaDir` (of network
    drives).
    """
    return name.startswith((".", "~")) or name in ("__MACOSX", "@eaDir")


def _runs(folder: str, recursive: bool) -> Iterator[tuple[str, list[str]]]:
    files, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry):
                files.append(entry.name)
            elif recursive and not is_hidden(entry.name) and entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
    run: list[str] = []
    for name in sorted([*files, *folders]) if folders else sorted(files):
        if name not in folders:
            run.append(name)
            continue
        yield folder, run
        run = []
        with suppress(PermissionError):  # such as lost+found
            yield from _runs(os.path.join(folder, name, ""), recursive)
    yield folder, run


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def find_files(folder: Path, pattern: str) -> PathList:
    """Image files below a folder by shell pattern, such as "*/*_left.png", sorted, without hidden ones.

    Raises:
        InputError: when there are none.
    """
    *folders, name = pattern.split("/")
    found = PathList.of_runs(_fitting(os.path.join(folder, ""), folders, name))
    if not len(found):
        raise InputError(f"{folder}: no files named {pattern}")
    return found


def _fitting(folder: str, folders: list[str], name: str) -> Iterator[tuple[str, list[str]]]:
    with os.scandir(folder) as entries:
        if not folders:
            yield folder, sorted(entry.name for entry in entries if fnmatchcase(entry.name, name) and is_image(entry))
            return
        fitting = [entry for entry in entries if fnmatchcase(entry.name, folders[0]) and not is_hidden(entry.name)]
        inside = sorted(entry.name for entry in fitting if _is_folder(entry))
    for each in inside:
        yield from _fitting(os.path.join(folder, each, ""), folders[1:], name)


def labels_of(images: Iterable[Path], folder_of: Callable[[Path], Path], name_of: Callable[[str], str]) -> PathList:
    """The label file of every image, which `require_labels` looks for.

    Args:
        images: the files.
        folder_of: the folder of the labels, of the images' one.
        name_of: a label's name, of its image's without the ending.

    Raises:
        InputError: naming the first label file that is missing, and how many are.
    """

    def runs() -> Iterator[tuple[str, list[str]]]:
        for folder, names in PathList.of(images).runs():
            yield os.path.join(folder_of(Path(folder)), ""), [name_of(stem(name)) for name in names]

    return require_labels(PathList.of_runs(runs()))


def require_labels(labels: PathList) -> PathList:
    """Return label files if all of them are there.

    Raises:
        InputError: naming the first that is missing, and how many are.
    """
    if missing := missing_files(labels):
        more = f" ({len(missing)} of {len(labels)} labels are missing)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such label file{more}")
    return labels


def missing_files(files: PathList) -> list[str]:
    """Those that are not in their folders, each of which is listed once, which is fast on network drives as well."""
    present = lru_cache(maxsize=4)(_names_in)  # files come folder by folder
    return [f"{folder}{name}" for folder, names in files.runs() for name in names if name not in present(folder or ".")]


def outside_of(folder: Path, files: PathList) -> str | None:
    """The first file that does not lie below a folder, by its path alone: links in the folder are its owner's.

    Each of their folders is looked at once.
    """
    homes = (folder, Path(os.path.abspath(folder)))
    for place, names in files.runs():
        path = Path(place)
        below = next((path.relative_to(home) for home in homes if path.is_relative_to(home)), None)
        if below is None or ".." in (*below.parts, *names):
            return f"{place}{names[0]}"
    return None


def require_inside(source: Path, *files: PathList) -> None:
    """Refuse what a file lists of other places than its folder: it may be from anybody, and they are anywhere.

    Raises:
        InputError: naming the file, the first path, and the setting that allows it.
    """
    if found := next((path for each in files if (path := outside_of(source.parent, each))), None):
        raise InputError(
            f"{source}: names {found}, which lies outside of its folder; where you trust the file, allow that by "
            "outside=true (data.outside=true of data=described)"
        )


def stem(name: str) -> str:
    """A file's name without its ending."""
    return name.rpartition(".")[0] or name


def _names_in(folder: str) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()


def read_names(path: Path) -> list[str]:
    """Image names of a list, one in each line; further columns, folders and endings do not count.

    Raises:
        InputError: when the list is missing or empty.
    """
    refuse_endless(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of names ({error})") from error
    files = [Path(line.split()[0]) for line in lines if line.strip()]
    names = [file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name for file in files]
    if not names:
        raise InputError(f"{path}: an empty list; expected one image name in each line")
    return names
