"""How much memory there is to use."""

import errno
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from fcnseg.cgroups import groups

MEMINFO = Path("/proc/meminfo")

GROUP_FILES = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Of versions 2 and 1 of control groups: files of limit and use, and how lines of `memory.stat` begin."""


IN_TRAINING = (
    "try data.device_batch_size=1, a smaller data.size or model.width, trainer.precision=bf16-mixed, or "
    "trainer.checkpoint_activations=true"
)
"""What helps a training whose memory is full."""

ON_A_GPU = (
    *("CUDA out of memory", "CUDA error: out of memory", "HIP out of memory", "MPS backend out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What torch and its libraries say when the memory of a GPU is full."""

ON_THE_HOST = ("DefaultCPUAllocator: can't allocate memory", "Insufficient memory")
"""What torch and OpenCV say when the memory of the host is full."""


def full_memory(error: BaseException) -> str | None:
    """Whose memory an error says is full: "the GPU's memory", or "memory" of the host; None of other errors."""
    text = str(error) if isinstance(error, RuntimeError) or type(error).__module__ == "cv2" else ""
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in ON_A_GPU):
        return "the GPU's memory"
    full = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return "memory" if full or any(words in text for words in ON_THE_HOST) else None


def peak_memory() -> int | None:
    """The most bytes that this process has had in memory since it began; None where nothing tells (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> float:
    """Bytes that this process can take without swapping, by what the host has left and the limits of its control
    groups (a container's, a batch job's); infinite where nothing tells (not Linux)."""
    return min([_left_on_host(), *_left_in_groups()])


def _left_on_host() -> float:
    return _lines(MEMINFO).get("MemAvailable:", math.inf) * 1024


def _left_in_groups() -> Iterator[float]:
    """What each control group that this process is in, and those around them, have left; files in memory can go."""
    for group in groups("memory"):
        statistics = _lines(group / "memory.stat")
        for limit, use, prefix in GROUP_FILES:
            files = sum(statistics.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            yield max(0.0, _number(group / limit, math.inf) - _number(group / use, 0) + files)


def _lines(path: Path) -> dict[str, int]:
    """The numbers of a file whose lines begin with a name and a number."""
    try:
        found = [line.split() for line in path.read_text().splitlines()]
        return {words[0]: int(words[1]) for words in found if len(words) > 1 and words[1].isdigit()}
    except OSError:
        return {}


def _number(path: Path, otherwise: float) -> float:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number
        return otherwise
