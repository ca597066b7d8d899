"""A run's folder: where its checkpoints and its config lie, and whether settings are still those it began with."""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_only
from yaml import YAMLError

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.inference.device import fast_precision
from fcnseg.training.checkpoints import LAST, PREVIOUS, is_whole

FREE = (
    *("resume", "logger", "callbacks.pictures"),
    *("on_nonfinite", "callbacks.nonfinite", "callbacks.stop_on_signal", "callbacks.heartbeat"),
    *("data.start_method", "data.prefetch_factor", "trainer.async_checkpoints"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("data.outside", "data.train.described.outside", "data.val.outside", "report"),
)
"""Settings that change nothing of what a sound training learns but by roundings: a run may go on with others."""

ADDED = {"backbone_lr_factor": 1.0, "frozen_batch_norm": False}
"""Settings that runs of before lack, and what they did."""


def output_folder() -> Path:
    """The folder of this run, which Hydra has made."""
    return Path(HydraConfig.get().runtime.output_dir)


def relative(path: str | Path) -> str:
    """A path as a user would type it: relative where it lies below the working directory."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def last_checkpoint(folder: Path) -> Path:
    """Where a run in this folder keeps the end of its last epoch."""
    return folder / "checkpoints" / LAST


def checkpoint_to_resume(folder: Path) -> Path | None:
    """The last checkpoint of a run, or the one before where that is damaged; None where there is none."""
    last = last_checkpoint(folder)
    previous = last.with_name(PREVIOUS)
    if is_whole(last) or not is_whole(previous):
        return last if last.exists() else None
    print(f"damaged     {relative(last)}; goes on from {previous.name}")
    return previous


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in this folder."""
    return any((folder / name).exists() for name in ("config.yaml", "checkpoints", "metrics.json"))


@rank_zero_only
def check_new(config: DictConfig, folder: Path) -> None:
    """Refuse to begin a run where there is one already: files of both would be taken for those of one.

    Raises:
        InputError: naming the folder, or the setting that leads into another run's.
    """
    if holds_run(folder):
        raise InputError(f"{relative(folder)}: holds a run already; resume=auto goes on with it, or give a new folder")
    for key in (f"{group}.{name}" for group in ("callbacks", "logger") for name in config.get(group) or ()):
        for kind in ("dirpath", "save_dir"):
            path = OmegaConf.select(config, f"{key}.{kind}")
            if path is None or Path(path).resolve().is_relative_to(folder.resolve()):
                continue
            if holds_run(other := Path(path)) or holds_run(other := other.parent):
                raise InputError(
                    f"{key}.{kind}={path}: lies in another run, {relative(other)}; expected a folder below ${{folder}}"
                )


@rank_zero_only
def save_config(config: DictConfig, folder: Path) -> None:
    """Write the config with all values resolved, but for the run's folder in other values.

    A run that begins from the file with another `folder` then writes nothing into this one.
    """
    moved = deepcopy(config)
    moved.folder = _PLACE
    values = _replaced(OmegaConf.to_container(moved, resolve=True), _PLACE, "${folder}")
    values["folder"] = str(config.folder)
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(values))


_PLACE = "<folder>"


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return value.replace(old, new) if isinstance(value, str) else value


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

    A setting that its version did not know yet is none where it has the default of today: new ones have what was done
    before for their default.

    Raises:
        InputError: naming the first setting that differs.
    """
    saved = saved_config(folder)
    config = deepcopy(config)
    config.folder = saved.get("folder")  # the run may have moved since
    for each in (config, saved):  # a run without stages has saved what "auto" stood for
        if OmegaConf.select(each, "trainer.precision") == "auto":
            each.trainer.precision = fast_precision()
    ours, theirs = (OmegaConf.to_container(OmegaConf.merge(ADDED, each), resolve=True) for each in (config, saved))
    for key, now, then in _differences(ours, theirs):
        if any(f"{key}.".startswith(f"{free}.") for free in FREE) or (then is ABSENT and now == _default(key)):
            continue
        began = f"without {key}" if then is ABSENT else f"with {key}={shown(then)}"
        raise InputError(f"resume={folder}: it began {began}, this run has {key}={shown(now)}")


ABSENT = object()
"""For the value of a setting that a saved config does not have."""


def _default(key: str) -> Any:
    """A setting's value in today's configs, with the options that were chosen, and with no value that was given."""
    if not HydraConfig.initialized() or not GlobalHydra.instance().is_initialized():
        return None
    hydra = HydraConfig.get()
    chosen = [f"{group}={option}" for group, option in hydra.runtime.choices.items() if _is_plain(group) and option]
    try:
        value = OmegaConf.select(compose(hydra.job.config_name, chosen), key)
    except (HydraException, OmegaConfBaseException):  # of configs of the user's own, perhaps
        return None
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _is_plain(group: str) -> bool:
    """Whether a config group has defaults, and not what somebody wants."""
    return not group.startswith("hydra/") and group not in ("experiment", "regime")


def _differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values of every setting that differs: None where ours, `ABSENT` where theirs is not there."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        if ours != theirs:
            yield prefix.rstrip("."), ours, theirs
        return
    for key in dict.fromkeys([*ours, *theirs]):
        now, then = ours.get(key), theirs.get(key, ABSENT)
        if now is not None or then is not ABSENT:
            yield from _differences(now, then, f"{prefix}{key}.")


def shown(value: Any) -> str:
    """A setting's value as a user writes it."""
    return "null" if value is None else str(value)
