"""A real SLURM of the test's own, of one machine: a run of a sweep is preempted there, and goes on in the same job."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from tests.commands.processes import start
from tests.commands.test_clusters import TINY, curve_is_longer_than

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Controller and daemon, with their configuration, state and logs in a folder."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        pytest.skip(f"{missing[0]} is not there: apt-get install slurm-wlm")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host, user = socket.gethostname(), pwd.getpwuid(os.getuid()).pw_name
    ports = {"controller": find_free_network_port(), "daemon": find_free_network_port()}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, user=user, folder=folder, **ports))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    started = []
    for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
        with (folder / f"{command[0]}.log").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        deadline = time.monotonic() + 30
        while said("sinfo", "--noheader", "--format=%t") != "idle":
            if time.monotonic() > deadline or any(process.poll() is not None for process in started):
                lines = [line for log in sorted(folder.glob("*.log")) for line in log.read_text().splitlines()]
                pytest.skip(
                    f"SLURM does not start here: {next((x for x in lines if 'error' in x or 'fatal' in x), '')}"
                )
            time.sleep(0.1)
        yield
    finally:
        deadline = time.monotonic() + 30
        while said("squeue", "--noheader"):  # daemon and controller end a job together
            if time.monotonic() > deadline - 15:
                said("scancel", "--user", user)
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.slow
def test_a_preempted_job_of_two_processes_is_requeued_and_goes_on(slurm, tmp_path):
    """Submitit's signal reaches the job as SLURM sends it, and SLURM begins the same job again."""
    processes = ["trainer=ddp_multinode", "trainer.accelerator=cpu", "hydra.launcher.tasks_per_node=2"]
    launcher = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.sweep.dir=all", "resume=auto"]
    length = ["data.steps_per_epoch=40", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
    process = start(["fcnseg", "train", "-m", *TINY, *length, *processes, *launcher], tmp_path)
    curve_is_longer_than(5, tmp_path / "all" / "0", process)
    job = said("squeue", "--noheader", "--format=%i")
    said("scancel", "--signal=USR2", job)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert said("scontrol", "show", "job", job).count("Restarts=1") == 1
    (log,) = (tmp_path / "all" / ".submitit").glob("*/*_0_log.out")
    assert log.read_text().count("trainer     2 x cpu") == 2
    assert "goes on     all/0" in log.read_text()
    assert 5 < len((tmp_path / "all" / "0" / "metrics.1.csv").read_text().splitlines()) < 40
    assert (tmp_path / "all" / "0" / "metrics.json").is_file()
