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
from fcnseg.cores import available_cores, processor_name
from fcnseg.data.dataset import SegmentationDataset, image_files
from fcnseg.reports.files import SESSIONS, read_sessions

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "hydra-core", "albumentations", "torchmetrics"),
    *("numpy", "opencv-python-headless", "pillow"),
)
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "SLURM_JOB_ID", "PL_GLOBAL_SEED")


@rank_zero_only
def note_session(folder: Path, datasets: Mapping[str, SegmentationDataset], learning_rate: float | None = None) -> None:
    """Add to run.json with what training begins, or goes on: one entry each time.

    Args:
        folder: of the run.
        datasets: by the names of their domains; "val" among them.
        learning_rate: what `lr_rule` has made of `optimizer.lr`; None: the rate itself.
    """
    sessions = read_sessions(folder)
    rate = {} if learning_rate is None else {"learning_rate": learning_rate}
    data = {name: fingerprint(dataset) for name, dataset in datasets.items()}
    sessions.append(surroundings() | rate | {"data": data})
    with replacing(folder / SESSIONS) as temporary:
        temporary.write_text(json.dumps({"sessions": sessions}, indent=2) + "\n")


def surroundings() -> dict[str, Any]:
    """Command, code, versions and hardware, as plain values."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "fcnseg")  # by python -m fcnseg
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([program, *sys.argv[1:]]),
        "working_directory": os.getcwd(),
        "fcnseg": {"version": fcnseg.__version__, **commit_of(Path(fcnseg.__file__).parent)},
        "project": commit_of(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "machine": {
            "system": platform.platform(),
            "processor": processor_name(),
            "cores": available_cores(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        },
    }


def fingerprint(dataset: SegmentationDataset) -> dict[str, Any]:
    """How many samples a dataset has, and a hash of the names of its image files and their folders, in their order."""
    names, nothing = sha256(), sha256().digest()
    for file in image_files(dataset):
        names.update(os.fsencode("/".join(file.rsplit(os.sep, 2)[-2:]) + "\n"))
    return {"samples": len(dataset)} | ({} if names.digest() == nothing else {"names": names.hexdigest()[:16]})


def commit_of(folder: Path) -> dict[str, Any]:
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
