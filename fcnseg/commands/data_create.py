"""`fcnseg data create`: describe a dataset of image and label files in one file, and find the mistakes first."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fcnseg.commands.common import relative, require_value
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.pairs import PairedFiles
from fcnseg.data.inspection.description import describe, write_description
from fcnseg.data.inspection.pairing import (
    find_label_space,
    list_by_name,
    pair_folders,
    pair_listed,
    split_pairs,
    values_in_labels,
)
from fcnseg.data.inspection.report import KINDS, Finding, Inspection, inspect, plain
from fcnseg.data.inspection.samples import Facts, InspectedSplit
from fcnseg.errors import InputError
from fcnseg.label_spaces import LABEL_SPACES
from fcnseg.labels import LabelSpace


def run(config: DictConfig) -> None:
    output = Path(require_value(config, "output", "dataset.yaml"))
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"output={output}: expected a file ending in .yaml")
    splits = plain_parts(config)
    with progress_bar("checking", sum(len(split.dataset) for split in splits)) as advance:
        inspection = inspect(splits, workers=config.workers, checksums=True, advance=advance)
    require_sound(inspection, config.skip_bad)
    facts = {split.name: [f for f in inspection.facts if f.split == split.name and not is_bad(f)] for split in splits}
    if empty := [split for split, kept in facts.items() if not kept]:
        raise InputError(f"{empty[0]}: no pair without mistakes is left; {HOW_TO_SEE}")
    description = describe(inspection, facts, reading_of(config), settings_of(config))
    with copied(facts, output) if config["copy"] else nothing() as places:
        relocate(description, places)
        write_description(description, output)
    report(inspection, facts, output)


HOW_TO_SEE = "fcnseg data inspect with the same images, labels and classes shows all"


def plain_parts(config: DictConfig) -> list[InspectedSplit]:
    """Training and, where it is given or to be split off, validation, as the settings say.

    Raises:
        InputError: for a missing folder, file or setting.
    """
    space, reading = label_space_of(config), reading_of(config)
    if config.pairs is not None:
        train = pair_listed(config.pairs, space, "train", **reading)
    else:
        folders = require_value(config, "images", "FOLDER"), require_value(config, "labels", "FOLDER")
        train = pair_folders(*folders, space, "train", config.recursive, **reading)
    if (config.val_images is None) != (config.val_labels is None):
        raise InputError("val_images and val_labels: expected both or none")
    if config.val_images is not None:
        return [train, pair_folders(config.val_images, config.val_labels, space, "val", config.recursive, **reading)]
    if not config.val or not len(train.dataset):
        return [train]
    if not isinstance(config.val, int | float) or not 0 < config.val < 1:
        raise InputError(f"val={config.val}: expected a share above 0 and below 1, or null for no validation")
    if len(train.dataset) < 2:
        raise InputError(f"val={config.val}: a single pair cannot be split; give val=null or val_images and val_labels")
    return list(split_pairs(train, config.val, config.val_block, config.seed, **reading))


def label_space_of(config: DictConfig) -> LabelSpace:
    """The classes that the settings name.

    Raises:
        InputError: listing what the labels hold, where no classes are given.
    """
    if config.classes is None:
        raise InputError(ask_for_classes(config))
    ignored = None if config.ignored is None else tuple(config.ignored)
    return find_label_space(str(config.classes), config.colours, ignored)


def ask_for_classes(config: DictConfig) -> str:
    """The message for missing classes, with the values that stand in the labels."""
    if config.pairs is not None:
        labels = list(PairedFiles(config.pairs, next(iter(LABEL_SPACES.values()))).labels)
    else:
        labels = list(list_by_name(Path(require_value(config, "labels", "FOLDER")), config.recursive)[0].values())
    colours = config.labels_as == "colour"
    found = sorted(values_in_labels(labels, colours, config.label_channel))
    shown = ", ".join(map(str, found[:40])) + (f" and {len(found) - 40} more" if len(found) > 40 else "")
    return (
        f"classes: a value is missing; the labels hold the {'colours' if colours else 'ids'} {shown}; "
        f"give classes=FILE with one class name in each line, from id 0 on, or one of {', '.join(LABEL_SPACES)}"
    )


def reading_of(config: DictConfig) -> dict[str, Any]:
    """How files are read, as `Pairs` takes it."""
    keys = ("channels", "scaling", "labels_as", "label_channel")
    colours = [tuple(colour) for colour in config.ignored_colours or ()]
    return {key: config[key] for key in keys} | {"ignored_colours": colours}


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The command's settings as plain values."""
    return {str(key): OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for key, v in config.items()}


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar in the terminal while something goes on; gives the function that advances it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


# Mistakes


def is_bad(facts: Facts) -> bool:
    """Whether training would fail at this pair."""
    return any(KINDS[problem.kind][0] == "error" for problem in facts.problems)


def require_sound(inspection: Inspection, skip_bad: bool) -> None:
    """Refuse a dataset with errors, unless they are to be left out.

    Raises:
        InputError: naming the first mistake and how many there are.
    """
    errors: Sequence[Finding] = inspection.errors
    if not errors or (skip_bad and all(finding.kind != "no pairs" for finding in errors)):
        return
    first = errors[0].problems[0]
    count = sum(len(finding.problems) for finding in errors)
    more = f" ({count} mistakes)" if count > 1 else ""
    raise InputError(
        f"{plain(first.file)}: {errors[0].kind}{f' ({plain(first.detail)})' if first.detail else ''}{more}; "
        f"{HOW_TO_SEE}, skip_bad=true leaves them out"
    )


# Copies


@contextmanager
def nothing() -> Iterator[dict[str, str]]:
    """No file is copied."""
    yield {}


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


def report(inspection: Inspection, facts: dict[str, list[Facts]], output: Path) -> None:
    """Say what was written, and what else was noticed."""
    counts = ", ".join(f"{len(kept)} {split}" for split, kept in facts.items())
    dataset = Described(output)
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (dataset.mean, dataset.std))
    print(f"{relative(output)}  {counts} pairs, {inspection.label_space.num_classes} classes")
    print(f"channels {dataset.channels}, mean {mean}, std {std}")
    if bad := [f for f in inspection.facts if is_bad(f)]:
        print(f"left out {len(bad)} pairs with mistakes; the file lists them")
    if rest := [f.kind for f in inspection.findings if f.severity == "warning"]:
        print(f"worth a look: {', '.join(rest)}; see  fcnseg data inspect dataset={relative(output)}")
    print(f"train on it with  fcnseg train data=described data.root={relative(output)}")
