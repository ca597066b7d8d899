"""Datasets described by one file, dataset.yaml: pairs by split, classes, statistics and checksums.

    format: fcnseg dataset
    version: 1
    label_space: {name, classes, palette, ids, ignored_ids}
    reading: how files are read, the settings of `fcnseg.data.folder.Pairs`
    images: {channels, dtype, mean, std}, the last two by channel over the training images, in their values
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

Paths are relative to the file's folder. Checksums are SHA-256 of whole files, as `sha256sum` shows them: files are
read anyway when they are checked, and one can verify them without this library.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import fcnseg
from fcnseg.data.examination import Facts, sha256
from fcnseg.data.folder import Pairs
from fcnseg.data.inspection import KINDS, Inspection, class_frequencies, sizes
from fcnseg.data.pairing import select
from fcnseg.data.statistics import channel_statistics
from fcnseg.errors import InputError
from fcnseg.files import replacing
from fcnseg.labels import LabelSpace

FORMAT, VERSION, NAME = "fcnseg dataset", 1, "dataset.yaml"

Description = dict[str, Any]


class Described(Pairs):
    """One split of a dataset that `fcnseg data create` has described.

    Args:
        path: the dataset.yaml, or its folder.
        split: one that it has, such as "train" or "val".
        verify: compare every file with its checksum now.
        check: look whether all files are there.

    Attributes:
        mean, std: per channel over the training images, in image values.

    Raises:
        InputError: when the description is missing, damaged or of another version, it has no such split, or a
            file is missing or, when verified, changed.
    """

    def __init__(self, path: str | Path, split: str = "train", verify: bool = False, check: bool = True) -> None:
        path = description_path(path)
        description = read_description(path)
        pairs = split_of(description, split, path)["pairs"]
        self.mean: tuple[float, ...] = tuple(description["images"]["mean"])
        self.std: tuple[float, ...] = tuple(description["images"]["std"])
        columns = {key: [str(pair[key]) for pair in pairs] for key in ("image", "label", "name")}
        images, labels = ([path.parent / file for file in columns[key]] for key in ("image", "label"))
        space = LabelSpace(**description["label_space"])
        super().__init__(images, labels, space, columns["name"], **_reading(description))
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
        missing = [file for files in (self.images, self.labels) for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such file, but {path} names it{_more(missing, 'files are missing')}")


def describe(
    inspection: Inspection,
    facts: Mapping[str, Sequence[Facts]],
    reading: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Description:
    """The description of an inspected dataset.

    Args:
        inspection: with checksums.
        facts: by split, those of the pairs to describe.
        reading: how files are read.
        settings: of the command, to be written down.
    """
    kept = {
        part.split: select(part.dataset, [f.index for f in facts[part.split]], **reading) for part in inspection.parts
    }
    mean, std = channel_statistics(kept["train"])
    return {
        "format": FORMAT,
        "version": VERSION,
        "label_space": inspection.label_space.to_dict(),
        "reading": dict(reading),
        "images": {
            "channels": kept["train"].channels,
            "dtype": str(kept["train"][0][0].dtype),
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
        },
        "splits": {split: _describe_split(chosen, inspection.label_space) for split, chosen in facts.items()},
        "left_out": _left_out(inspection, facts),
        "settings": dict(settings),
        "fcnseg": fcnseg.__version__,
    }


def _left_out(inspection: Inspection, facts: Mapping[str, Sequence[Facts]]) -> list[dict[str, str]]:
    """The mistakes of all files that could be no pair, and of all pairs that are not described."""
    kept = {id(f) for described in facts.values() for f in described}
    groups = [
        *((part.split, [p for p in part.problems if KINDS[p.kind][0] == "error"]) for part in inspection.parts),
        *((f.split, f.problems) for f in inspection.facts if id(f) not in kept),
    ]
    return [
        {"split": split, "file": p.file, "kind": p.kind, "detail": p.detail}
        for split, problems in groups
        for p in problems
    ]


def _describe_split(facts: Sequence[Facts], space: LabelSpace) -> dict[str, Any]:
    counts = zip(space.classes, class_frequencies(facts, space).tolist(), strict=True)
    return {
        "sizes": sizes(facts),
        "ignored_pixels": sum(f.ignored for f in facts),
        "classes": {name: {"pixels": pixels, "images": images} for name, (pixels, images) in counts},
        "pairs": [
            {"name": f.name, "image": f.image, "label": f.label}
            | dict(zip(("image_sha256", "label_sha256"), f.checksums or ("", ""), strict=True))
            for f in facts
        ],
    }


def write_description(description: Description, path: str | Path) -> None:
    """Write a description; its paths, which are as the program sees them, become relative to the file's folder.

    Raises:
        InputError: for a file name that is no UTF-8, which YAML cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = dict(description)
    written["splits"] = {
        name: split | {"pairs": [_relative(pair, path) for pair in split["pairs"]]}
        for name, split in description["splits"].items()
    }
    written["left_out"] = [{**entry, "file": _from(entry["file"], path)} for entry in description["left_out"]]
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(
            "# A dataset as fcnseg data create describes it; train on it with data=described data.root=THIS_FILE.\n"
        )
        yaml.dump(written, file, _Dumper, sort_keys=False, allow_unicode=True, width=4096, default_flow_style=None)


def read_description(path: Path) -> Description:
    """Read a dataset.yaml.

    Raises:
        InputError: naming the file, when it is missing, damaged, something else, or of another version.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.load(file, _Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fcnseg data create writes one") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
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
        raise InputError(f"{path}: no split {split!r}; it has {', '.join(splits)}")
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


def _reading(description: Description) -> dict[str, Any]:
    reading = dict(description["reading"])
    reading["ignored_colours"] = [tuple(colour) for colour in reading.get("ignored_colours", ())]
    return reading


def _relative(pair: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return {**pair, "image": _from(pair["image"], path), "label": _from(pair["label"], path)}


def _from(file: str, path: Path) -> str:
    """A file relative to the description's folder, where the system can say so."""
    try:
        file.encode()
    except UnicodeEncodeError:
        raise InputError(f"{os.fsencode(file)!r}: a file name that is no UTF-8; rename the file") from None
    try:
        return Path(os.path.relpath(os.path.abspath(file), os.path.realpath(path.parent))).as_posix()
    except ValueError:  # on another drive
        return os.path.abspath(file)


def _more(files: Sequence[Path], what: str) -> str:
    return f" ({len(files)} {what})" if len(files) > 1 else ""


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):
    """Repeated values are written out, not as references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
