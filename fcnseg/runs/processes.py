"""The processes of one training: the first decides what is trained and where, those beside it are told."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import mkstemp
from typing import Any

import torch.distributed
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.errors import InputError, mistake
from fcnseg.models.sharded import files_of
from fcnseg.runs.connecting import PARENT, Connecting
from fcnseg.runs.folder import relative
from fcnseg.runs.heartbeat import Launcher, Lost, children_of, heartbeat_of
from fcnseg.runs.meeting import First, Other, Started, open_store, started

TOLD = "FCNSEG_TRAINING"
"""Environment variable by which a process tells those that Lightning starts for it what to train."""

COMPLAINT = "FCNSEG_COMPLAINT"
"""Environment variable by which it tells them the file for what is wrong with the user's input."""

LAUNCHER = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")
"""What a training changes in the environment, and is as before after it."""


@dataclass(frozen=True)
class Training:
    """One training, as the first process has decided on it.

    Attributes:
        config: with every value resolved.
        folder: where its checkpoints and scores go.
        resume: the checkpoint that it goes on from.
        port: where its processes find one another, on the first one's machine; None: Lightning's choice.
        files: of this run that it starts from, which only the first process's disk need have.
    """

    config: DictConfig
    folder: Path
    resume: str | None
    port: int | None = None
    files: Sequence[Path] = ()


def told() -> Training | None:
    """The training for which Lightning has started this process; None in a process that decides for itself."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0 or TOLD not in os.environ:
        return None
    return _read(os.environ[TOLD])


def know_rank() -> None:
    """Let only the first process speak and write from the beginning on, and not just once there is a trainer."""
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]


def rank() -> int:
    """The number of this process among all; any number but 0 where only its node's is known, and is not 0."""
    start = started()
    return 0 if start is None else start.rank


_meeting: First | Other | None = None
"""Open from the first training on until this process ends."""


def trainings() -> Iterator[Training]:
    """In a process that is not the first of those started by someone else: one training after the other."""
    global _meeting
    start = started()
    assert start is not None
    meeting = _meeting = Other(open_store(start), start.rank)
    while (text := meeting.hear()) is not None:
        yield _read(text)


def meet(trainer: Trainer) -> First | Other | None:
    """Where this process meets those that someone else has started beside it; None where Lightning starts all others.

    Raises:
        InputError: when other processes are there than the trainer's settings make.
    """
    global _meeting
    heartbeat = heartbeat_of(trainer)
    within = math.inf if heartbeat is None else heartbeat.within
    if _meeting is not None:
        _meeting.within = within
    if _meeting is not None or told() is not None:
        return _meeting
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    expected, start = trainer.num_devices * trainer.num_nodes, started()
    if start is not None and start.count not in (None, expected):
        raise InputError(
            f"{start.by} has started {start.count} processes, trainer.devices times trainer.num_nodes is {expected}; "
            f"expected as many, such as trainer=ddp trainer.devices={start.count}"
        )
    if start is None and expected > 1 and isinstance(cluster, SLURMEnvironment):
        raise InputError("in a SLURM job srun starts the processes; expected srun fcnseg train ...")
    if not isinstance(cluster, LightningEnvironment | SLURMEnvironment | TorchElasticEnvironment):
        return None
    others = (expected if cluster.creates_processes_externally else trainer.num_nodes) - 1
    if others > 0:
        _meeting = First(open_store(start or Started("hand", 0, None)), others, within)
    return _meeting


def part(error: BaseException | None) -> None:
    """At the end of the first process: let those beside it leave, also where it failed before it met them."""
    global _meeting
    start = started()
    with suppress(InputError):
        if _meeting is None and start is not None and start.rank == 0 and start.count is not None:
            _meeting = First(open_store(start), start.count - 1)
    if isinstance(_meeting, First):
        _meeting.end(None if isinstance(error, SystemExit) and not error.code else error)
    _meeting = None


@contextmanager
def preparing(training: Training, meeting: First | Other | None) -> Iterator[Training]:
    """Let all processes prepare the training in the block side by side, and go on when each of them has.

    Raises:
        InputError: what keeps another process from it.
    """
    if meeting is None:
        yield training
        return
    if isinstance(meeting, First):
        training = replace(training, port=find_free_network_port(), files=_begun_from(training))
        meeting.tell(_written(training))
    try:
        for number, path in enumerate(training.files):
            meeting.share(f"file {number}", path)
        yield training
    except BaseException as error:
        meeting.agree(error)
        raise
    meeting.agree(None)


