"""What there is of a study by scripts/bgc_study.py: its runs, their scores and curves, and how they differ."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import InputError
from fcnseg.evaluation import Comparison, load_matrices, paired_bootstrap

BASE = "real"
"""The regime that all others are compared with."""

PAIR = ("finetune", "bgc")
"""The two that the study is named after."""

FOCUS = 0.25
"""The share that is looked at class by class, where it is there."""


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
                yield from ((share, seed, r) for r in self.regimes if (r == "synthetic") == (share == 0))

    def of(self, share: float, regime: str) -> list[Run]:
        """The finished runs; those on synthetic images alone belong to every share."""
        return [run for run in self.runs if run.regime == regime and run.share in (share, 0)]

    def compare(self, share: float, a: str, b: str) -> tuple[int, Comparison] | None:
        """How many seeds both regimes have at this share, and by how much b exceeds a; None: no seed.

        Raises:
            InputError: when the runs were not validated on the same images.
        """
        before, after = ({run.seed: run for run in self.of(share, regime)} for regime in (a, b))
        seeds = sorted(set(before) & set(after))
        if not seeds:
            return None
        pairs = [(before[seed], after[seed]) for seed in seeds]
        names = pairs[0][0].matrices[0]
        for run in (run for pair in pairs for run in pair):
            if run.matrices[0] != names:
                raise InputError(f"{run.folder}: validated on other images than {pairs[0][0].folder}")
        stacks = (np.stack([run.matrices[1] for run in runs]) for runs in zip(*pairs, strict=True))
        return len(seeds), paired_bootstrap(*stacks)

    @cached_property
    def differences(self) -> dict[tuple[float, str, str], tuple[int, Comparison]]:
        """By share, regime and the one that it is compared with."""
        pairs = [(BASE, regime) for regime in self.regimes if regime != BASE]
        if set(PAIR) <= set(self.regimes):
            pairs.append(PAIR)
        keys = [(share, b, a) for share in self.shares for a, b in pairs]
        found = {(share, b, a): self.compare(share, a, b) for share, b, a in keys}
        return {key: value for key, value in found.items() if value is not None}
