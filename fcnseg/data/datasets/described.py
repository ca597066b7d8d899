"""Datasets described by one file, dataset.yaml: pairs by split, classes, statistics and checksums.

    format: fcnseg dataset
    version: 1
    label_space: {name, classes, palette, ids, ignored_ids}
    reading: how files are read, the settings of `fcnseg.data.datasets.pairs.Pairs`
    images: {channels, dtype, mean, std, clip}, see `fcnseg.data.statistics.Normalisation`, over the training images
    splits:
      train:
        sizes: {480x360: 367}
        ignored_pixels: 1234
        classes: {road: {pixels: 123, images: 45}}
        pairs:
        - {name, image, label, image_sha256, label_sha256}
    left_out: [{file, kind, detail}]
    settings: what `fcnseg data create` was given
    fcnseg: its version

Paths are relative to the file's folder, and lie in it unless a user allows others. Checksums are SHA-256 of whole
files, as `sha256sum` shows them: files are read anyway when they are checked, and one can verify them without this
library.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.checksum import sha256
from fcnseg.data.files.listing import missing_files, require_inside
from fcnseg.data.files.yaml_files import read_yaml
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

FORMAT, VERSION, NAME = "fcnseg dataset", 1, "dataset.yaml"

Description = dict[str, Any]

READING: dict[str, Any] = {
    "channels": int,
    "scaling": str | None,
    "labels_as": str,
    "label_channel": int | None,
    "ignored_colours": list,
}
"""Settings of `Pairs` that a description may have."""


class Described(Pairs):
    """One split of a dataset that `fcnseg data create` has described.

    Args:
        path: the dataset.yaml, or its folder.
        split: one that it has, such as "train" or "val".
        verify: compare every file with its checksum now.
        check: look whether all files are there.
        outside: whether files may lie outside of the description's folder.

    Attributes:
        mean, std: per channel over the training images, in image values.
        clip: where normalised values are cut off, or None.

    Raises:
        InputError: when the description is missing, damaged or of another version, it has no such split, or a
            file is missing, lies outside or, when verified, has changed.
    """

    def __init__(
        self, path: str | Path, split: str = "train", verify: bool = False, check: bool = True, outside: bool = False
    ) -> None:
        path = description_path(path)
        description = read_description(path)
        pairs = split_of(description, split, path)["pairs"]
        reading = _reading(description, path)
        self.mean, self.std, self.clip = _statistics(description, reading.get("channels", 3), path)
        columns = {key: [str(pair[key]) for pair in pairs] for key in ("image", "label", "name")}
        images, labels = ([path.parent / file for file in columns[key]] for key in ("image", "label"))
        space = LabelSpace.from_dict(description["label_space"], str(path))
        super().__init__(images, labels, space, columns["name"], **reading)
        if not outside:
            require_inside(path, self.images, self.labels)
        self._checksums = [(pair["image_sha256"], pair["label_sha256"]) for pair in pairs]
        if check or verify:
            self._require_files(path)
        if verify:
            self.verify()

    def checksums(self, index: int) -> tuple[str, str]:
        """SHA-256 of the image and the label when they were described."""
        return self._checksums[index]

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            InputError: naming the first file that has changed, and how many have.
        """
        files = [file for pair in zip(self.images, self.labels, strict=True) for file in pair]
        expected = [checksum for pair in self._checksums for checksum in pair]
        changed = [file for file, old in zip(files, expected, strict=True) if sha256(file) != old]
        if changed:
            raise InputError(f"{changed[0]}: changed since it was described{_more(changed, 'files have')}")

    def _require_files(self, path: Path) -> None:
        missing = [file for files in (self.images, self.labels) for file in missing_files(files)]
        if missing:
            raise InputError(f"{missing[0]}: no such file, but {path} names it{_more(missing, 'files are missing')}")


def read_description(path: Path) -> Description:
    """Read a dataset.yaml.

    Raises:
        InputError: naming the file, when it is missing, damaged, something else, or of another version.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; fcnseg data create writes one")
    found = read_yaml(path)
    _require_tree(found, path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(
            f"{path}: no description of a dataset; expected 'format: {FORMAT}' as fcnseg data create writes"
        )
    if found.get("version") != VERSION:
        raise InputError(f"{path}: version {found.get('version')}; this fcnseg reads version {VERSION}")
    if missing := [
        key for key in ("label_space", "reading", "images", "splits") if not isinstance(found.get(key), dict)
    ]:
        raise InputError(f"{path}: {missing[0]} is missing; expected a file that fcnseg data create wrote")
    return found


def split_of(description: Description, split: str, path: Path) -> dict[str, Any]:
    """One split of a description.

    Raises:
        InputError: when there is none of that name, or it is damaged.
    """
    splits = description["splits"]
    if split not in splits:
        raise InputError(f"{path}: no split {split!r}; it has {', '.join(map(str, splits))}")
    pairs = splits[split].get("pairs") if isinstance(splits[split], dict) else None
    keys = {"name", "image", "label", "image_sha256", "label_sha256"}
    if not isinstance(pairs, list) or not pairs or not all(isinstance(p, dict) and keys <= set(p) for p in pairs):
        raise InputError(
            f"{path}: split {split!r} has no sound list of pairs; expected {', '.join(sorted(keys))} of each"
        )
    return splits[split]


def description_path(path: str | Path) -> Path:
    """The dataset.yaml that a path means: the file itself, or the one in a folder."""
    return Path(path) / NAME if Path(path).is_dir() else Path(path)


def _statistics(
    description: Description, channels: int, path: Path
) -> tuple[tuple[float, ...], tuple[float, ...], float | None]:
    """Mean and deviation of each channel, and where values are cut off."""
    found = description["images"]
    mean, std, clip = (found.get(key) for key in ("mean", "std", "clip"))
    sound = all(isinstance(each, list) and len(each) == channels and all(map(_is_finite, each)) for each in (mean, std))
    if not sound or min(std) <= 0 or not (clip is None or (_is_finite(clip) and clip > 0)):
        raise InputError(f"{path}: images: expected mean and std, {channels} numbers each, std and clip above 0")
    return tuple(mean), tuple(std), clip


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _reading(description: Description, path: Path) -> dict[str, Any]:
    """The settings of `Pairs`, of which each is of its type; `Pairs` checks the values."""
    reading = dict(description["reading"])
    for key, value in reading.items():
        if key not in READING:
            raise InputError(f"{path}: reading: no such key {key!r}; expected one of {', '.join(READING)}")
        if not isinstance(value, READING[key]) or isinstance(value, bool):
            raise InputError(f"{path}: reading.{key} is of type {type(value).__name__}")
    colours = reading.get("ignored_colours") or []
    if not all(isinstance(colour, list) and len(colour) == 3 for colour in colours):
        raise InputError(f"{path}: reading.ignored_colours: expected colours such as [0, 0, 0]")
    return reading | {"ignored_colours": [tuple(colour) for colour in colours]}


def _require_tree(found: Any, path: Path) -> None:
    """Refuse a description that refers to parts of itself: a few such lines can stand for more than memory holds."""
    seen: set[int] = set()
    left = [found]
    while left:
        part = left.pop()
        if not isinstance(part, dict | list):
            continue
        if id(part) in seen:
            raise InputError(f"{path}: refers to a part of itself (& and *); expected all values written out")
        seen.add(id(part))
        left += part.values() if isinstance(part, dict) else part


def _more(files: Sequence[Any], what: str) -> str:
    return f" ({len(files)} {what})" if len(files) > 1 else ""
