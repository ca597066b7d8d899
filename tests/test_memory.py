"""How much memory there is: by what the host has left, and by the limits of control groups."""

import math
from pathlib import Path

import numpy as np
import psutil
import pytest

from fcnseg import cgroups, memory

V2 = "0::/job/step"
V1 = "12:cpu:/elsewhere\n7:memory:/job"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   8000 kB\nHugePages_Total: 0"}, 8_192_000),
        ({"proc/meminfo": "MemAvailable: 8000 kB", "groups/memory.max": "max"}, 8_192_000),
        ({"groups/memory.max": "5000", "groups/memory.current": "3000"}, 2000),
        ({"groups/memory.max": "5000", "groups/memory.current": "7000"}, 0),
        (
            {
                "groups/memory.max": "5000", "groups/memory.current": "3000",
                "groups/memory.stat": "anon 2000\ninactive_file 400\nactive_file 300\nshmem 9",
            },
            2700,
        ),
        ({"proc/self/cgroup": V2, "groups/job/memory.max": "5000", "groups/job/memory.current": "1000"}, 4000),
        (
            {
                "proc/self/cgroup": V2, "groups/job/memory.max": "5000", "groups/job/step/memory.max": "900",
                "groups/job/step/memory.current": "100", "groups/other/memory.max": "1",
            },
            800,
        ),
        (
            {
                "proc/self/cgroup": V1, "groups/memory/job/memory.limit_in_bytes": "6000",
                "groups/memory/job/memory.usage_in_bytes": "5000",
                "groups/memory/job/memory.stat": "total_inactive_file 10\ninactive_file 3",
            },
            1010,
        ),
        ({"groups/memory.max": "nonsense", "proc/self/cgroup": "nonsense"}, math.inf),
    ],
)  # fmt: skip
def test_the_tightest_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: float
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "proc/meminfo")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "proc/self/cgroup")
    monkeypatch.setattr(cgroups, "FOLDER", tmp_path / "groups")
    assert memory.available_memory() == expected


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux tells it")
def test_this_host_has_memory() -> None:
    assert 1e6 < memory.available_memory() < 1e15


def test_the_peak_is_that_of_this_process() -> None:
    held = np.ones(40_000_000)
    now = psutil.Process().memory_info().rss
    peak = memory.peak_memory()
    assert peak is not None
    assert peak >= 0.98 * now > held.nbytes
    assert memory.peak_memory() < 1.5 * psutil.virtual_memory().total, "bytes"
