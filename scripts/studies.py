"""What the studies of this folder share: processes that train, their share of the machine, the facts of a report."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import fcnseg
from fcnseg.cores import available_cores, processor_name
from fcnseg.runs.surroundings import commit_of


def circumstances() -> dict[str, Any]:
    """When, by which code, and on what a study was begun."""
    return {
        "started": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "machine": machine(),
        "versions": {"fcnseg": fcnseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def resources(slot: int, processes: int) -> dict[str, str]:
    """Environment variables that give a process its share of the machine: a GPU, or some cores."""
    if devices := gpus():
        return {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}
    threads = str(max(1, available_cores() // processes))
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else list(map(str, range(count))))[:count]


def stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def commit() -> str | None:
    """The checkout's commit, with a + where it has been changed since; None without git."""
    state = commit_of(Path(__file__).parent)
    return f"{state['commit']}{'+' if state['changed'] else ''}" if state else None


def machine() -> str:
    parts = [f"{available_cores()} cores of {processor_name()}"]
    return " and ".join(parts + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
