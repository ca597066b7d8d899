"""Finding the pairs of plain folders without stopping at a mistake, and splitting them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.classes import distinct_colours, label_space_from_file
from fcnseg.data.datasets.pairs import PairedFiles, Pairs
from fcnseg.data.datasets.splits import split_blocks
from fcnseg.data.files.images import read_image, read_label
from fcnseg.data.files.listing import IMAGE_SUFFIXES, is_hidden, require_folder
from fcnseg.data.files.naming import Patterns, check_patterns, common_part, suggestion
from fcnseg.data.files.pairing import is_one_folder
from fcnseg.data.inspection.samples import InspectedSplit, Problem, sample_name
from fcnseg.errors import InputError
from fcnseg.label_spaces import LABEL_SPACES, get_label_space
from fcnseg.labels import IGNORE_INDEX, LabelSpace


def pair_folders(
    images: str | Path,
    labels: str | Path,
    label_space: LabelSpace,
    split: str,
    recursive: bool = False,
    patterns: Patterns = ("*", "*"),
    **reading: Any,
) -> InspectedSplit:
    """The images of one folder with the labels of the same names in another, and all that does not pair.

    Args:
        images, labels: the two folders.
        label_space: what the values in the label files mean.
        split: what the split is called.
        recursive: whether subfolders count.
        patterns: what images and labels are called, see `fcnseg.data.files.naming`.
        reading: how files are read, see `fcnseg.data.datasets.pairs.Pairs`.

    Raises:
        InputError: when a folder is missing or cannot be listed, or nothing tells images and labels in one folder
            apart.
    """
    check_patterns(patterns)
    folders = Path(images), Path(labels)
    one = is_one_folder(*folders, patterns)
    (pictures, problems), (by_name, more) = (
        list_by_name(folder, recursive, patterns[i], patterns[1 - i] if one else None)
        for i, folder in enumerate(folders)
    )
    problems += [problem for problem in more if not one or problem.kind != "not an image"]  # those were told already
    lonely = [path for name, path in pictures.items() if name not in by_name]
    found = suggestion(pictures, by_name) if lonely else ""
    why = f"none of its name in {labels}{found and f'; {found}'}"
    problems += [Problem("image without label", str(path), why) for path in lonely]
    lonely = [path for name, path in by_name.items() if name not in pictures]
    problems += [Problem("label without image", str(path), f"none of its name in {images}") for path in lonely]
    names = [name for name in pictures if name in by_name]
    files = [pictures[name] for name in names], [by_name[name] for name in names]
    return InspectedSplit(split, Pairs(*files, label_space, names if recursive else None, **reading), tuple(problems))


def pair_listed(
    pairs: str | Path, label_space: LabelSpace, split: str, outside: bool = False, **reading: Any
) -> InspectedSplit:
    """The pairs that a CSV file lists, also outside of its folder where that is allowed.

    Raises:
        InputError: naming the CSV file and its row.
    """
    return InspectedSplit(split, PairedFiles(pairs, label_space, outside=outside, **reading))


def list_by_name(
    folder: Path, recursive: bool = False, pattern: str = "*", other: str | None = None
) -> tuple[dict[str, Path], list[Problem]]:
    """Image files by their path in the folder without its ending, sorted; and what cannot be one.

    Args:
        folder: with the files.
        recursive: whether subfolders count.
        pattern, other: what files are called, see `fcnseg.data.files.naming.common_part`.

    Raises:
        InputError: when the folder is missing or cannot be listed.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in sorted(_below(require_folder(folder), recursive, problems)):
        name = common_part(path.relative_to(folder).with_suffix("").as_posix(), pattern, other)
        if is_hidden(path.name):
            problems.append(Problem("not an image", str(path), "hidden or temporary, by its name"))
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.append(Problem("not an image", str(path), f"its ending is {path.suffix or 'missing'}"))
        elif name is None:
            if other is None:  # else it belongs to the other pattern, or to neither as what else lies there
                problems.append(Problem("another name", str(path), f"expected names like {pattern}"))
        elif name in found:
            problems.append(Problem("ambiguous name", str(path), f"{found[name].name} differs in its ending alone"))
        else:
            found[name] = path
    return found, problems


