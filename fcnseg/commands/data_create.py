"""`fcnseg data create`: describe a dataset of image and label files in one file, and find the mistakes first."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fcnseg.commands.common import progress_bars, require_value
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.pairs import PairedFiles
from fcnseg.data.inspection.copying import copied, relocate
from fcnseg.data.inspection.description import describe, write_description
from fcnseg.data.inspection.pairing import (
    find_label_space,
    list_by_name,
    pair_folders,
    pair_listed,
    split_pairs,
    values_in_labels,
)
from fcnseg.data.inspection.report import HOW_TO_SEE, Inspection, inspect, is_bad, require_sound
from fcnseg.data.inspection.samples import Facts, InspectedSplit
from fcnseg.data.statistics import WAYS
from fcnseg.errors import InputError
from fcnseg.label_spaces import LABEL_SPACES
from fcnseg.labels import LabelSpace
from fcnseg.runs.folder import relative


def run(config: DictConfig) -> None:
    output = Path(require_value(config, "output", "dataset.yaml"))
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"output={output}: expected a file ending in .yaml")
    if config.statistics not in WAYS:
        raise InputError(f"statistics={config.statistics}: expected one of {', '.join(WAYS)}")
    splits = splits_of_files(config)
    with progress_bars({"checking": sum(len(split.dataset) for split in splits)}) as advance:
        inspection = inspect(splits, workers=config.workers, checksums=True, advance=partial(advance, "checking"))
    require_sound(inspection, config.skip_bad)
    facts = {split.name: [f for f in inspection.facts if f.split == split.name and not is_bad(f)] for split in splits}
    if empty := [split for split, kept in facts.items() if not kept]:
        raise InputError(f"{empty[0]}: no pair without mistakes is left; {HOW_TO_SEE}")
    description = describe(inspection, facts, reading_of(config), settings_of(config), config.statistics)
    copies: AbstractContextManager[dict[str, str]] = copied(facts, output) if config["copy"] else nullcontext({})
    with copies as places:
        relocate(description, places)
        write_description(description, output)
    report(inspection, facts, output)


def splits_of_files(config: DictConfig) -> list[InspectedSplit]:
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


def report(inspection: Inspection, facts: dict[str, list[Facts]], output: Path) -> None:
    """Say what was written, and what else was noticed."""
    counts = ", ".join(f"{len(kept)} {split}" for split, kept in facts.items())
    dataset = Described(output)
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (dataset.mean, dataset.std))
    print(f"{relative(output)}  {counts} pairs, {inspection.label_space.num_classes} classes")
    print(
        f"channels {dataset.channels}, mean {mean}, std {std}"
        + (f", cut off at {dataset.clip:g} std" if dataset.clip else "")
    )
    if bad := [f for f in inspection.facts if is_bad(f)]:
        print(f"left out {len(bad)} pairs with mistakes; the file lists them")
    if rest := [f.kind for f in inspection.findings if f.severity == "warning"]:
        print(f"worth a look: {', '.join(rest)}; see  fcnseg data inspect dataset={relative(output)}")
    print(f"train on it with  fcnseg train data=described data.root={relative(output)}")
