"""`fcnseg rerun`: repeat a run by its own config, and say whether its results are the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import fcnseg
from fcnseg.commands.common import require_value
from fcnseg.errors import InputError
from fcnseg.models.sharded import read_checkpoint
from fcnseg.runs.folder import holds_run, last_checkpoint, relative, saved_config
from fcnseg.runs.surroundings import read_sessions


def run(config: DictConfig) -> None:
    old = Path(require_value(config, "run", "runs/NAME/TIME"))
    if not (old / "config.yaml").is_file():
        raise InputError(f"{old}: no config.yaml; expected the folder of a run")
    new = Path(config.output or old.with_name(f"{old.name}.rerun"))
    if holds_run(new):
        raise InputError(f"output={new}: holds a run already; expected a new folder")
    with TemporaryDirectory() as folder:
        settings = saved_config(old)
        settings.update(regime=None, resume=None, folder=str(new.absolute()))  # what a regime does is in the others
        OmegaConf.save(settings, Path(folder, "config.yaml"))
        command = [sys.executable, "-m", "fcnseg", "train", "--config-dir", folder, "--config-name", "config"]
        code = subprocess.run([*command, f"hydra.run.dir={new.absolute()}"], check=False, **_place(old)).returncode
    if code:
        raise InputError(f"{new}: was not finished, exit code {code}; the line above says why")
    for line in differences(old, new):
        print(line)


def _place(old: Path) -> dict[str, Any]:
    """Where a run was begun, to which paths of its config are relative, if that is still there."""
    home = str(Path(fcnseg.__file__).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    began = next((session.get("working_directory") for session in read_sessions(old)), None)
    return {"env": os.environ | {"PYTHONPATH": paths}, "cwd": began if began and Path(began).is_dir() else None}


def differences(old: Path, new: Path) -> list[str]:
    """What is different in two finished runs, or that nothing is, in lines for a person."""
    before, after = (_scores(folder) for folder in (old, new))
    lines = [
        f"{'' if before == after else 'not '}the same scores: mean IoU {before['mean_iou']}, now {after['mean_iou']}"
    ]
    checkpoints = [path for path in (last_checkpoint(old), last_checkpoint(new)) if path.exists()]
    if len(checkpoints) == 2:
        lines.append(_weights(*checkpoints))
    changed = sorted(_changed(_session(old), _session(new)))
    return lines + [f"other {name}: {then}, now {now}" for name, then, now in changed]


def _scores(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{relative(folder)}: no metrics.json; expected a finished run")
    found = json.loads(path.read_text())
    return {key: found[key] for key in ("mean_iou", "classes")}


def _weights(one: Path, other: Path) -> str:
    states = [read_checkpoint(path, optimizers=False)["state_dict"] for path in (one, other)]
    different = [
        name for name in states[0] if name not in states[1] or not torch.equal(states[0][name], states[1][name])
    ]
    if not different and states[0].keys() == states[1].keys():
        return f"the same weights in all {len(states[0])} tensors, bit by bit"
    return f"other weights in {len(different)} of {len(states[0])} tensors"


def _session(folder: Path) -> dict[str, Any]:
    """What the first session of a run was carried out with, but for what always differs."""
    first = next(iter(read_sessions(folder)), {})
    return {key: value for key, value in first.items() if key not in ("time", "command", "working_directory")}


def _changed(then: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if not isinstance(then, dict) or not isinstance(now, dict):
        return [] if then == now else [(name.strip("."), then, now)]
    return [each for key in {**then, **now} for each in _changed(then.get(key), now.get(key), f"{name}{key}.")]
