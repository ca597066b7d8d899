"""Small trainings, some in processes of their own to be stopped in the midst."""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import torch

from fcnseg.commands.cli import main

SETTINGS = (
    "data.size=[48,64]",
    "data.batch_size=4",
    "data.num_workers=0",
    "model=fcn32s_vgg16",
    "model.width=0.05",
    "scheduler=constant",
    "trainer.accelerator=cpu",
    "trainer.deterministic=warn",
    "callbacks.progress=null",
    "logger.tensorboard=null",
)
"""Of a training that takes seconds and is the same each time."""


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def in_a_process(arguments: list[str], folder: Path, **variables: object) -> "Forked":
    """The `fcnseg` command in a process of its own, with more environment variables.

    Forked from one that has imported all of it and does nothing else, since that takes longer than most trainings
    here. The processes that Lightning starts for other ranks, and the commands of `start`, import it themselves.
    """
    return Forked(command, arguments, folder, environment(variables))


def start(command: list[str], folder: Path, **variables: object) -> subprocess.Popen:
    """A command of this virtual environment."""
    return subprocess.Popen(
        [script(command[0]), *command[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(variables),
    )  # fmt: skip


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def environment(more: dict[str, object]) -> dict[str, str]:
    """Of a process, without what Lightning has left in this one's, and what the command sees to itself."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "TORCH_CPP_"))} | {"OMP_NUM_THREADS": "1"}
    return own | {name: str(value) for name, value in more.items()}


FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["fcnseg.commands.train"])


class Forked:
    """A process with the methods of `subprocess.Popen`, which reads as that does until nobody has its pipes any more.

    Args:
        task: a function of a module, which is carried out in it.
        argument: its only one.
        folder: the working directory.
        variables: its whole environment.
    """

    def __init__(self, task: Callable[[Any], None], argument: Any, folder: Path, variables: dict[str, str]) -> None:
        reading, writing = zip(*(FORKING.Pipe(duplex=False) for _ in range(2)), strict=True)
        self._process = FORKING.Process(target=begin, args=(task, argument, folder, variables, writing))
        self._process.start()
        for end in writing:
            end.close()
        self._shown = [Shown(end) for end in reading]

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (shown.text(timeout) for shown in self._shown)
        return out, err

    def send_signal(self, how: signal.Signals) -> None:
        os.kill(self.pid, how)


class Shown:
    """What is written to a pipe, read as it comes."""

    def __init__(self, end: Connection) -> None:
        self._end, self._text = end, ""
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with open(self._end.fileno(), closefd=False) as file:
            self._text = file.read()

    def text(self, timeout: float | None) -> str:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("what writes to a pipe", timeout or 0)
        return self._text


def begin(
    task: Callable[[Any], None], argument: Any, folder: Path, variables: dict[str, str], ends: tuple[Connection, ...]
) -> None:
    """What a forked process does: it becomes as one that was started in a folder, with these variables and pipes."""
    for number, end in enumerate(ends, start=1):
        os.dup2(end.fileno(), number)
        end.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    try:
        task(argument)
    finally:
        atexit._run_exitfuncs()


def command(arguments: list[str]) -> None:
    """What the console script does."""
    sys.argv = [script("fcnseg"), *arguments]
    main()


def stop_when(
    ready: Callable[[], bool], process: "Forked | subprocess.Popen", how: signal.Signals, child: bool = False
) -> str:
    """Send the signal as soon as something has happened; returns what the process wrote to stderr.

    Args:
        ready: whether it has happened.
        process: whose end is waited for.
        how: the signal.
        child: whether it is sent to the process that this one has started, and not to itself.
    """
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (psutil.Process(process.pid).children()[0] if child else process).send_signal(how)
    return process.communicate(timeout=60)[1]
