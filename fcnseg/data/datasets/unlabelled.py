"""Images without labels, to train on beside others that have them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.listing import find_files, list_images, require_folder
from fcnseg.errors import InputError, refuse_endless
from fcnseg.label_spaces import get_label_space
from fcnseg.labels import LabelSpace


class Unlabelled(Pairs):
    """Images without labels: every pixel of a mask is ignored.

    They train beside labelled domains, for methods that learn from images alone; losses over labels pass them over.

    Args:
        images: a folder; a pattern such as "drives/*/left/*.png"; a text file with an image's path in each line,
            relative to its folder; or a sequence of paths.
        label_space: that of the labelled domains beside them, or its name.
        recursive: whether a folder's subfolders count.
        reading: `channels` and `scaling`, see `Pairs`.

    Raises:
        InputError: when there are no images.
    """

    def __init__(
        self,
        images: str | Path | Sequence[str | Path],
        label_space: LabelSpace | str,
        *,
        recursive: bool = False,
        **reading: Any,
    ) -> None:
        super().__init__(_images(images, recursive), None, get_label_space(label_space), **reading)


def _images(images: str | Path | Sequence[str | Path], recursive: bool) -> Iterable[Path]:
    if not isinstance(images, str | Path):
        found = [Path(path) for path in images]
    elif Path(images).is_dir():
        return list_images(Path(images), recursive)
    elif "*" in str(images):
        path = Path(images)
        fixed = next(i for i, part in enumerate(path.parts) if "*" in part)
        return find_files(require_folder(Path(*path.parts[:fixed])), str(Path(*path.parts[fixed:])))
    else:
        found = _lines(Path(images))
    if not found:
        raise InputError("images: an empty list; expected at least one image")
    if missing := [path for path in found if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such image")
    return found


def _lines(path: Path) -> list[Path]:
    """The files that a text file lists."""
    refuse_endless(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: neither a folder of images nor a list of their paths ({error})") from error
    return [path.parent / line.strip() for line in lines if line.strip()]
