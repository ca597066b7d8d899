"""The processes of one training: the first decides what is trained and where, those started beside it are told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import torch.distributed
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

TOLD = "FCNSEG_TRAINING"
"""Environment variable by which the first process tells those that Lightning starts for it what to train."""

LAUNCHER = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning's launcher sets for its processes, and leaves behind in the first one."""


@dataclass(frozen=True)
class Training:
    """One training, as the first process has decided on it.

    Attributes:
        config: with every value resolved.
        folder: where its checkpoints and scores go.
        resume: the checkpoint that it goes on from.
    """

    config: DictConfig
    folder: Path
    resume: str | None


def told() -> Training | None:
    """The training for which Lightning has started this process; None in a process that decides for itself."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0 or TOLD not in os.environ:
        return None
    written = OmegaConf.create(os.environ[TOLD])
    assert isinstance(written, DictConfig)
    return Training(written.config, Path(written.folder), written.resume)


def know_rank() -> None:
    """Let only the first process speak and write from the beginning on, and not just once there is a trainer."""
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]


def rank() -> int:
    """The number of this process among all; any number but 0 where only its node's is known, and is not 0."""
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    # As Lightning has it: SLURM counts processes also where it is not the one that starts those of a training.
    within = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", 0)))
    return within or int(os.environ.get("NODE_RANK", 0))


@contextmanager
def processes_of(trainer: Trainer, training: Training) -> Iterator[None]:
    """Tell the processes that Lightning starts during this what to train, and end them with it.

    So they need not compose a config, name a folder by the time or look into one. Afterwards this process is alone
    again, as it was, and the next stage or the next run of a sweep starts processes of its own.
    """
    if "LOCAL_RANK" in os.environ:  # one of several processes that someone else has started
        yield
        trainer.strategy.barrier()
        return
    before = {key: os.environ.get(key) for key in (*LAUNCHER, TOLD)}
    os.environ[TOLD] = _written(training)
    patience = 0.0
    try:
        yield
        trainer.strategy.barrier()  # none leaves while another one still scores
        patience = 60.0
    finally:
        if processes := getattr(trainer.strategy.launcher, "procs", []):
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            _end(processes, patience)
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _written(training: Training) -> str:
    config = OmegaConf.to_container(training.config, resolve=True)
    return OmegaConf.to_yaml({"config": config, "folder": str(training.folder), "resume": training.resume})


def _end(processes: list[Any], patience: float) -> None:
    """Wait for the processes, and kill those that are still there."""
    started = list(processes)
    processes.clear()  # Lightning watches this list, and kills us too if one in it ends badly
    for process in started:
        try:
            process.wait(patience)
        except TimeoutExpired:
            process.kill()
            process.wait()
