"""Looking at every pair of a dataset, in parallel: what each holds, and every mistake in it."""

import hashlib
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fcnseg.cores import available_cores
from fcnseg.data.dataset import Remapped, SegmentationDataset, Subset, Wrapper, is_labelled
from fcnseg.data.datasets.pairs import labelled
from fcnseg.data.files.checksum import sha256
from fcnseg.data.files.images import read_image
from fcnseg.data.files.values import max_bytes
from fcnseg.data.resizing import scale_values
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace
from fcnseg.workers import begin_worker

MANY_VALUES = 8
"""From so many values outside the label space on, a label is taken to be smoothed or compressed with loss."""

CHUNK = 8  # pairs that a process gets at once; an interruption waits for no more than these

MESSAGES = (
    ("FCNSEG_MAX_BYTES", "too many bytes"),
    ("colours of no class", "colour of no class"),
    ("one channel of class indices", "label in colours"),
    (r"has \d+ channels? of", "wrong number of channels"),
)
"""Which kind of mistake the reader's refusals are; all others are unreadable files."""


@dataclass(frozen=True)
class Problem:
    """One mistake in one file.

    Attributes:
        kind: which one, a key of `fcnseg.data.inspection.report.KINDS`.
        file: its path, or what else is concerned, such as a class.
        detail: what exactly.
    """

    kind: str
    file: str
    detail: str = ""


@dataclass(frozen=True)
class InspectedSplit:
    """A dataset to look at, which is one split of a whole.

    Attributes:
        name: "train", "val", or "train/NAME" of several domains.
        dataset: its pairs.
        problems: what was found while its files were listed.
    """

    name: str
    dataset: SegmentationDataset
    problems: tuple[Problem, ...] = ()

    @property
    def files(self) -> Any:
        """The dataset that reads the files, below all wrappers; None where samples have no files, or no labels."""
        inner = _inner(self.dataset)
        return (
            inner
            if is_labelled(inner) and all(hasattr(inner, name) for name in ("images", "labels", "read_values"))
            else None
        )

    def place(self, index: int) -> int:
        """Where a sample stands in `files`."""
        dataset: Any = self.dataset
        while isinstance(dataset, Wrapper):
            index = dataset.place(index) if isinstance(dataset, Subset) else index
            dataset = dataset.dataset
        return index


@dataclass(frozen=True, eq=False)
class Facts:
    """What one pair holds.

    Attributes:
        split, index: where it stands.
        name: of the sample.
        image, label: the two paths, or the sample's name where it has no files.
        problems: mistakes in the two files.
        size: (height, width) of the image; None where it is unreadable.
        form: channels and type of the image file, such as "RGB uint8".
        pixels: (num_classes,) pixels of each class.
        ignored: pixels that do not count.
        digest, label_digest: hashes of the pixels of the two.
        perceptual_hash: of the image, 64 bits; None where all its pixels are equal.
        checksums: SHA-256 of the two files, where asked for.
    """

    split: str
    index: int
    name: str
    image: str
    label: str
    problems: tuple[Problem, ...] = ()
    size: tuple[int, int] | None = None
    form: str = ""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ignored: int = 0
    digest: str = ""
    label_digest: str = ""
    perceptual_hash: int | None = None
    checksums: tuple[str, str] | None = None


def examine(split: InspectedSplit, index: int, checksums: bool = False) -> Facts:
    """Read one pair and tell what it holds; a mistake in its files is told, never raised."""
    number = split.dataset.label_space.num_classes
    if split.files is None:
        return _examine_sample(split, index)
    place = split.place(index)
    image, label = Path(split.files.images[place]), Path(split.files.labels[place])
    problems: list[Problem] = []
    pixels = _attempt(image, "image", lambda: read_image(image, getattr(split.files, "channels", 3)), problems)
    values = _attempt(label, "label", lambda: split.files.read_values(label), problems)
    found: dict[str, Any] = {"pixels": np.zeros(number, np.int64)}
    if pixels is not None:
        found |= _image_facts(image, pixels, problems)
    if values is not None:
        seen = None if pixels is None else scale_values(pixels, getattr(split.files, "scaling", None))
        found |= _label_facts(split, label, values, labelled(label, values, seen), problems)
    if pixels is not None and values is not None and pixels.shape[:2] != values.shape:
        detail = f"{values.shape[1]}x{values.shape[0]}, its image {pixels.shape[1]}x{pixels.shape[0]}"
        problems.append(Problem("label of another size", str(label), detail))
    if label.suffix.lower() in (".jpg", ".jpeg"):
        problems.append(Problem("label compressed with loss", str(label), "JPEG changes values"))
    sums = _checksums(image, label) if checksums else None
    expected = split.files.checksums(place) if hasattr(split.files, "checksums") else None
    if expected is not None:
        now = sums or _checksums(image, label)
        changed = [file for file, old, new in zip((image, label), expected, now, strict=True) if new and old != new]
        problems += [Problem("changed file", str(file), "not the checksum of dataset.yaml") for file in changed]
    name = sample_name(split.files, place)
    return Facts(split.name, index, name, str(image), str(label), tuple(problems), checksums=sums, **found)


