"""The processor: its name, and how many of its cores there are to use."""

import math
import os
import platform
import re
from pathlib import Path

from fcnseg.cgroups import groups

_sharing = 1
"""Processes that share the cores with this one, itself among them."""


def share_cores(processes: int) -> None:
    """From now on take this process for one of so many that share the cores evenly."""
    global _sharing
    _sharing = processes


def available_cores() -> int:
    """How many cores this process may use: by its affinity, by the quotas of its control groups, and by SLURM.

    The least counts. The quotas are those of the group that the process is in (a container's, a service's) and of
    every group around it; a SLURM job's share is that of one task. Of what is left a process takes its part after
    `share_cores`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for group in groups("cpu") if (quota := _quota(group))]
    share = _slurm_cores()
    return max(1, min([cores, *quotas, *([share] if share else [])]) // _sharing)


def processor_name() -> str:
    """What the processor calls itself: Linux tells it in /proc/cpuinfo, other systems through `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def cores_of_each(processes: int) -> int:
    """How many cores each of so many processes on this machine may use, one at least.

    They share what this one may use, unless SLURM has started them as tasks and given each its own.
    """
    return max(1, available_cores() // max(1, processes // _slurm_tasks()))


def _quota(group: Path) -> float | None:
    """Cores that the kernel gives to a control group: cpu.max of version 2, else the two files of version 1."""
    try:
        if (file := group / "cpu.max").is_file():
            quota, period = file.read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        cores = int(quota) / int(period)  # "max" is no number
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


# SLURM


def _slurm_cores() -> int | None:
    """Cores of this task: as it was asked for, else an even share of the job's on this machine."""
    if per_task := _number("SLURM_CPUS_PER_TASK"):
        return per_task
    on_node = _number("SLURM_CPUS_ON_NODE")
    return on_node and max(1, on_node // _slurm_tasks())


def _slurm_tasks() -> int:
    """Tasks that srun has started on this machine, from a list such as 4(x2),1 for three machines; 1 without it."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    counts = [int(tasks) for tasks, times in parts for _ in range(int(times or 1))]
    node = _number("SLURM_NODEID") or 0
    return max(1, counts[node]) if node < len(counts) else 1


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
