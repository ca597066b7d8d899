"""Signals in the midst of an epoch: a checkpoint at the next step, the signal's exit code, the same end after all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.training.interruption import StopOnSignal
from tests.commands.processes import in_a_process, state, stop_when

SETTINGS = (
    "train", "data.size=[32,48]", "data.batch_size=4", "data.num_workers=0", "model=fcn32s_vgg16_bn",
    "model.width=0.05", "scheduler=constant", "trainer.accelerator=cpu", "callbacks.progress=null",
    "logger.tensorboard=null",
    "trainer.log_every_n_steps=1", "data.steps_per_epoch=60",
    "data.train.real.length=12", "data.train.synthetic.length=12", "data.val.length=2", "trainer.max_epochs=2",
)  # fmt: skip
"""Of two epochs of 60 steps."""


def steps(folder: Path) -> int:
    """How many steps a run has written into its curves so far."""
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def begun(folder: Path) -> Callable[[], bool]:
    return lambda: steps(folder) >= 5


def step_of(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that was left in peace."""
    folder = tmp_path_factory.mktemp("whole")
    process = in_a_process([*SETTINGS, "hydra.run.dir=run"], folder)
    assert process.wait(timeout=300) == 0, process.communicate()[1]
    return state(folder / "run")


def goes_on(folder: Path, whole: dict[str, torch.Tensor]) -> None:
    """Whether the same command with resume=auto ends with the same weights."""
    process = in_a_process([*SETTINGS, "hydra.run.dir=run", "resume=auto"], folder)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "goes on     run" in shown
    assert step_of(folder / "run") == 120
    for name, value in state(folder / "run").items():
        assert torch.equal(value, whole[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_code(tmp_path: Path, how: signal.Signals, whole: dict) -> None:
    process = in_a_process([*SETTINGS, "hydra.run.dir=run"], tmp_path)
    written = stop_when(begun(tmp_path / "run"), process, how)
    assert process.returncode == 128 + how, written
    assert f"{how.name}: stops after this step, at once when it comes again" in written
    assert "interrupted; go on with the same settings and resume=run/checkpoints/last.ckpt" in written
    assert "Traceback" not in written
    assert 1 <= step_of(tmp_path / "run") < 60, "in the midst of the first epoch"
    goes_on(tmp_path, whole)


@pytest.mark.slow
def test_of_two_processes_one_that_gets_it_is_enough(tmp_path: Path) -> None:
    process = in_a_process([*SETTINGS, "trainer=ddp_cpu", "hydra.run.dir=run"], tmp_path)
    written = stop_when(begun(tmp_path / "run"), process, signal.SIGTERM)
    assert process.returncode == 143, written
    assert written.count("interrupted; go on") == 1
    assert 1 <= step_of(tmp_path / "run") < 60


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """What SLURM puts into the environment, and an `scontrol` that writes what it is asked for into bin/called."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/called"\n')
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": 7, "SLURM_JOB_NAME": "train", "SLURM_NTASKS": 1, "SLURM_PROCID": 0, "SLURM_LOCALID": 0}
    job |= {"SLURM_NODEID": 0, "SLURM_NNODES": 1, "SLURM_NTASKS_PER_NODE": 1, "SLURM_JOB_NODELIST": "localhost"}
    return {name: str(value) for name, value in job.items()} | {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_slurm_gets_the_job_back_and_no_batch_is_left_out(tmp_path: Path, job: dict, whole: dict) -> None:
    process = in_a_process([*SETTINGS, "hydra.run.dir=run"], tmp_path, **job)
    written = stop_when(begun(tmp_path / "run"), process, signal.SIGUSR1)
    assert process.returncode == 128 + signal.SIGUSR1, written
    assert (tmp_path / "bin" / "called").read_text() == "requeue 7\n"
    assert 1 <= step_of(tmp_path / "run") < 60
    assert not list((tmp_path / "run").glob("hpc*")), "Lightning's own handler has not saved as well"
    goes_on(tmp_path, whole)


def test_a_killed_worker_ends_in_one_line(tmp_path: Path) -> None:
    process = in_a_process([*SETTINGS, "data.num_workers=1", "hydra.run.dir=run"], tmp_path)

    def workers() -> list[psutil.Process]:
        return [child for child in psutil.Process(process.pid).children() if steps(tmp_path / "run") >= 5]

    deadline = time.monotonic() + 120
    while not (found := workers()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for worker in found:
        worker.kill()
    shown = process.communicate(timeout=60)[1]
    assert process.returncode == 2, shown
    assert "Traceback" not in shown
    line = shown.strip().splitlines()[-1]
    assert line.startswith("fcnseg: process ")
    assert "which prepared samples, was killed, perhaps for want of memory" in line


ENDLESS = """
import sys, time
import torch
from pytorch_lightning import LightningModule, Trainer
from fcnseg.training.interruption import StopOnSignal

class Step(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
    def training_step(self, batch, index):
        print("step", flush=True)
        time.sleep(600)
        return self.weight.sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
Trainer(callbacks=[StopOnSignal(float(sys.argv[1]))], **options).fit(Step(), [0] * 9)
"""


def endless(within: float, **variables: str) -> subprocess.Popen:
    """A training whose step does not end, in its step."""
    command, environment = [sys.executable, "-c", ENDLESS, str(within)], {**os.environ, **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **pipes, text=True, env=environment)
    assert process.stdout is not None
    assert "step\n" in iter(process.stdout.readline, "")
    return process


def test_a_step_that_does_not_end_is_left_within_a_bound() -> None:
    process = endless(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


def test_slurm_gets_a_job_back_whose_step_does_not_end(tmp_path: Path, job: dict) -> None:
    process = endless(0.5, **job)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 128 + signal.SIGUSR1
    assert (tmp_path / "bin" / "called").read_text() == "requeue 7\n"


def test_a_second_signal_ends_it_at_once() -> None:
    process = endless(600)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


def test_after_a_training_signals_do_what_they_did_before(fcnseg, tmp_path: Path) -> None:
    """In a sweep the next run may take long to begin."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    assert fcnseg(*SETTINGS, "trainer.max_steps=1", "hydra.run.dir=run") == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_the_bound_is_a_time() -> None:
    with pytest.raises(InputError, match=r"callbacks.stop_on_signal.within=0: expected seconds above 0"):
        StopOnSignal(0)
