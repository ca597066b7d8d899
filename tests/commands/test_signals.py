"""Signals in the midst of an epoch: a checkpoint at the next step, the signal's exit code, the same end after all."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from fcnseg.errors import InputError
from fcnseg.training.interruption import StopOnSignal
from tests.commands.processes import Forked, environment, in_a_process, state, stop_when

SETTINGS = (
    "train", "data.size=[32,48]", "data.batch_size=4", "data.num_workers=0", "model=fcn32s_vgg16_bn",
    "model.width=0.05", "scheduler=constant", "trainer.accelerator=cpu", "callbacks.progress=null",
    "logger.tensorboard=null",
    "trainer.log_every_n_steps=1", "data.steps_per_epoch=60",
    "data.train.real.length=12", "data.train.synthetic.length=12", "data.val.length=2", "trainer.max_epochs=2",
    "trainer.max_steps=80",
)  # fmt: skip
"""Of an epoch of 60 steps, and 20 of the next."""


def steps(folder: Path) -> int:
    """How many steps a run has written into its curves so far."""
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def begun(folder: Path) -> Callable[[], bool]:
    return lambda: steps(folder) >= 5


def step_of(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


@pytest.fixture
def goes_on(fcnseg: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], None]:
    """Whether the same command with resume=auto ends with the weights of a run that was left in peace."""

    def check() -> None:
        capsys.readouterr()
        assert fcnseg(*SETTINGS, "hydra.run.dir=run", "resume=auto") == 0
        assert "goes on     run" in capsys.readouterr().out
        assert fcnseg(*SETTINGS, "hydra.run.dir=whole") == 0
        assert step_of(tmp_path / "run") == step_of(tmp_path / "whole") == 80
        whole = state(tmp_path / "whole")
        for name, value in state(tmp_path / "run").items():
            assert torch.equal(value, whole[name]), name

    return check


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_code(tmp_path: Path, how: signal.Signals, goes_on: Callable) -> None:
    process = in_a_process([*SETTINGS, "hydra.run.dir=run"], tmp_path)
    written = stop_when(begun(tmp_path / "run"), process, how)
    assert process.returncode == 128 + how, written
    assert f"{how.name}: stops after this step, at once when it comes again" in written
    assert "interrupted; go on with the same settings and resume=run/checkpoints/last.ckpt" in written
    assert "Traceback" not in written
    assert 1 <= step_of(tmp_path / "run") < 60, "in the midst of the first epoch"
    goes_on()


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
def test_slurm_gets_the_job_back_and_no_batch_is_left_out(tmp_path: Path, job: dict, goes_on: Callable) -> None:
    process = in_a_process([*SETTINGS, "hydra.run.dir=run"], tmp_path, **job)
    written = stop_when(begun(tmp_path / "run"), process, signal.SIGUSR1)
    assert process.returncode == 128 + signal.SIGUSR1, written
    assert (tmp_path / "bin" / "called").read_text() == "requeue 7\n"
    assert 1 <= step_of(tmp_path / "run") < 60
    assert not list((tmp_path / "run").glob("hpc*")), "Lightning's own handler has not saved as well"
    goes_on()


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


class Endless(LightningModule):
    """Writes the file `step` in a step that does not end."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        Path("step").touch()
        time.sleep(600)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(within: float) -> None:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(callbacks=[StopOnSignal(within)], **options).fit(Endless(), [0] * 9)


def endless(folder: Path, within: float, **variables: object) -> Forked:
    """A training whose step does not end, in its step."""
    process = Forked(fit, within, folder, environment(variables))
    deadline = time.monotonic() + 120
    while not (folder / "step").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_step_that_does_not_end_is_left_within_a_bound(tmp_path: Path) -> None:
    process = endless(tmp_path, 0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


def test_slurm_gets_a_job_back_whose_step_does_not_end(tmp_path: Path, job: dict) -> None:
    process = endless(tmp_path, 0.5, **job)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 128 + signal.SIGUSR1
    assert (tmp_path / "bin" / "called").read_text() == "requeue 7\n"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = endless(tmp_path, 600)
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
