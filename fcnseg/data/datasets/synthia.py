"""SYNTHIA: rendered streets with exact labels, in its three packages.

Ros, Sellart, Materzynska, Vazquez, Lopez, "The SYNTHIA Dataset: A Large Collection of Synthetic Images for Semantic
Segmentation of Urban Scenes" (CVPR 2016). From synthia-dataset.net, for research that is not commercial; the terms are
there. Layouts and ids are those of the README files in the packages:

    SYNTHIA-RAND-CVPR16, 13,407 random views, 960x720
        root/RGB/NAME.png   root/GTTXT/NAME.txt: rows of ids, separated by spaces, -1 for void
        root/GT/NAME.png: colours
    SYNTHIA-RAND-CITYSCAPES, random views with the classes of Cityscapes, 1280x760
        root/RGB/NAME.png   root/GT/LABELS/NAME.png
    SYNTHIA-SEQS, videos at 5 frames a second in several seasons, seen by two stereo cameras with four views each
        root/SYNTHIA-SEQS-04-DAWN/RGB/Stereo_Left/Omni_F/000000.png
        root/SYNTHIA-SEQS-04-DAWN/GT/LABELS/Stereo_Left/Omni_F/000000.png

A file in GT/LABELS is a 16-bit PNG of three channels: the class in the first, red, and an instance number in the
second. There is no official split. Ours, of `fcnseg.data.datasets.splits`, is by blocks of consecutive frames for the
two packages of random views, where the two sides of a block's border still are neighbours, and by whole sequences for
the videos.
"""

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.datasets.splits import split_blocks, split_files
from fcnseg.data.files.images import read_label
from fcnseg.data.files.listing import labels_of, list_images, require_folder
from fcnseg.data.files.path_list import PathList
from fcnseg.data.files.values import require_bytes
from fcnseg.errors import InputError, refuse_endless
from fcnseg.label_spaces import SYNTHIA, SYNTHIA_CITYSCAPES

# Lane markings are (0, 172, 0) in the README of SYNTHIA-SEQS and (0, 175, 0) in other tables of the same classes.
COLOURS = (((0, 0, 0), 0), *zip(SYNTHIA.palette, SYNTHIA.ids, strict=True), ((0, 175, 0), 12))
"""The id of every colour in the GT folder of SYNTHIA-RAND-CVPR16."""

CORRUPT = (
    "ap_000_01-11-2015_19-20-57_000008_1_Rand_0",
    "ap_000_02-11-2015_18-02-19_000062_3_Rand_2",
    "ap_000_02-11-2015_18-02-19_000129_2_Rand_16",
)
"""Frames of SYNTHIA-RAND-CVPR16 that public loaders list as damaged (`error_images` in those of S. Wu), without saying
in which way."""


class SynthiaRand(Pairs):
    """SYNTHIA-RAND-CVPR16, in the classes of `SYNTHIA`.

    Args:
        root: the folder that holds `RGB` and `GTTXT` or `GT`.
        split: "train", "val" or "all".
        labels: "text" reads `GTTXT`, "colour" reads `GT`, "auto" the first that is there.
        exclude: names to leave out of either split, which then are warned of; by default the frames of `CORRUPT`.
        val_share, block, seed: of the split; see `fcnseg.data.datasets.splits.split_blocks`.

    Raises:
        InputError: when the folder is not laid out so, an image has no label, or the split is impossible.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        labels: str = "auto",
        *,
        exclude: Sequence[str] = CORRUPT,
        val_share: float = 0.1,
        block: int = 50,
        seed: int = 0,
    ) -> None:
        if labels not in ("auto", "text", "colour"):
            raise InputError(f"labels {labels!r} of SYNTHIA-RAND: expected auto, text or colour")
        folder = require_folder(Path(root))
        if labels == "auto":
            labels = "text" if (folder / "GTTXT").is_dir() else "colour"
        where, ending = ("GTTXT", "txt") if labels == "text" else ("GT", "png")
        annotations = require_folder(folder / where)
        images = split_files(list_images(folder / "RGB"), split, val_share=val_share, block=block, seed=seed)
        images = _without(images, exclude)
        super().__init__(images, labels_of(images, lambda _: annotations, f"{{}}.{ending}".format), SYNTHIA)

    def read_values(self, path: Path) -> np.ndarray:
        return read_text(path) if path.suffix == ".txt" else read_label(path, colours=COLOURS)


class SynthiaRandCityscapes(Pairs):
    """SYNTHIA-RAND-CITYSCAPES, in the classes of `SYNTHIA_CITYSCAPES`.

    Args:
        root: the folder that holds `RGB` and `GT`.
        split: "train", "val" or "all".
        val_share, block, seed: of the split; see `fcnseg.data.datasets.splits.split_blocks`.

    Raises:
        InputError: when the folder is not laid out so, an image has no label, or the split is impossible.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, val_share: float = 0.1, block: int = 50, seed: int = 0
    ) -> None:
        folder = require_folder(Path(root))
        annotations = require_folder(require_folder(folder / "GT") / "LABELS")
        images = split_files(list_images(folder / "RGB"), split, val_share=val_share, block=block, seed=seed)
        labels = labels_of(images, lambda _: annotations, "{}.png".format)
        super().__init__(images, labels, SYNTHIA_CITYSCAPES, label_channel=0)


