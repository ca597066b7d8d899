"""Label spaces from text files of class names and colours, as NVIDIA DIGITS reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

from fcnseg.errors import InputError, refuse_endless
from fcnseg.labels import IGNORE_INDEX, LabelSpace


def label_space_from_file(
    names: str | Path, colours: str | Path | None = None, ignored_ids: tuple[int, ...] = (IGNORE_INDEX,)
) -> LabelSpace:
    """The label space of a text file with one class name in each line; the first line is id 0.

    Every name is a class. What a name may hint at, such as "void", is not guessed: give its id as ignored where
    label files have one that is no class.

    Args:
        names: the text file; the label space is called by its name without the ending.
        colours: a text file with one "red green blue" in each line, 0 to 255, for the classes in the same order; by
            default the colours are generated.
        ignored_ids: values that are legal in label files and do not count.

    Raises:
        InputError: naming the file and its line.
    """
    names = Path(names)
    classes = _lines(names, "class name")
    palette = distinct_colours(len(classes)) if colours is None else _colours(Path(colours))
    if len(palette) != len(classes):
        raise InputError(f"{colours}: {len(palette)} colours; expected {len(classes)}, one for each class in {names}")
    first: dict[str, int] = {}
    for line, name in enumerate(classes, 1):
        if first.setdefault(name, line) != line:
            raise InputError(f"{names}, line {line}: the class {name!r} stands in line {first[name]} already")
    try:
        return LabelSpace(names.stem, tuple(classes), tuple(palette), ignored_ids=tuple(ignored_ids))
    except InputError as error:
        raise InputError(f"{names}: {error}") from None


def distinct_colours(count: int) -> list[tuple[int, int, int]]:
    """As many different colours, their hues around the circle."""
    hues = Image.new("HSV", (count, 1))
    hues.putdata([(i * 256 // count, 200, 220) for i in range(count)])
    return [(red, green, blue) for red, green, blue in np.asarray(hues.convert("RGB"))[0].tolist()]


def _lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without those that are empty at its end."""
    refuse_endless(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines:
        raise InputError(f"{path}, line {lines.index('') + 1}: empty; expected a {what} in each line")
    return lines


def _colours(path: Path) -> list[tuple[int, int, int]]:
    found = []
    for number, line in enumerate(_lines(path, "colour"), 1):
        parts = line.split()
        if len(parts) != 3 or not all(part.isdecimal() and int(part) <= 255 for part in parts):
            raise InputError(f"{path}, line {number}: {line!r}; expected three whole numbers from 0 to 255")
        red, green, blue = map(int, parts)
        found.append((red, green, blue))
    return found
