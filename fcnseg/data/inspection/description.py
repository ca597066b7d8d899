"""Writing the description of an inspected dataset, which `fcnseg.data.datasets.described` reads."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import fcnseg
from fcnseg.atomic import replacing
from fcnseg.data.datasets.described import FORMAT, VERSION, Description
from fcnseg.data.inspection.pairing import select
from fcnseg.data.inspection.report import KINDS, Inspection, class_frequencies, sizes
from fcnseg.data.inspection.samples import Facts
from fcnseg.data.statistics import normalisation
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace


def describe(
    inspection: Inspection,
    facts: Mapping[str, Sequence[Facts]],
    reading: Mapping[str, Any],
    settings: Mapping[str, Any],
    statistics: str = "moments",
) -> Description:
    """The description of an inspected dataset.

    Args:
        inspection: with checksums.
        facts: by split, those of the pairs to describe.
        reading: how files are read.
        settings: of the command, to be written down.
        statistics: how images are to be normalised, see `fcnseg.data.statistics.normalisation`.
    """
    kept = {
        split.name: select(split.dataset, [f.index for f in facts[split.name]], **reading)
        for split in inspection.splits
    }
    found = normalisation(kept["train"], statistics)
    return {
        "format": FORMAT,
        "version": VERSION,
        "label_space": inspection.label_space.to_dict(),
        "reading": dict(reading),
        "images": {
            "channels": kept["train"].channels,
            "dtype": str(kept["train"][0][0].dtype),
            "mean": [round(value, 6) for value in found.mean],
            "std": [round(value, 6) for value in found.std],
            "clip": found.clip,
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
        *((split.name, [p for p in split.problems if KINDS[p.kind][0] == "error"]) for split in inspection.splits),
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


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):
    """Repeated values are written out, not as references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
