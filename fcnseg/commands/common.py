"""What several subcommands do alike: build the data, find the output folder, keep the terminal readable."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from fcnseg.data import SegmentationData
from fcnseg.data.storage.packing import packed_nodes
from fcnseg.errors import InputError

KEYS = ("root", "packed", "parts", "domains")
"""What of `config.data` says how to build it, and is no argument of `SegmentationData`."""


def build_data(config: DictConfig, train: bool = True) -> SegmentationData:
    """Instantiate `config.data`; without its training part where only validation is wanted.

    `data.root` is there for the datasets to refer to, and no argument itself; `data.packed` puts what
    `fcnseg data pack` has written in the place of the datasets; `data.parts` takes parts of some of them;
    `data.domains` names those to train on.
    """
    packed = config.data.get("packed")
    if OmegaConf.is_missing(config.data, "root") and packed is None:
        raise InputError("data.root: a value is missing; give it as data.root=PATH")
    arguments = OmegaConf.masked_copy(config.data, [key for key in config.data if key not in KEYS])
    with open_dict(arguments):
        if packed is not None:
            arguments.update(packed_nodes(packed))
        if not train:
            arguments.update(train={}, ratio=None, augment=None)
        else:
            if config.data.get("parts") is not None:
                _take_parts(arguments, config.data.parts)
            if config.data.get("domains") is not None:
                _keep(arguments, config.data.domains)
    arguments._set_parent(config)
    return instantiate(arguments, _convert_="all")


def domain_names(config: DictConfig) -> list[str]:
    """The training domains of `config.data`, or of its pack, in their order."""
    packed = config.data.get("packed")
    return [str(name) for name in (config.data.train if packed is None else packed_nodes(packed)["train"])]


def _take_parts(arguments: DictConfig, parts: Any) -> None:
    """Put a `Part` in the place of each of the domains named."""
    example = f"expected a mapping such as {{{next(iter(arguments.train))}: {{share: 0.25, start: 0.5}}}}"
    if not isinstance(parts, DictConfig):
        raise InputError(f"data.parts={parts}: {example}")
    for name, part in ((str(name), part) for name, part in parts.items()):
        if name not in arguments.train:
            raise InputError(f"data.parts.{name}: no such domain; expected one of {', '.join(arguments.train)}")
        if not isinstance(part, DictConfig) or "share" not in part or set(part) - {"share", "start"}:
            raise InputError(f"data.parts.{name}={part}: {example}")
        arguments.train[name] = {"_target_": "fcnseg.data.Subset", "dataset": arguments.train[name], **part}


def _keep(arguments: DictConfig, names: Any) -> None:
    """Leave the training domains of these names, and their shares."""
    known = ", ".join(arguments.train)
    if not isinstance(names, ListConfig) or not names or any(name not in arguments.train for name in names):
        raise InputError(f"data.domains={names}: expected a list of names out of {known}")
    for key in ("train", "ratio"):
        if arguments[key] is not None:
            arguments[key] = OmegaConf.masked_copy(arguments[key], [name for name in arguments[key] if name in names])


def output_folder() -> Path:
    """The folder of this run, which Hydra has made."""
    return Path(HydraConfig.get().runtime.output_dir)


def require_value(config: DictConfig, key: str, example: str) -> str:
    """The value of a key that has no default.

    Raises:
        InputError: naming the key, with an example.
    """
    if OmegaConf.is_missing(config, key) or config[key] is None:
        raise InputError(f"{key}: a value is missing; give it as {key}={example}")
    return str(config[key])


def relative(path: str | Path) -> str:
    """A path as a user would type it: relative where it lies below the working directory."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def hush() -> None:
    """Leave out the frameworks' remarks on which a user need not act; their warnings otherwise stay."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "Experiment logs directory .* exists",  # it is the run's folder, new and ours
        "The number of training batches .* is smaller than the logging interval",
        "The '.*_dataloader' does not have many workers",  # see default_workers
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        ".*recommended.*sync_dist=True",  # those values are equal on all ranks already
    ):
        warnings.filterwarnings("ignore", message=message)