def _below(folder: Path, recursive: bool, problems: list[Problem], top: bool = True) -> Iterator[Path]:
    """Everything in a folder that is no folder."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if top:
            raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
        problems.append(Problem("unreadable folder", str(folder), str(error.strerror)))
        return
    for entry in entries:
        path = folder / entry.name
        if not path.is_dir():
            yield path
        elif is_hidden(entry.name):
            continue
        elif recursive and not entry.is_symlink():
            yield from _below(path, True, problems, top=False)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            problems.append(Problem("folder named like an image", str(path)))


def split_pairs(
    pairs: InspectedSplit, share: float, block: int = 1, seed: int = 0, **reading: Any
) -> tuple[InspectedSplit, InspectedSplit]:
    """Pairs cut into training and validation by the names of its samples; the order of files has no influence.

    Args:
        pairs: of files.
        share: of the pairs for validation, above 0 and below 1.
        block: neighbours by name that stay together, such as the frames of a video.
        seed: of the draw.
        reading: how files are read, see `fcnseg.data.datasets.pairs.Pairs`.

    Raises:
        InputError: for a share or block out of range, or too few pairs.
    """
    frames = [("", sample_name(pairs.dataset, index)) for index in range(len(pairs.dataset))]
    train, val = (
        select(pairs.dataset, split_blocks(frames, split, val_share=share, block=block, seed=seed), **reading)
        for split in ("train", "val")
    )
    return InspectedSplit("train", train, pairs.problems), InspectedSplit("val", val)


def select(files: Any, indices: Sequence[int], **reading: Any) -> Pairs:
    """Some pairs of a dataset of files, under the same names."""
    images, labels = [files.images[i] for i in indices], [files.labels[i] for i in indices]
    return Pairs(images, labels, files.label_space, [sample_name(files, i) for i in indices], **reading)


def label_space_of_values(values: Any, ignored: tuple[int, ...] | None = None) -> LabelSpace:
    """The label space of a mapping of file values to class names, the classes in its order.

    Args:
        values: such as {0: "background", 255: "cell", 128: None}, where None ignores a value.
        ignored: further values that do not count; by default 255, unless it is a class.

    Raises:
        InputError: when it is something else, or a class stands twice.
    """
    example = "expected a mapping such as {0: background, 255: cell, 128: null}, null for what does not count"
    if not isinstance(values, Mapping) or any(name is not None and not str(name).strip() for name in values.values()):
        raise InputError(f"values={values}: {example}")
    named = {value: str(name).strip() for value, name in values.items() if name is not None}
    if not named or any(not isinstance(v, int) or isinstance(v, bool) or not 0 <= v <= 65535 for v in values):
        raise InputError(f"values={values}: {example}, with whole numbers from 0 to 65535")
    if repeated := [name for name in named.values() if list(named.values()).count(name) > 1]:
        raise InputError(f"values={values}: the class {repeated[0]} stands twice; expected one value for each class")
    if twice := [value for value in ignored or () if value in named]:
        raise InputError(f"ignored={list(ignored or ())}: {twice[0]} is the class {named[twice[0]]} in values")
    others = (IGNORE_INDEX,) if ignored is None and IGNORE_INDEX not in named else ignored or ()
    left_out = dict.fromkeys([*(value for value, name in values.items() if name is None), *others])
    return LabelSpace(
        "values", tuple(named.values()), tuple(distinct_colours(len(named))), tuple(named), tuple(left_out)
    )


def find_label_space(
    classes: str, colours: str | Path | None = None, ignored: tuple[int, ...] | None = None
) -> LabelSpace:
    """A label space from a text file of class names, or by its name.

    Args:
        classes: the file, or a name such as "street11".
        colours: a text file of colours, for a file of names.
        ignored: values that do not count; by default 255, or those of the named label space.

    Raises:
        InputError: when there is neither such a file nor such a name.
    """
    if os.path.isfile(classes):
        return label_space_from_file(classes, colours, (IGNORE_INDEX,) if ignored is None else ignored)
    if classes not in LABEL_SPACES and (os.sep in classes or Path(classes).suffix):
        raise InputError(f"classes={classes}: no such file")
    space = get_label_space(classes)
    if colours is not None:
        raise InputError(f"colours={colours}: the label space {classes} has colours of its own")
    return space if ignored is None else replace(space, ignored_ids=ignored)


def values_in_labels(files: Sequence[Path], colours: bool = False, channel: int | None = None) -> Counter[Any]:
    """How many label files hold each value, or each colour, of up to 200 files spread over all; unreadable ones pass.

    Raises:
        InputError: when none can be read.
    """
    chosen = [files[i] for i in sorted(set(np.linspace(0, len(files) - 1, min(len(files), 200)).round().astype(int)))]
    found: Counter[Any] = Counter()
    failure = None
    for path in chosen:
        if not path.is_file():
            continue
        try:
            values = read_image(path).reshape(-1, 3) if colours else read_label(path, channel=channel).reshape(-1, 1)
        except InputError as error:
            failure = failure or error
            continue
        distinct = np.unique(values, axis=0).tolist() if colours else np.unique(values).tolist()
        found.update(tuple(value) if colours else value for value in distinct)
    if not found:
        raise InputError(f"classes: a value is missing, and no label tells its ids{f' ({failure})' if failure else ''}")
    return found
