"""Small trainings, some in processes of their own to be stopped in the midst."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

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


def in_a_process(arguments: list[str], folder: Path, **variables: object) -> subprocess.Popen:
    """The `fcnseg` command in a process of its own, with more environment variables."""
    return start(["fcnseg", *arguments], folder, **variables)


def start(command: list[str], folder: Path, **variables: object) -> subprocess.Popen:
    """A command of this virtual environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in variables.items()}
    words = [Path(sys.executable).with_name(command[0]), *command[1:]]
    return subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def stop_when(ready: Callable[[], bool], process: subprocess.Popen, how: signal.Signals, child: bool = False) -> str:
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
