"""What a benchmark has measured: a row for each network in each case, and the machine, as CSV and JSON."""

import csv
import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fcnseg
from fcnseg.atomic import replacing
from fcnseg.cores import processor_name
from fcnseg.inference.timing import Case


@dataclass(frozen=True)
class Row:
    """What one model took in one case.

    Attributes:
        model: as it was called.
        padding: of the model.
        case: form, precision, what, size and batch.
        seconds: of one call, in each round.
        memory: bytes at most during a call: weights, images and all that the call takes; without torch itself and
            other models. None where the system does not tell, or it was not asked for.
        gflop: of one call: two for each multiply-add of the network, in billions. What is computed once for all
            images of a size, with padding "caffe", counts in every call, so that it shows as speed.
        problem: why there are no numbers; empty where there are.
    """

    model: str
    padding: str
    case: Case
    seconds: tuple[float, ...] = ()
    memory: int | None = None
    gflop: float | None = None
    problem: str = ""

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds))

    @property
    def least(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)

    @property
    def p90(self) -> float:
        """Seconds within which nine of ten calls end, interpolated between rounds."""
        return float(np.percentile(self.seconds, 90))

    @property
    def images_per_second(self) -> float:
        return self.case.batch / self.median

    @property
    def gflop_per_second(self) -> float | None:
        return None if self.gflop is None else self.gflop / self.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what was not measured."""
        case = self.case
        about: dict[str, Any] = {
            "model": self.model,
            "padding": self.padding,
            "form": case.form,
            "precision": case.precision,
        }
        about |= {"what": case.what, "height": case.size[0], "width": case.size[1], "batch": case.batch}
        names = {"median_s": "median", "least_s": "least", "p90_s": "p90", "images_per_s": "images_per_second"}
        numbers = {key: getattr(self, name) if self.seconds else None for key, name in names.items()}
        rate = self.gflop_per_second if self.seconds else None
        costs = {"memory_bytes": self.memory, "gflop": self.gflop, "gflop_per_s": rate}
        return {**about, **numbers, **costs, "problem": self.problem or None}


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and on which machine.

    Attributes:
        machine: versions, device, threads and date; no names of hosts, users or folders.
        rows: by group, model, form and precision.
    """

    machine: dict[str, Any]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON, with the seconds of every round."""
        rows = [row.to_dict() | {"rounds_s": list(row.seconds)} for row in self.rows]
        return {"machine": self.machine, "rows": rows}

    def write(self, folder: Path) -> None:
        """Write benchmark.json, and benchmark.csv with the rows alone, over those that are there.

        Raises:
            OSError: where that cannot be done.
        """
        with replacing(folder / "benchmark.json") as path:
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        rows = [row.to_dict() for row in self.rows]
        with replacing(folder / "benchmark.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What numbers depend on besides the network: versions, device, threads; and the date."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "fcnseg": fcnseg.__version__,
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "device_name": processor_name() if device.type == "cpu" else device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        facts |= {"device_name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        facts |= {"cudnn": torch.backends.cudnn.version(), "tf32_convolutions": torch.backends.cudnn.allow_tf32}
    return facts