def sample_name(files: Any, index: int) -> str:
    """How a dataset calls a sample, without reading it."""
    if callable(getattr(files, "name", None)):
        return files.name(index)
    return files.names[index] if hasattr(files, "names") else Path(files.images[index]).stem


def examine_all(
    splits: Sequence[InspectedSplit],
    *,
    checksums: bool = False,
    workers: int | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> list[Facts]:
    """The facts of every pair, in order, by several processes.

    Args:
        splits: what to look at.
        checksums: whether to hash the files.
        workers: processes; by default one for each core that this process may use.
        advance: called for every pair that is done.

    Raises:
        InputError: when a process was killed, as systems do where memory ends.
        KeyboardInterrupt: when interrupted, once the processes have ended.
    """
    max_bytes()  # a setting that cannot be is refused once, not for each file
    tasks = [(i, index) for i, split in enumerate(splits) for index in range(len(split.dataset))]
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    count = min(workers or available_cores(), len(chunks))
    found: dict[int, list[Facts]] = {}
    for position, facts in _run(splits, chunks, checksums, count):
        found[position] = facts
        for _ in facts:
            advance()
    return [facts for position in range(len(chunks)) for facts in found[position]]


def lenient_mask(dataset: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) mask of a label's values, and where they are outside the label space (ignored in the mask).

    Args:
        dataset: a dataset of files, or one that maps its classes.
        values: (H, W) uint16 of the label file.
    """
    found = _inner(dataset).label_space.lookup[values]
    outside = found < 0
    mask = np.where(outside, IGNORE_INDEX, found).astype(np.uint8)
    return _as_classes(dataset, mask), outside


def _run(
    splits: Sequence[InspectedSplit], chunks: list[list[tuple[int, int]]], checksums: bool, count: int
) -> Iterator[tuple[int, list[Facts]]]:
    if count <= 1:
        _tell(splits, checksums)
        for position, chunk in enumerate(chunks):
            yield position, _work(chunk)
        return
    # Forking shares the file lists; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(count, context, _start, (splits, checksums)) as pool:
        try:
            futures = {pool.submit(_work, chunk): position for position, chunk in enumerate(chunks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError("a process that reads images was killed, perhaps for memory; try workers=1") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_state: tuple[Sequence[InspectedSplit], bool] = ((), False)


def _start(splits: Sequence[InspectedSplit], checksums: bool) -> None:
    """Prepare a process; the parent alone answers to Ctrl-C, and none outlives it."""
    begin_worker(interruptible=False)
    _tell(splits, checksums)


def _tell(splits: Sequence[InspectedSplit], checksums: bool) -> None:
    global _state
    _state = splits, checksums


def _work(chunk: list[tuple[int, int]]) -> list[Facts]:
    splits, checksums = _state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PIL warns of is a finding, or none
        return [examine(splits[i], index, checksums) for i, index in chunk]


# One file


def _attempt(path: Path, what: str, read: Callable[[], np.ndarray], problems: list[Problem]) -> np.ndarray | None:
    """What a file holds; None and a problem if that cannot be had."""
    if os.path.lexists(path) and not os.path.isfile(path):
        reason = "a link to nothing" if not os.path.exists(path) else "a folder" if path.is_dir() else "no plain file"
        problems.append(Problem(f"unreadable {what}", str(path), reason))
        return None  # to open a pipe would wait for ever
    try:
        found = read()
    except InputError as error:
        problems += _refusal(path, what, str(error).removeprefix(f"{path}: "))
        return None
    except Exception as error:  # decoders fail in every way on damaged files; all of them are told
        problems.append(Problem(f"unreadable {what}", str(path), f"{type(error).__name__}: {error}"))
        return None
    if found.size == 0:
        problems.append(Problem(f"unreadable {what}", str(path), "no pixels"))
        return None
    return found


def _refusal(path: Path, what: str, message: str) -> Iterator[Problem]:
    kind = next((kind for pattern, kind in MESSAGES if re.search(pattern, message)), f"unreadable {what}")
    message = re.sub(r"^cannot be read as an image \((.*)\)$", r"\1", message)  # the kind says so
    yield Problem(kind, str(path), message)
    if kind == "colour of no class" and re.search(r"and \d+ more colours", message):
        yield Problem("smoothed label", str(path), message)


def _image_facts(path: Path, pixels: np.ndarray, problems: list[Problem]) -> dict[str, Any]:
    constant = bool((pixels == pixels[0, 0]).all()) or _is_empty(pixels)
    if constant:
        value = ", ".join(f"{v:g}" for v in pixels[0, 0].tolist())
        problems.append(Problem("constant image", str(path), f"every pixel is {value}"))
    return {
        "size": pixels.shape[:2],
        "form": _form(path, pixels),
        "digest": digest(pixels),
        "perceptual_hash": None if constant else perceptual_hash(pixels),
    }


def _is_empty(pixels: np.ndarray) -> bool:
    return pixels.dtype.kind == "f" and bool(np.isnan(pixels).all())


def _form(path: Path, pixels: np.ndarray) -> str:
    """The channels of an image file as they stand in it, and their type."""
    names = {"L": "grey", "LA": "grey and alpha", "P": "palette", "RGBA": "RGB and alpha", "1": "black and white"}
    if pixels.dtype == np.uint8 and pixels.shape[2] <= 4:
        with suppress(OSError), Image.open(path) as image:
            return f"{names.get(image.mode, image.mode)} uint8"
    return f"{pixels.shape[2]} channel{'s' * (pixels.shape[2] != 1)} {pixels.dtype}"


def _label_facts(
    split: InspectedSplit, path: Path, values: np.ndarray, known: np.ndarray, problems: list[Problem]
) -> dict[str, Any]:
    space: LabelSpace = split.files.label_space
    counts = np.bincount(values[known], minlength=65536)
    present = np.flatnonzero(counts)
    outside = present[space.lookup[present] < 0].tolist()
    if outside:
        shown = ", ".join(f"{v} on {counts[v]} pixel{'' if counts[v] == 1 else 's'}" for v in outside[:5])
        more = f" and {len(outside) - 5} more values" if len(outside) > 5 else ""
        if present.tolist() == [0, IGNORE_INDEX]:
            more = "; 'values={0: background, 255: cell}' makes a class of it"
        problems.append(Problem("value outside the label space", str(path), shown + more))
    if len(outside) >= MANY_VALUES:
        problems.append(Problem("smoothed label", str(path), f"{len(present)} different values"))
    if present.tolist() == [0, IGNORE_INDEX] and IGNORE_INDEX not in space.ids:
        problems.append(Problem("label of 0 and 255 alone", str(path), f"255 on {counts[255]} pixels"))
    pixels = _class_pixels(split.dataset, counts)
    ignored = int(values.size - pixels.sum() - counts[outside].sum())
    if not pixels.any() and not outside:
        problems.append(Problem("empty label", str(path), f"all of its {values.size} pixels are ignored"))
    return {"pixels": pixels, "ignored": ignored, "label_digest": digest(values)}


def _class_pixels(dataset: Any, counts: np.ndarray) -> np.ndarray:
    """(num_classes,) pixels of the dataset's classes, from the (65536,) counts of its files' values."""
    inner = counts[list(_inner(dataset).label_space.ids)]
    mapped = np.zeros(256, np.int64)
    np.add.at(mapped, _as_classes(dataset, np.arange(len(inner), dtype=np.uint8)), inner)
    return mapped[: dataset.label_space.num_classes]


def _inner(dataset: Any) -> Any:
    """The dataset below all wrappers."""
    return _inner(dataset.dataset) if isinstance(dataset, Wrapper) else dataset


def _as_classes(dataset: Any, mask: np.ndarray) -> np.ndarray:
    """A mask of the innermost dataset's classes as one of the outermost's, through all mappings between."""
    if not isinstance(dataset, Wrapper):
        return mask
    inner = _as_classes(dataset.dataset, mask)
    return dataset.mapping(inner) if isinstance(dataset, Remapped) else inner


def _examine_sample(split: InspectedSplit, index: int) -> Facts:
    """The facts of a sample that has no files of its own, such as a drawn or a packed one."""
    number = split.dataset.label_space.num_classes
    name = f"{split.name}, sample {index}"
    try:
        image, mask, name = split.dataset[index]
    except InputError as error:
        problem = Problem("unreadable image", name, str(error))
        return Facts(split.name, index, name, name, name, (problem,), pixels=np.zeros(number, np.int64))
    problems: list[Problem] = []
    counts = np.bincount(mask.ravel(), minlength=256)
    if not counts[:number].any() and is_labelled(split.dataset):
        problems.append(Problem("empty label", name, f"all of its {mask.size} pixels are ignored"))
    constant = bool((image == image[0, 0]).all())
    if constant:
        problems.append(Problem("constant image", name))
    return Facts(
        split.name, index, name, name, name, tuple(problems), image.shape[:2],
        f"{image.shape[2]} channels {image.dtype}", counts[:number], int(counts[IGNORE_INDEX]),
        digest(image), digest(mask), None if constant else perceptual_hash(image),
    )  # fmt: skip


# Hashes


def digest(pixels: np.ndarray) -> str:
    """A hash of pixels with their shape and type, by which duplicates are known whatever their file format."""
    state = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits that hardly change when an image is resized or compressed: where its grey falls from left to right."""
    grey = pixels.astype(np.float32).mean(axis=2)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _checksums(image: Path, label: Path) -> tuple[str, str]:
    """SHA-256 of two files, as `sha256sum` shows it; empty where a file cannot be read."""
    return sha256(image), sha256(label)
