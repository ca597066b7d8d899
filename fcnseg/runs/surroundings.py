"""What a run is carried out with: its command, code, versions, hardware and data, beside the config in its folder."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only

import fcnseg
from fcnseg.atomic import replacing
from fcnseg.cores import available_cores
from fcnseg.data.dataset import SegmentationDataset, image_files

FILE = "run.json"
PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "hydra-core", "albumentations", "torchmetrics"),
    *("numpy", "opencv-python-headless", "pillow"),
)
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "SLURM_JOB_ID", "PL_GLOBAL_SEED")


@rank_zero_only
def note_session(folder: Path, datasets: Mapping[str, SegmentationDataset]) -> None:
    """Add to run.json with what training begins, or goes on: one entry each time.

    Args:
        folder: of the run.
        datasets: by the names of their domains; "val" among them.
    """
    sessions = read_sessions(folder)
    sessions.append(surroundings() | {"data": {name: fingerprint(dataset) for name, dataset in datasets.items()}})
    with replacing(folder / FILE) as temporary:
        temporary.write_text(json.dumps({"sessions": sessions}, indent=2) + "\n")


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's run.json, from its beginning on; none where it is missing or damaged."""
    try:
        return list(json.loads((folder / FILE).read_text())["sessions"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def surroundings() -> dict[str, Any]:
    """Command, code, versions and hardware, as plain values."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "working_directory": os.getcwd(),
        "fcnseg": {"version": fcnseg.__version__, **_commit(Path(fcnseg.__file__).parent)},
        "project": _commit(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": available_cores(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        },
    }


def fingerprint(dataset: SegmentationDataset) -> dict[str, Any]:
    """How many samples a dataset has, and a hash of its image files' names in their order, wherever they lie."""
    files = list(image_files(dataset))
    common = len(os.path.commonpath(files)) if len(files) > 1 else 0
    names = sha256("\0".join(file[common:] for file in files).encode(errors="surrogateescape"))
    return {"samples": len(dataset)} | ({"names": names.hexdigest()[:16]} if files else {})


def _commit(folder: Path) -> dict[str, Any]:
    """The git commit of a checkout, and whether files have been changed since; empty elsewhere."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {} if not commit else {"commit": commit, "changed": bool(git("status", "--porcelain", "-uno"))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
