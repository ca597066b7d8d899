"""Copying the files of a dataset beside its description, all of them or none."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fcnseg.data.inspection.samples import Facts
from fcnseg.errors import InputError


@contextmanager
def copied(facts: dict[str, list[Facts]], output: Path) -> Iterator[dict[str, str]]:
    """Copy all files to images/ and labels/ beside the output: whole, and gone again if the block fails.

    Gives the new place of every file.

    Raises:
        InputError: when one of the two folders is there already.
    """
    folders = {what: output.parent / what for what in ("images", "labels")}
    if there := [folder for folder in folders.values() if folder.exists()]:
        raise InputError(f"{there[0]}: exists already; with copy=true expected an output folder without it")
    temporary = output.parent / f".{uuid.uuid4().hex}"
    places: dict[str, str] = {}
    moved: list[Path] = []
    try:
        for split, kept in facts.items():
            for f in kept:
                for what, file in (("images", f.image), ("labels", f.label)):
                    places[file] = _copy(Path(file), temporary, Path(what, split, f.name), output.parent)
        for what, folder in folders.items():
            os.replace(temporary / what, folder)
            moved.append(folder)
        yield places
    except BaseException:
        for folder in moved:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(file: Path, folder: Path, name: Path, home: Path) -> str:
    """Copy a file under a name that is free; returns where it will lie."""
    target, number = name.with_name(f"{name.name}{file.suffix}"), 2
    while (folder / target).exists():
        target, number = name.with_name(f"{name.name}-{number}{file.suffix}"), number + 1
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / target)
    return str(home / target)


def relocate(description: dict[str, Any], places: dict[str, str]) -> None:
    """Let a description name the copies."""
    for split in description["splits"].values():
        for pair in split["pairs"]:
            pair |= {key: places.get(pair[key], pair[key]) for key in ("image", "label")}
