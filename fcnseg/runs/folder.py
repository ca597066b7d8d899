"""A run's folder: where its checkpoints and its config lie, and whether settings are still those it began with."""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from yaml import YAMLError

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.training.precision import fast_precision


def output_folder() -> Path:
    """The folder of this run, which Hydra has made."""
    return Path(HydraConfig.get().runtime.output_dir)


def relative(path: str | Path) -> str:
    """A path as a user would type it: relative where it lies below the working directory."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def last_checkpoint(folder: Path) -> Path:
    """Where a run in this folder keeps the end of its last epoch."""
    return folder / "checkpoints" / "last.ckpt"


@rank_zero_only
def save_config(config: DictConfig, folder: Path) -> None:
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(config, resolve=True))


def saved_config(folder: Path) -> DictConfig:
    """The config that a run began with; empty where there is none."""
    path = folder / "config.yaml"
    try:
        saved = OmegaConf.load(path) if path.is_file() else OmegaConf.create({})
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML") from error
    return saved if isinstance(saved, DictConfig) else OmegaConf.create({})


def check_settings(config: DictConfig, folder: Path) -> None:
    """Refuse to go on with other settings than the run in `folder` began with.

    Raises:
        InputError: naming the first setting that differs.
    """
    saved = saved_config(folder)
    config = deepcopy(config)
    config.folder = saved.get("folder")  # the run may have moved since
    for each in (config, saved):  # a run without stages has saved what "auto" stood for
        if OmegaConf.select(each, "trainer.precision") == "auto":
            each.trainer.precision = fast_precision()
    ours = OmegaConf.to_container(config, resolve=True)
    theirs = OmegaConf.to_container(saved)
    for key, now, then in _differences(ours, theirs):
        if key != "resume":
            raise InputError(f"resume={folder}: it began with {key}={shown(then)}, this run has {key}={shown(now)}")


def _differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values of every setting that differs; None for one that is not there."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        if ours != theirs:
            yield prefix.rstrip("."), ours, theirs
        return
    for key in dict.fromkeys([*ours, *theirs]):
        yield from _differences(ours.get(key), theirs.get(key), f"{prefix}{key}.")


def shown(value: Any) -> str:
    """A setting's value as a user writes it."""
    return "null" if value is None else str(value)
