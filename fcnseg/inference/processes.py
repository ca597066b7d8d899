"""One process for each of several devices: what they find comes in the order in which one process would find it."""

import multiprocessing
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch

from fcnseg.cores import available_cores, share_cores
from fcnseg.errors import InputError, mistake
from fcnseg.workers import begin_worker

Portion = TypeVar("Portion")
Tell = Callable[[int | None, Any], None]
"""Takes what was found of the portion of this number, or with None something that is to be heard at once."""

Task = Callable[[str, list[tuple[int, Portion]], Tell], None]
"""What a process does with its device and portions, which come with their numbers."""

GRACE = 5.0
"""Seconds in which a process that is asked to end may take away what it has half written."""


def on_devices(
    devices: Sequence[str],
    task: Task,
    portions: Sequence[Portion],
    heard: Callable[[Any], object] = lambda told: None,
) -> Generator[Any, None, None]:
    """Share work out to one process for each device, and yield what they find of it, by its numbers from 0 on.

    Process k of n has the portions k, k + n, ... All of them end with this one, and when one fails or the iterator is
    closed.

    Args:
        devices: such as ["cuda:0", "cuda:1"]; processes on a processor share its cores.
        task: carried out in every process, which is started anew: a function of a module, or a partial of one. What it
            finds has consecutive numbers, that of a portion for one, and is told once for each.
        portions: what is shared out.
        heard: is given what a process tells without a number, as soon as it comes.

    Raises:
        Exception: what a process has raised.
        InputError: when one was killed.
    """
    numbered = list(enumerate(portions))
    workers = [_Worker(device, k, task, numbered[k :: len(devices)], len(devices)) for k, device in enumerate(devices)]
    waiting: dict[int, Any] = {}
    number = 0
    try:
        for worker in workers:
            worker.start()
        for told, found in _told(workers):
            if told is None:
                heard(found)
                continue
            waiting[told] = found
            while number in waiting:
                yield waiting.pop(number)
                number += 1
    finally:
        _end(workers)


class _Worker:
    """A process and the end of the pipe through which it tells."""

    def __init__(self, device: str, number: int, task: Task, share: list, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.device = device
        self.ours, self._theirs = context.Pipe(duplex=False)
        arguments = (device, task, share, count, self._theirs)
        self.process: SpawnProcess = context.Process(target=_work, args=arguments, name=f"fcnseg-{number}")

    def start(self) -> None:
        self.process.start()
        self._theirs.close()

    @property
    def was_killed(self) -> bool:
        return self.process.exitcode is not None and not self.ours.poll()

    def killed(self) -> InputError:
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return InputError(
            f"process {self.process.pid}, which computed on {self.device}, {how}, perhaps for want of memory; "
            "fewer devices may help"
        )


@dataclass(frozen=True)
class _Failed:
    error: BaseException


_DONE = "done"


def _told(workers: Sequence[_Worker]) -> Iterator[tuple[int | None, Any]]:
    """What processes tell, as it comes, until all are done."""
    at_work = list(workers)
    while at_work:
        ready = wait([worker.ours for worker in at_work], timeout=1)
        for worker in list(at_work):
            if worker.was_killed:  # its own children may hold the pipe open for a while
                raise worker.killed()
            if worker.ours not in ready:
                continue
            try:
                message = pickle.loads(worker.ours.recv_bytes())
            except EOFError:
                worker.process.join(GRACE)
                raise worker.killed() from None
            if isinstance(message, _Failed):
                raise message.error
            if message == _DONE:
                at_work.remove(worker)
            else:
                yield message


def _end(workers: Sequence[_Worker]) -> None:
    """Ask the processes to end, and kill those that do not."""
    started = [worker.process for worker in workers if worker.process.pid is not None]
    for process in started:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


# In the processes


def _work(device: str, task: Task, share: list, count: int, pipe: Connection) -> None:
    begin_worker(interruptible=False)  # the first process is interrupted, and ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    share_cores(count)
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # where memory is pinned for, and kernels without a device of their own run

    alone = threading.Lock()

    def send(message: Any) -> None:
        # By value: torch's own way of sending tensors to processes takes shared memory, of which there may be little.
        with alone:
            pipe.send_bytes(pickle.dumps(message))

    try:
        task(device, share, lambda number, found: send((number, found)))
        send(_DONE)
    except Exception as error:
        send(_Failed(_sendable(error)))


def _sendable(error: Exception) -> Exception:
    """The user's mistake, or the error with the traceback that it has here; in words where it cannot be sent."""
    if (line := mistake(error)) is not None:
        return InputError(line)
    told = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a library's exception raises when it is made anew
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(told)
    return error
