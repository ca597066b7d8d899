"""Datasets of image and label files: paired by name in two folders, or listed in a CSV file."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.images import Colour, image_size, known_pixels, read_image, read_label
from fcnseg.data.files.listing import missing_files, require_inside
from fcnseg.data.files.naming import check_patterns
from fcnseg.data.files.pairing import common_names, paired
from fcnseg.data.files.path_list import PathList
from fcnseg.data.files.rasters import Window, may_lack_data
from fcnseg.data.files.values import without_data
from fcnseg.data.files.windows import image_window, label_window
from fcnseg.data.resizing import check_scaling, scale_values
from fcnseg.data.showing import Shown
from fcnseg.errors import InputError, refuse_endless
from fcnseg.labels import IGNORE_INDEX, LabelSpace


class Pairs(Shown):
    """Image files with their label files, in a given order.

    A dataset finds its files in its own folders; where its label files are no images, it says how they are read by
    overriding `read_values`.

    Args:
        images, labels: as many files of each, in the same order; labels None: the images have none, and every pixel of
            their masks is ignored.
        label_space: what the values, or the colours, in the label files mean.
        names: how samples are called; by default the images' names without their endings.
        channels: of the images; 3 is RGB where files have 8 bits, see `read_image`.
        scaling: None, or a scale for radar or medical images, see `scale_values`.
        labels_as: "index" where label files hold class ids, "colour" where they hold the palette's colours.
        label_channel: the channel that holds the ids in label files of several, counted from 0.
        ignored_colours: further colours that are legal in label files and become the ignore index.

    Attributes:
        images, labels: the files; no labels where the images have none.
        labelled: whether they have.

    Raises:
        InputError: for a setting that cannot be, such as two classes of one colour.
    """

    def __init__(
        self,
        images: Iterable[Path],
        labels: Iterable[Path] | None,
        label_space: LabelSpace,
        names: Iterable[str] | PathList | None = None,
        *,
        channels: int = 3,
        scaling: str | None = None,
        labels_as: str = "index",
        label_channel: int | None = None,
        ignored_colours: Sequence[Colour] = (),
    ) -> None:
        if not isinstance(channels, int) or channels < 1:
            raise InputError(f"channels={channels!r}: expected a whole number from 1 on")
        if labels_as not in ("index", "colour"):
            raise InputError(f"labels_as={labels_as!r}: expected index or colour")
        check_scaling(scaling)
        self.images, self.labels, self.label_space = PathList.of(images), PathList.of(labels or ()), label_space
        self.labelled = labels is not None
        self.channels, self.scaling, self.label_channel = channels, scaling, label_channel
        self.colours = _colour_ids(label_space, ignored_colours) if labels_as == "colour" else None
        self._names = PathList.of(names) if names is not None else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The (H, W, channels) image, the (H, W) uint8 mask with 255 ignored, and the name.

        The image is in its file's values, or in float32 by `scaling`. Where no channel has data, it is nan and the
        mask ignores it, as it does what the label declares to be no data.

        Raises:
            InputError: naming the file, when it is unreadable, its label has another size, or a value
                outside the label space.
        """
        image = scale_values(read_image(self.images[index], self.channels), self.scaling)
        if not self.labelled:
            return image, _ignored(image), self.name(index)
        path = self.labels[index]
        values = self.read_values(path)
        mask = self._decoded(path, values, labelled(path, values, image))
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"{path}: label is {mask.shape[1]}x{mask.shape[0]}, "
                f"its image {image.shape[1]}x{image.shape[0]}; expected the same size"
            )
        return image, mask, self.name(index)

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The image file of a sample, and its label file where it has one."""
        return (self.images[index], self.labels[index]) if self.labelled else (self.images[index],)

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask alone, without reading the image where that cannot lack data."""
        if not self.labelled:
            return np.full(image_size(self.images[index]), IGNORE_INDEX, np.uint8)
        if self._may_lack_data(index):
            return self[index][1]
        values = self.read_values(self.labels[index])
        return self._decoded(self.labels[index], values, labelled(self.labels[index], values))

    def window(self, index: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """The (h, w, channels) image and (h, w) uint8 mask of a window within a sample, without the rest of the files.

        Raises:
            InputError: as for a sample, or when a file cannot be read by windows.
        """
        image = scale_values(image_window(self.images[index], self.channels, window), self.scaling)
        mask = self._window_mask(index, window, without_data(image)) if self.labelled else _ignored(image)
        return image, mask

    def window_mask(self, index: int, window: Window) -> np.ndarray:
        """The (h, w) uint8 mask of a window alone, without reading the image where that cannot lack data."""
        if not self.labelled or self._may_lack_data(index):
            return self.window(index, window)[1]
        return self._window_mask(index, window, None)

    def _window_mask(self, index: int, window: Window, absent: np.ndarray | None) -> np.ndarray:
        path = self.labels[index]
        values, known = label_window(path, window, channel=self.label_channel, colours=self.colours)
        return self._decoded(path, values, known if absent is None else known & ~absent)

    def _may_lack_data(self, index: int) -> bool:
        return self.scaling is not None or may_lack_data(self.images[index])

    def _decoded(self, path: Path, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(H, W) uint8 mask of a label's values, whatever stands where it does not count."""
        if known.all():
            return self.label_space.decode(values, str(path))
        mask = self.label_space.decode(np.where(known, values, self.label_space.ids[0]), str(path))
        return np.where(known, mask, np.uint8(IGNORE_INDEX))

    def name(self, index: int) -> str:
        """How a sample is called."""
        return self.images[index].stem if self._names is None else self._names.text(index)

    def read_values(self, path: Path) -> np.ndarray:
        """The (H, W) integer ids of a label file."""
        return read_label(path, channel=self.label_channel, colours=self.colours)


class PairedFolder(Pairs):
    """Images of one folder with the labels of the same names (endings aside) in another.

    Args:
        images, labels: the two folders.
        label_space: what the values in the label files mean.
        recursive: whether subfolders count; the labels then lie in subfolders of the same names.
        image_names, label_names: what the files are called, endings aside, with a star for what a pair has in common:
            "*" and "*_mask" for x.png and x_mask.png, which may lie in one folder.
        reading: how files are read, see `Pairs`.

    Raises:
        InputError: for a missing folder, or an image without a label.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        label_space: LabelSpace,
        *,
        recursive: bool = False,
        image_names: str = "*",
        label_names: str = "*",
        **reading: Any,
    ) -> None:
        patterns = image_names, label_names
        check_patterns(patterns)
        folders = Path(images), Path(labels)
        found, files = paired(*folders, recursive, patterns)
        names = common_names(found, folders[0], patterns[0]) if recursive else None
        super().__init__(found, files, label_space, names, **reading)


class PairedFiles(Pairs):
    """Images and labels that a CSV file lists, one pair in each row.

    Args:
        pairs: the CSV file: two columns, image and label, or more under a header that names these two. Paths are
            relative to the file's folder.
        label_space: what the values in the label files mean.
        outside: whether files may lie outside of that folder.
        reading: how files are read, see `Pairs`.

    Raises:
        InputError: naming the CSV file, and its row where a path is missing.
    """

    def __init__(self, pairs: str | Path, label_space: LabelSpace, *, outside: bool = False, **reading: Any) -> None:
        images, labels = _rows(Path(pairs), outside)
        super().__init__(images, labels, label_space, **reading)


def labelled(label: Path, values: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
    """(H, W) bool: where a label counts, which is where it declares to have data and its image has some.

    Args:
        label: the file.
        values: (H, W), what was read of it.
        image: (H, W, C) after scaling; one of another size, or none, says nothing.

    Raises:
        InputError: when the file is damaged.
    """
    declared = known_pixels(label) if label.suffix.lower() in (".tif", ".tiff") else None
    known = np.ones(values.shape, bool) if declared is None else declared
    absent = without_data(image) if image is not None and image.shape[:2] == values.shape else None
    return known if absent is None else known & ~absent


def _ignored(image: np.ndarray) -> np.ndarray:
    """The (H, W) uint8 mask of an image without a label."""
    return np.full(image.shape[:2], IGNORE_INDEX, np.uint8)


def _rows(path: Path, outside: bool) -> tuple[PathList, PathList]:
    """The images and the labels of a CSV file, all of which exist."""
    refuse_endless(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    named = {"image", "label"} <= set(header)
    image, label = (header.index("image"), header.index("label")) if named else (0, 1)
    for number, row in rows[named:]:
        if len(row) != (len(header) if named else 2):
            raise InputError(
                f"{path}, row {number}: {len(row)} columns; expected {','.join(header) if named else 'image,label'}"
            )
    files = tuple(PathList(path.parent / row[column] for _, row in rows[named:]) for column in (image, label))
    if not len(files[0]):
        raise InputError(f"{path}: no pairs; expected rows of image,label")
    if not outside:
        require_inside(path, *files)
    if missing := {file for each in files for file in missing_files(each)}:
        pairs = zip(rows[named:], *(each.texts() for each in files), strict=True)
        number, file = next((row[0], file) for row, *pair in pairs for file in pair if file in missing)
        raise InputError(f"{path}, row {number}: {file}: no such file")
    return files[0], files[1]


def _colour_ids(space: LabelSpace, ignored: Sequence[Colour]) -> tuple[tuple[Colour, int], ...]:
    """Every colour with the id that its pixels get.

    Raises:
        InputError: when a colour means two things, or there is no id for ignored colours.
    """
    if ignored and not space.ignored_ids:
        raise InputError(f"label space {space.name}: ignored_colours need an id among ignored_ids")
    pairs = [*zip(space.palette, space.ids, strict=True), *(((r, g, b), space.ignored_ids[0]) for r, g, b in ignored)]
    colours = [colour for colour, _ in pairs]
    if repeated := [colour for colour in colours if colours.count(colour) > 1]:
        raise InputError(f"label space {space.name}: colour {repeated[0]} means two things; labels_as=index needs none")
    return tuple(pairs)
