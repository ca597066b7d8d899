"""How many processor cores there are to use."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """How many cores this process may use, by its affinity and by the quota of its control group (a container's)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """Cores that the kernel gives to the control group: cpu.max of version 2, else the two files of version 1."""
    try:
        if (file := CGROUPS / "cpu.max").is_file():
            quota, period = file.read_text().split()
        else:
            quota, period = ((CGROUPS / "cpu" / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        cores = int(quota) / int(period)  # "max" is no number
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None
