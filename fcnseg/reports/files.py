"""What the folder of a run holds, whole or in part, as plain values."""

import csv
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fcnseg.classes import distinct_colours
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from fcnseg.reports.gallery import load_gallery

SESSIONS = "run.json"
EVALUATION = "evaluation.yaml"
"""The settings of an evaluation; those of a training are in config.yaml, by which it can be gone on with."""

Curve = tuple[np.ndarray, np.ndarray]
"""(n,) steps and (n,) values of what was logged without interruption."""


@dataclass(frozen=True)
class RunFiles:
    """A run, as far as it is written.

    Attributes:
        folder: where it lies.
        config: its settings; empty where they are not there.
        sessions: what run.json tells of each session.
        metrics: what metrics.json tells; empty of a run that is not finished.
        curves: by column of metrics.csv what was logged, in order: one curve for each session and stage.
        calibration: what calibration.json tells; empty where it was not computed.
        stages: names of the stages that have begun.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether it is a training, and no evaluation."""
        return (self.folder / "config.yaml").is_file() or bool(self.curves)

    @property
    def scored(self) -> Path:
        """Where matrices and pictures lie: in the last stage's folder, if there are stages."""
        return self.folder / self.stages[-1] if self.stages else self.folder

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, self.metrics.get("classes", ())))

    def label_space(self) -> LabelSpace:
        """Classes of the scores, in the colours that the run names, or in others where it names none."""
        if (gallery := load_gallery(self.scored)) and gallery.label_space.classes == self.classes:
            return gallery.label_space
        spec = _mapping(_mapping(read_yaml(self.scored / "hparams.yaml")).get("spec"))
        with suppress(KeyError, TypeError, InputError):
            saved = spec["label_space"]
            if tuple(saved["classes"]) == self.classes:
                return LabelSpace("", self.classes, saved["palette"])
        return LabelSpace("", self.classes, tuple(distinct_colours(len(self.classes))))


def read_run(folder: Path) -> RunFiles:
    """Read what there is of a run.

    Raises:
        InputError: when the folder holds none, or its metrics.json is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; expected the folder of a run")
    config = _mapping(read_yaml(folder / "config.yaml") or read_yaml(folder / EVALUATION))
    names = [str(name) for name, settings in _mapping(config.get("stages")).items() if settings is not None]
    stages = tuple(name for name in names if Path(name).name == name and (folder / name).is_dir())
    run = RunFiles(
        folder,
        config=config,
        sessions=read_sessions(folder) or [each for name in stages for each in read_sessions(folder / name)],
        metrics=_metrics(folder / "metrics.json"),
        curves=read_curves([folder / name for name in stages] or [folder]),
        calibration=_calibration(folder / "calibration.json"),
        stages=stages,
    )
    if not (run.config or run.metrics or run.curves):
        raise InputError(f"{folder}: neither config.yaml, metrics.csv nor metrics.json; expected the folder of a run")
    return run


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's run.json, from its beginning on; none where it is missing or damaged."""
    try:
        found = json.loads((folder / SESSIONS).read_text())["sessions"]
        return [session for session in found if isinstance(session, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read_curves(folders: Sequence[Path]) -> dict[str, list[Curve]]:
    """By column what was logged in the folders of a run's stages, one after another: steps count on from each to the
    next, and metrics.1.csv, ... are of the sessions before metrics.csv."""
    curves: dict[str, list[Curve]] = {}
    begin = 0.0
    for folder in folders:
        end = begin
        for path in _logs(folder):
            for name, points in _columns(path).items():
                steps, values = np.array(points).T
                curves.setdefault(name, []).append((steps + begin, values))
                end = max(end, begin + steps.max() + 1)
        begin = end
    return curves


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None where it is missing, or no plain YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix.rstrip("."): value}
    return {key: leaf for name, each in value.items() for key, leaf in flatten(each, f"{prefix}{name}.").items()}


def _logs(folder: Path) -> list[Path]:
    earlier = [path for path in folder.glob("metrics.*.csv") if path.name.split(".")[1].isdigit()]
    earlier.sort(key=lambda path: int(path.name.split(".")[1]))
    return [path for path in (*earlier, folder / "metrics.csv") if path.is_file()]


def _columns(path: Path) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of each column but those two, without what is no finite number: a line may be cut off."""
    columns: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, text in row.items():
                value = _number(text)
                if name not in ("step", "epoch", None) and step is not None and value is not None:
                    columns.setdefault(name, []).append((step, value))
    return columns


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _metrics(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: when the scores of classes are not what `fcnseg.evaluation.metrics.to_dict` makes.
    """
    found = _json(path)
    classes = found.get("classes", {})
    mappings = [classes, found.get("images_seen", {}), found.get("peak_memory", {}), found.get("stages", {})]
    whole = all(isinstance(each, dict) for each in mappings) and all(
        isinstance(scores, dict) and {"iou", "accuracy", "pixels"} <= set(scores) for scores in classes.values()
    )
    if not whole:
        raise InputError(f"{path}: damaged; expected the scores of a run")
    return found


def _calibration(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: when it is not what `fcnseg.evaluation.Calibration.to_dict` makes.
    """
    found = _json(path)
    wanted = ("temperature", "ece_before", "ece_after", "nll_before", "nll_after", "bins_before", "bins_after")
    if found and not set(wanted) <= set(found):
        raise InputError(f"{path}: damaged; expected {', '.join(wanted)}")
    return found


def _json(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: when it is no mapping in JSON.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged; expected a mapping")
    return found


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