class SynthiaSeqs(Pairs):
    """Videos of SYNTHIA-SEQS, in the classes of `SYNTHIA`.

    Videos of one number in different seasons show the same streets. The split therefore is by numbers: `val_share` of
    them, at least one, are for validation, with all seasons, cameras and views. With `block` it is by blocks of frames
    instead, those of the same frame numbers in all seasons on one side; seasons do not run in step, so that streets
    near a block's border are on both sides.

    Args:
        root: the folder that holds folders such as `SYNTHIA-SEQS-04-DAWN`, or one of these.
        split: "train", "val" or "all".
        sequences: shell pattern or patterns of the sequences' folders, such as "*-04-*" or "*-SUMMER".
        cameras: pattern or patterns of the cameras, `Stereo_Left` and `Stereo_Right`.
        views: pattern or patterns of the views, `Omni_F`, `Omni_R`, `Omni_B` and `Omni_L`.
        val_share, block, seed: of the split; see `fcnseg.data.datasets.splits.split_blocks`. Without `block` all
            frames of a number are one.

    Raises:
        InputError: when a pattern finds nothing, an image has no label, or the split is impossible, such as that of a
            single number without `block`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        sequences: str | Sequence[str] = "*",
        cameras: str | Sequence[str] = "Stereo_Left",
        views: str | Sequence[str] = "Omni_F",
        *,
        val_share: float = 0.2,
        block: int | None = None,
        seed: int = 0,
    ) -> None:
        images = _sequence_images(require_folder(Path(root)), sequences, cameras, views)
        frames = [(_number(path.parts[-5]), path.stem) for path in images]
        numbers = sorted({number for number, _ in frames})
        if split in ("train", "val") and block is None and len(numbers) == 1:
            raise InputError(
                f"{root}: the frames are of one sequence, {numbers[0]}, and the split is by sequence; "
                "expected several, or block=50 to split its frames"
            )
        block = len(frames) if block is None else block
        images = [images[i] for i in split_blocks(frames, split, val_share=val_share, block=block, seed=seed)]
        names = ["_".join((*path.parts[-5:-4], *path.parts[-3:-1], path.stem)) for path in images]
        super().__init__(images, labels_of(images, _label_folder, "{}.png".format), SYNTHIA, names, label_channel=0)


def read_text(path: Path) -> np.ndarray:
    """The (H, W) values of a text file with a row of ids in each line; -1, which is void, becomes 0.

    Raises:
        InputError: when the file is unreadable, a value is no id, or the rows differ in length.
    """
    refuse_endless(path)
    try:
        require_bytes(path, path.stat().st_size, "rows of ids")
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        values = np.array(b" ".join(lines).split(), np.int32)
        values = np.where(values == -1, 0, values)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise ValueError(f"{values.min()} to {values.max()}; expected -1 to 65535")
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as rows of ids ({error})") from error
    widths = {len(line.split()) for line in lines}
    if len(widths) != 1:
        raise InputError(
            f"{path}: rows of {sorted(widths)[:2]} ids; expected equal rows" if widths else f"{path}: empty"
        )
    return values.astype(np.uint16).reshape(len(lines), -1)


def _without(images: PathList, names: Sequence[str]) -> PathList:
    """Images but those of some names, with a warning."""
    if found := sorted({path.stem for path in images} & set(names)):
        warnings.warn(f"left out as damaged: {', '.join(found)}; exclude=[] takes all frames", stacklevel=3)
    return PathList(path for path in images if path.stem not in names)


def _number(sequence: str) -> str:
    """What stands in a sequence's name for its streets: "04" of SYNTHIA-SEQS-04-DAWN."""
    found = re.search(r"SEQS-(\d+)", sequence)
    return found.group(1) if found else sequence


def _sequence_images(
    root: Path, sequences: str | Sequence[str], cameras: str | Sequence[str], views: str | Sequence[str]
) -> list[Path]:
    root = root.absolute()  # a frame's sequence is told by its path
    folders = [root] if (root / "RGB").is_dir() else _matching(root, sequences)
    return [
        image
        for folder in folders
        for camera in _matching(require_folder(folder / "RGB"), cameras)
        for view in _matching(camera, views)
        for image in list_images(view)
    ]


def _matching(folder: Path, patterns: str | Sequence[str]) -> list[Path]:
    """Folders inside a folder whose names fit a shell pattern, or one of several."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [path for path in inside if any(fnmatchcase(path.name, pattern) for pattern in wanted)]
    if not found:
        names = ", ".join(path.name for path in inside[:8]) or "no folder"
        raise InputError(f"{folder}: no folder fits {' or '.join(wanted)}; it has {names}")
    return found


def _label_folder(images: Path) -> Path:
    """Where the labels of a view's images lie."""
    return images.parents[2] / "GT" / "LABELS" / images.parent.name / images.name
