"""How many cores there are: by affinity, by what a container may use, and by what SLURM gives a task."""

import os
from pathlib import Path

import pytest

from fcnseg import cgroups, cores

POD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of eight cores without control groups or SLURM."""
    monkeypatch.setattr(cgroups, "FOLDER", tmp_path / "fs")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_the_quota_of_a_control_group_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    write(tmp_path / "fs", files)
    assert cores.available_cores() == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [  # what /proc/self/cgroup says on machines of several kinds, and the files that count there
        (["0::/"], {"cpu.max": "300000 100000"}, 3),  # in a container, which sees its group as the root
        (
            ["0::/user.slice/user-1000.slice/session-2.scope"],
            {"user.slice/user-1000.slice/cpu.max": "400000 100000", "user.slice/cpu.max": "max 100000"},
            4,
        ),
        (
            [f"0::/{POD}/cri-containerd-5.scope"],
            {f"{POD}/cri-containerd-5.scope/cpu.max": "600000 100000", f"{POD}/cpu.max": "500000 100000"},
            5,
        ),
        (["0::/system.slice/train.service"], {"system.slice/other.service/cpu.max": "100000 100000"}, 8),
        (["0::/../../docker-1.scope"], {"cpu.max": "200000 100000"}, 2),  # outside of the own namespace
        (  # version 1, controllers mounted together; and its own group bound to the root, as Docker does
            ["12:memory:/docker/1", "4:cpu,cpuacct:/docker/1", "1:name=systemd:/docker/1"],
            {"cpu,cpuacct/cpu.cfs_quota_us": "700000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            7,
        ),
        (
            ["4:cpu,cpuacct:/slurm/uid_7/job_42/step_0"],
            {"cpu/slurm/uid_7/job_42/cpu.cfs_quota_us": "50000", "cpu/slurm/uid_7/job_42/cpu.cfs_period_us": "25000"},
            2,
        ),
        (  # both at once, the second version beside the first
            ["1:cpu:/", "0::/user.slice"],
            {"unified/user.slice/cpu.max": "150000 50000", "cpu/cpu.cfs_quota_us": "-1"},
            3,
        ),
    ],
)
def test_the_groups_around_a_process_s_own_count_as_well(
    tmp_path: Path, own: list[str], files: dict[str, str], expected: int
) -> None:
    write(tmp_path / "fs", files)
    (tmp_path / "own").write_text("\n".join(own) + "\n")
    assert cores.available_cores() == expected


@pytest.mark.parametrize(
    ("variables", "each", "of_four"),
    [
        ({}, 8, 2),
        ({"CPUS_PER_TASK": "6", "CPUS_ON_NODE": "8"}, 6, 1),  # one task, in which torchrun starts four processes
        ({"CPUS_PER_TASK": "2", "CPUS_ON_NODE": "8", "STEP_TASKS_PER_NODE": "4"}, 2, 2),
        ({"CPUS_ON_NODE": "8", "STEP_TASKS_PER_NODE": "4(x2),1", "NODEID": "1"}, 2, 2),
        ({"CPUS_ON_NODE": "7", "STEP_TASKS_PER_NODE": "4(x2),1", "NODEID": "2"}, 7, 1),
        ({"CPUS_ON_NODE": "3"}, 3, 1),
        ({"CPUS_PER_TASK": "64"}, 8, 2),
        ({"CPUS_PER_TASK": "all"}, 8, 2),
    ],
)
def test_slurm_gives_each_task_its_share(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], each: int, of_four: int
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", text)
    assert cores.available_cores() == each
    assert cores.cores_of_each(4) == of_four
