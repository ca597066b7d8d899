"""`fcnseg data create`: describe a dataset of image and label files in one file, and find the mistakes first."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fcnseg.commands.common import progress_bars, require_value
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.pairs import PairedFiles
from fcnseg.data.files.listing import outside_of
from fcnseg.data.files.naming import check_patterns
from fcnseg.data.files.pairing import is_one_folder
from fcnseg.data.inspection.copying import copied, relocate
from fcnseg.data.inspection.description import describe, write_description
from fcnseg.data.inspection.pairing import (
    find_label_space,
    label_space_of_values,
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
    patterns = config.image_names, config.label_names
    check_patterns(patterns)
    space, reading = label_space_of(config), reading_of(config)
    if config.pairs is not None:
        train = pair_listed(config.pairs, space, "train", config.outside, **reading)
    else:
        folders = require_value(config, "images", "FOLDER"), require_value(config, "labels", "FOLDER")
        train = pair_folders(*folders, space, "train", config.recursive, patterns, **reading)
    if (config.val_images is None) != (config.val_labels is None):
        raise InputError("val_images and val_labels: expected both or none")
    if config.val_images is not None:
        folders = config.val_images, config.val_labels
        return [train, pair_folders(*folders, space, "val", config.recursive, patterns, **reading)]
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
        InputError: listing what the labels hold, where no classes are given, or no colours for them.
    """
    ignored = None if config.ignored is None else tuple(config.ignored)
    if config["values"] is not None:
        if given := [key for key in ("classes", "colours") if config[key] is not None]:
            raise InputError(f"values and {given[0]}: expected one of them")
        if config.labels_as != "index":
            raise InputError(
                f"values and labels_as={config.labels_as}: expected labels_as=index, whose values they name"
            )
        return label_space_of_values(settings_of(config)["values"], ignored)
    if config.classes is None:
        raise InputError(ask_for_classes(config))
    space = find_label_space(str(config.classes), config.colours, ignored)
    if config.labels_as == "colour" and config.colours is None and str(config.classes) not in LABEL_SPACES:
        raise InputError(
            f"labels_as=colour: the colours of {config.classes} are unknown; the labels hold {shown_values(config)}; "
            "give colours=FILE with one 'red green blue' in each line, in the order of the classes"
        )
    return space


def ask_for_classes(config: DictConfig) -> str:
    """The message for missing classes, with the values that stand in the labels."""
    found = values_of(config)
    start = f"classes: a value is missing; the labels hold {shown_values(config, found)}"
    if found == [0, 255]:
        return f"{start}; 'values={{0: background, 255: cell}}' names them"
    colours = "colours=FILE with their colours, and " if config.labels_as == "colour" else ""
    return (
        f"{start}; give {colours}classes=FILE with one class name in each line, from id 0 on, "
        f"or one of {', '.join(LABEL_SPACES)}"
    )


def values_of(config: DictConfig) -> list[Any]:
    """The values, or colours, that stand in the labels, sorted."""
    if config.pairs is not None:
        labels = list(PairedFiles(config.pairs, next(iter(LABEL_SPACES.values())), outside=config.outside).labels)
    else:
        folder = Path(require_value(config, "labels", "FOLDER"))
        images = Path(config.images or "")
        one = is_one_folder(images, folder, (config.image_names, config.label_names)) if config.images else False
        other = config.image_names if one else None
        labels = list(list_by_name(folder, config.recursive, config.label_names, other)[0].values())
    return sorted(values_in_labels(labels, config.labels_as == "colour", config.label_channel))


def shown_values(config: DictConfig, found: list[Any] | None = None) -> str:
    """The values in the labels, in words."""
    found = values_of(config) if found is None else found
    shown = ", ".join(map(str, found[:40])) + (f" and {len(found) - 40} more" if len(found) > 40 else "")
    return f"the {'colours' if config.labels_as == 'colour' else 'ids'} {shown}"


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
    dataset = Described(output, outside=True)
    elsewhere = any(outside_of(output.parent, files) for files in (dataset.images, dataset.labels))
    inspected, trained = (" outside=true", " data.outside=true") if elsewhere else ("", "")
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (dataset.mean, dataset.std))
    print(f"{relative(output)}  {counts} pairs, {inspection.label_space.num_classes} classes")
    print(
        f"channels {dataset.channels}, mean {mean}, std {std}"
        + (f", cut off at {dataset.clip:g} std" if dataset.clip else "")
    )
    if bad := [f for f in inspection.facts if is_bad(f)]:
        print(f"left out {len(bad)} pairs with mistakes; the file lists them")
    if rest := [f.kind for f in inspection.findings if f.severity == "warning"]:
        print(f"worth a look: {', '.join(rest)}; see  fcnseg data inspect dataset={relative(output)}{inspected}")
    print(f"train on it with  fcnseg train data=described data.root={relative(output)}{trained}")
