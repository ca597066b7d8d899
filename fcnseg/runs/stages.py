"""Training in stages, each from the weights of the one before: FCN-32s, then 16s, then 8s.

A staged run is a folder with the whole config, and in it a folder per stage. What is finished and where a stage
stopped is read from the files alone, so that a run goes on after anything, a killed job included.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.errors import InputError
from fcnseg.runs.building import build_data
from fcnseg.runs.folder import checkpoint_to_resume, last_checkpoint, relative, saved_config, shown

RUN_KEYS = ("stages", "regime", "resume", "folder", "name")
"""What belongs to the whole run and no stage can set."""

NEEDED = ("model", "data", "optimizer", "trainer")
"""What no stage can do without."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: its key in `stages`, and the name of its folder.
        folder: where its checkpoints and scores go.
        config: the run's config with the stage's settings over it.
        finished: its scores are written, which happens last.
        checkpoint: where it stopped; None: it has not begun, or not ended an epoch.
    """

    name: str
    folder: Path
    config: DictConfig
    finished: bool = False
    checkpoint: Path | None = None


def plan(config: DictConfig, folder: Path) -> list[Stage]:
    """The stages of `config.stages` in order, each told to start from the last checkpoint of the one before.

    Nothing is trained or written. With `config.resume` the files below `folder` say what is finished.

    Raises:
        InputError: for a stage that is no mapping of known settings, or that could not hand on its weights.
    """
    stages: list[Stage] = []
    for name, settings in _stages(config).items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(f"stages: {name!r} cannot name a folder; expected letters, digits, '_', '-' and '.'")
        if not isinstance(settings, Mapping):
            raise InputError(f"stages.{name}: expected settings such as {{model: {{name: fcn16s_vgg16}}}}")
        stage = _merge(config, settings, f"stages.{name}")
        with open_dict(stage):
            stage.update(stages=None, regime=None, resume=None, folder=str(folder / name))
            if stages and "weights" not in (settings.get("model") or {}):
                stage.model.weights = str(last_checkpoint(stages[-1].folder))
        _check_hand_over(stage, name)
        begun = config.resume is not None and all(before.finished for before in stages)
        finished = begun and (folder / name / "metrics.json").is_file()
        checkpoint = checkpoint_to_resume(folder / name) if begun and not finished else None
        stages.append(Stage(name, folder / name, stage, finished, checkpoint))
    if not stages:
        raise InputError("stages: expected at least one stage that is not null, or stages=null for a single run")
    return stages


def resumed_folder(resume: str) -> Path:
    """The folder of the staged run that `resume` names.

    Raises:
        InputError: when it is none.
    """
    folder = Path(resume)
    if not folder.is_dir():
        kind = "a file; expected the run's folder, since the settings have stages" if folder.exists() else "no such run"
        raise InputError(f"resume={resume}: {kind}")
    if not saved_config(folder).get("stages"):
        raise InputError(f"resume={resume}: no staged run; expected a folder whose config.yaml has stages")
    return folder


@rank_zero_only
def check_unused(folder: Path, stages: list[Stage]) -> None:
    """Refuse a folder with those of stages in it, whose files would be taken for those of new ones."""
    if any(stage.folder.exists() for stage in stages):
        raise InputError(f"{relative(folder)}: holds stages of a run already; expected a new folder")


def check_stages(stages: list[Stage]) -> None:
    """Build what each stage that is left trains, without memory or weights: a mistake in the last one shows now.

    Raises:
        InputError: whatever the data or the model of a stage raises.
    """
    for stage in stages:
        if not stage.finished:
            classes = build_data(stage.config).label_space.num_classes
            with torch.device("meta"):
                instantiate(stage.config.model, num_classes=classes, weights=None, _convert_="all")


def _stages(config: DictConfig) -> dict[str, Any]:
    """What the user wrote, without the stages that are set to null."""
    if not OmegaConf.is_dict(config.stages):
        raise InputError(f"stages={config.stages}: expected a mapping of a stage's name to its settings, or null")
    stages = OmegaConf.to_container(config.stages)
    assert isinstance(stages, dict)
    return {str(name): settings for name, settings in stages.items() if settings is not None}


def _merge(config: DictConfig, settings: Mapping[Any, Any], where: str) -> DictConfig:
    """The config with a stage's settings over it; one that has a `_target_` replaces what is there."""
    merged = deepcopy(config)
    _check_keys(merged, settings, where, [key for key in merged if key not in RUN_KEYS])
    with open_dict(merged):
        for key, value in _leaves(settings):
            try:
                OmegaConf.update(merged, key, value, merge=False)
            except OmegaConfBaseException as error:
                raise InputError(f"{where}.{key}={value}: {str(error).splitlines()[0]}") from error
    return merged


def _check_hand_over(config: DictConfig, name: str) -> None:
    if not (config.callbacks or {}).get("last"):
        raise InputError(f"stages.{name}: needs callbacks.last, whose checkpoint the next stage starts from")
    if config.trainer.fast_dev_run:
        raise InputError("trainer.fast_dev_run: writes no checkpoint for the next stage; try trainer.max_steps=1")


def _check_keys(node: DictConfig, settings: Mapping[Any, Any], where: str, known: list[Any]) -> None:
    for key, value in settings.items():
        if key not in known:
            near = get_close_matches(str(key), map(str, known), n=3, cutoff=0.5) or list(map(str, known))
            raise InputError(f"{where}.{key}: no such key; expected one like {', '.join(near)}")
        below = node._get_node(key)
        if not isinstance(below, DictConfig) or below._is_none() or below._is_missing():
            continue
        if isinstance(value, Mapping):
            if "_target_" not in value:
                _check_keys(below, value, f"{where}.{key}", list(below))
        elif value is not None or key in NEEDED:
            example = "{name: fcn16s_vgg16}" if key == "model" else "{key: value}"
            raise InputError(f"{where}.{key}={shown(value)}: expected settings such as {example}")


def _leaves(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