def _begun_from(training: Training) -> list[Path]:
    """See `Training.files`."""
    weights, run = training.config.model.get("weights"), training.folder.absolute().parent
    files = [] if training.resume is None else files_of(training.resume)
    return [*files, *files_of(weights)] if weights and Path(weights).absolute().is_relative_to(run) else files


@contextmanager
def training_together(trainer: Trainer, training: Training, meeting: First | Other | None) -> Iterator[None]:
    """Tell the processes that Lightning starts during this what to train, and end them with it.

    So they need not compose a config, name a folder by the time or look into one. Afterwards this process is alone
    again, as it was, and the next stage or the next run of a sweep opens a group of its own.

    Raises:
        InputError: what ended the training in a process that someone else has started.
    """
    before = {key: os.environ.get(key) for key in (*LAUNCHER, TOLD, COMPLAINT, PARENT)}
    number, complaint = mkstemp()
    os.close(number)
    connecting = _watch_connecting(trainer, meeting, Path(complaint))
    os.environ.update({TOLD: _written(training), COMPLAINT: complaint, PARENT: str(os.getpid())})
    if training.port is not None:  # not where the processes meet, which stays open
        os.environ.update(MASTER_PORT=str(training.port), TORCHELASTIC_USE_AGENT_STORE=str(False))
    heartbeat = heartbeat_of(trainer)
    if heartbeat is not None:
        heartbeat.told_by_others = lambda: Path(complaint).read_text() if meeting is None else meeting.complaint()
    patience = 0.0
    try:
        yield
        trainer.strategy.barrier()  # none leaves while another one still scores
        patience = 60.0
        if heartbeat is not None:
            heartbeat.stop()
    except Exception as error:
        if mistake(error) is None:  # an error of the connection comes from one elsewhere
            line = _heard(Path(complaint), _started(trainer)) if meeting is None else meeting.complaint(patience=5)
            if line:
                raise InputError(line) from error
            if heartbeat is not None and heartbeat.loss():
                heartbeat.tell()
                if meeting is not None:
                    meeting.forsake()
                raise Lost(1) from error
        if meeting is not None:
            meeting.complain(error)
        raise
    finally:
        if connecting is not None:
            connecting.stop()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        _end(_started(trainer), patience)
        if heartbeat is not None:
            heartbeat.stop()
        Path(complaint).unlink(missing_ok=True)
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


@contextmanager
def complaining() -> Iterator[None]:
    """In a process that Lightning has started: leave it to the first one to show the user's mistake."""
    try:
        yield
    except Exception as error:
        if (line := mistake(error)) is None or COMPLAINT not in os.environ:
            raise
        with suppress(OSError):
            Path(os.environ[COMPLAINT]).write_text(line)
        sys.exit(2)


def _watch_connecting(trainer: Trainer, meeting: First | Other | None, complaint: Path) -> Connecting | None:
    """Watch over the processes from their start on until the heartbeat does, if there is one."""
    heartbeat, launcher = heartbeat_of(trainer), trainer.strategy.launcher
    if heartbeat is None or trainer.world_size == 1:
        return None
    if isinstance(launcher, _SubprocessScriptLauncher):
        settings = launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        trainer.strategy._launcher = Launcher(*settings)
    connecting = Connecting(trainer, meeting, complaint)
    heartbeat.connected = connecting.stop
    return connecting


def _started(trainer: Trainer) -> list[Any]:
    """The processes that Lightning has started by now."""
    heartbeat = heartbeat_of(trainer)
    return (heartbeat and heartbeat.children) or children_of(trainer) or getattr(trainer.strategy.launcher, "procs", [])


def _heard(complaint: Path, processes: list[Any]) -> str:
    """What a process has left as the user's mistake; empty where none has. Their ends are waited for a little."""
    for process in processes:
        with suppress(TimeoutExpired):
            process.wait(5)
    return complaint.read_text()


def _written(training: Training) -> str:
    """The training as text, in which paths below the working directory are relative to it: others may have another."""
    written = {**vars(training), "config": OmegaConf.to_container(training.config, resolve=True)}
    return OmegaConf.to_yaml(_relative(written))


def _read(text: str) -> Training:
    written = OmegaConf.create(text)
    assert isinstance(written, DictConfig)
    files = [Path(path) for path in written.files]
    return Training(written.config, Path(written.folder), written.resume, written.port, files)


def _relative(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _relative(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_relative(each) for each in value]
    return relative(value) if isinstance(value, Path) or (isinstance(value, str) and value.startswith("/")) else value


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
