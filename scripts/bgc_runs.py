"""What there is of a study by scripts/bgc_study.py: its runs, their scores and curves, and how they differ."""

import csv
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import InputError
from fcnseg.evaluation import Comparison, load_matrices, paired_bootstrap
from fcnseg.training.collapse import collapsed_to

BASE = "real"
"""The regime that all others are compared with."""

PAIR = ("finetune", "bgc")
"""The two that the study is named after."""

TUNED_PAIR = ("finetune+tuned", "bgc+tuned")

FAR, CALIBRATION = "far.npz", "calibration.json"
"""Files that a second look (scripts/bgc_looks.py) leaves in a run's folder."""

FOCUS = 0.25
"""The share that is looked at class by class, where it is there."""


WITHOUT_LABELS = ("synthetic", "fda", "dacs", "entropy")
"""Regimes that learn from no real label, with the same result whatever share of the real images has some."""


def without_labels(arm: str) -> bool:
    return arm.split("+")[0] in WITHOUT_LABELS


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    share: float
    seed: int
    regime: str
    folder: Path

    @classmethod
    def planned(cls, output: Path, share: float, seed: int, regime: str) -> "Run":
        return cls(share, seed, regime, output / f"share_{share:g}" / f"seed_{seed}" / regime)

    @property
    def finished(self) -> bool:
        return (self.folder / "metrics.json").is_file()  # written last

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "metrics.json").read_text())

    @property
    def phases(self) -> list[Path]:
        """The folder of each phase of the training, or its own."""
        return [self.folder / name for name in self.metrics.get("stages", {})] or [self.folder]

    @cached_property
    def matrices(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the validation images, and their confusion matrices with the last weights."""
        return load_matrices(self.phases[-1] / "confusions.npz")

    @cached_property
    def far(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """The same of training images far from the block, whose labels the run has not seen; None: not there."""
        path = self.folder / FAR
        return load_matrices(path) if path.is_file() else None

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error on the validation images, 0 to 1; None: not there."""
        path = self.folder / CALIBRATION
        return json.loads(path.read_text())["ece_before"] if path.is_file() else None

    @property
    def collapsed(self) -> bool:
        """Whether nearly all predictions of the last weights are one class."""
        return collapsed_to(self.matrices[1].sum(0)) is not None

    def curve(self) -> dict[int, float]:
        """Mean IoU on the validation images by steps of the optimiser since the run began, over all phases."""
        points: dict[int, float] = {}
        done = 0
        for phase in self.phases:
            for path in curve_files(phase):  # an interrupted part first; what was trained again stands over it
                with path.open() as file:
                    rows = [row for row in csv.DictReader(file) if row.get("val/mean_iou")]
                points |= {done + int(row["step"]) + 1: float(row["val/mean_iou"]) for row in rows}
            end = self.metrics.get("stages", {}).get(phase.name, self.metrics)
            done += end["step"]
            points[done] = end["mean_iou"]
        return dict(sorted(points.items()))


def curve_files(folder: Path) -> list[Path]:
    """metrics.1.csv, metrics.2.csv, ... of interrupted trainings, then metrics.csv."""
    earlier = sorted(folder.glob("metrics.*.csv"), key=lambda path: int(path.suffixes[0].lstrip(".")))
    return [path for path in [*earlier, folder / "metrics.csv"] if path.is_file()]


class Study:
    """What was planned, and what of it is there.

    Raises:
        InputError: when the folder holds no study, or nothing of it is finished.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "study.json"
        if not path.is_file():
            raise InputError(f"{folder}: expected a study; {path.name} of scripts/bgc_study.py is not there")
        self.folder, self.facts = folder, json.loads(path.read_text())
        self.regimes: list[str] = self.facts["regimes"]
        self.shares: list[float] = sorted(self.facts["shares"], reverse=True)
        planned = [Run.planned(folder, *key) for key in self._keys()]
        self.runs = [run for run in planned if run.finished]
        self.missing = [run for run in planned if not run.finished]
        if not self.runs:
            raise InputError(f"{folder}: none of its {len(planned)} runs is finished")
        self.focus = FOCUS if FOCUS in self.shares else self.shares[0]
        self.classes = list(self.runs[0].metrics["classes"])

    def _keys(self) -> Iterator[tuple[float, int, str]]:
        for share in (*self.shares, 0):
            for seed in self.facts["seeds"]:
                yield from ((share, seed, r) for r in self.regimes if without_labels(r) == (share == 0))

    def of(self, share: float, regime: str) -> list[Run]:
        """The finished runs; those on synthetic images alone belong to every share."""
        return [run for run in self.runs if run.regime == regime and run.share in (share, 0)]

    def compare(self, share: float, a: str, b: str, far: bool = False) -> tuple[int, Comparison] | None:
        """How many seeds both regimes have at this share, and by how much b exceeds a; None: no seed.

        Args:
            share, a, b: of the runs.
            far: on the frames far from the block that was trained on, instead of `val`.

        Raises:
            InputError: when two runs that are compared were scored on different images.
        """
        before, after = (
            {run.seed: run.far if far else run.matrices for run in self.of(share, regime)} for regime in (a, b)
        )
        pairs = [(before[seed], found) for seed, found in after.items() if before.get(seed) and found]
        if not pairs:
            return None
        for (names, _), (others, _) in pairs if far else [(pairs[0][0], found) for pair in pairs for found in pair]:
            if names != others:
                raise InputError(f"{self.folder}: {a} and {b} at {share:g} were validated on other images")
        stacks = (np.stack([matrices for _, matrices in side]) for side in zip(*pairs, strict=True))
        return len(pairs), paired_bootstrap(*stacks)

    @cached_property
    def differences(self) -> dict[tuple[float, str, str], tuple[int, Comparison]]:
        """By share, regime and the one that it is compared with, on `val`."""
        return self._differences(far=False)

    @cached_property
    def far_differences(self) -> dict[tuple[float, str, str], tuple[int, Comparison]]:
        """The same on frames far from the block."""
        return self._differences(far=True)

    def _differences(self, far: bool) -> dict[tuple[float, str, str], tuple[int, Comparison]]:
        pairs = [(BASE, regime) for regime in self.regimes if regime != BASE]
        pairs += [(regime, f"{regime}+tuned") for regime in PAIR if f"{regime}+tuned" in self.regimes]
        pairs += [pair for pair in (PAIR, TUNED_PAIR) if set(pair) <= set(self.regimes)]
        keys = [(share, b, a) for share in self.shares for a, b in pairs]
        found = {(share, b, a): self.compare(share, a, b, far) for share, b, a in keys}
        return {key: value for key, value in found.items() if value is not None}

    def break_even(self, regime: str) -> float | None:
        """The share of the real images with which a regime's mean IoU is that of `BASE` with all of them.

        Between two shares it is interpolated over the logarithm of the share. None: the regime is nowhere above, or
        everywhere, or scores are missing.
        """
        goal = self.mean(1.0, BASE)
        means = [(share, self.mean(share, regime)) for share in self.shares]
        points = [(share, value) for share, value in means if value is not None]
        if goal is None:
            return None
        for (more, above), (less, below) in pairwise(points):
            if above >= goal > below:
                return float(less * (more / less) ** ((goal - below) / (above - below)))
        return None

    def mean(self, share: float, regime: str) -> float | None:
        """A regime's mean IoU over the seeds, 0 to 1; None: no run of it is finished."""
        runs = self.of(share, regime)
        return statistics.mean(run.metrics["mean_iou"] for run in runs) if runs else None
