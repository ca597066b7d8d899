"""The time until the processes of a training are connected, in which they would wait for one that is gone."""

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from pytorch_lightning import Trainer

from fcnseg.errors import InputError
from fcnseg.runs.heartbeat import children_of, ended, is_launched
from fcnseg.runs.meeting import AGAIN, GONE, Meeting
from fcnseg.runs.signs import INTERVAL

PARENT = "FCNSEG_PARENT"
"""Environment variable by which a process tells those that Lightning starts for it who it is."""


class Connecting:
    """Ends this process where another one is gone before all are connected; then the heartbeat begins.

    Until then most of them wait within torch, from where no exception reaches them.

    Args:
        trainer: of the training.
        meeting: where this process meets those that someone else has started beside it.
        complaint: where those that Lightning has started leave what is wrong with the user's input.
    """

    def __init__(self, trainer: Trainer, meeting: Meeting | None, complaint: Path) -> None:
        self.trainer, self.meeting, self.complaint = trainer, meeting, complaint
        self.parent = int(os.environ.get(PARENT, os.getppid())) if is_launched(trainer) else None
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="connecting").start()

    def stop(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL / 2):
            if self.parent not in (None, os.getppid()):
                os._exit(1)  # nobody is left to tell
            told = self._told()
            if (line := told or self._child() or (self.meeting and self.meeting.loss())) and not self._over.is_set():
                self._end(line, code=2 if told else 1)

    def _told(self) -> str | None:
        """What is wrong elsewhere, where it was told."""
        told = self._left() or (self.meeting and self.meeting.complaint())
        return None if told == GONE else told or None

    def _left(self) -> str:
        with suppress(OSError):  # where the training has just ended
            return self.complaint.read_text()
        return ""

    def _child(self) -> str | None:
        """The end of a process that this one has started."""
        first = self.trainer.node_rank * self.trainer.num_devices
        for number, child in enumerate(children_of(self.trainer), start=1):
            if child.poll():
                how = f"rank {first + number} on {socket.gethostname()} {ended(child.returncode)}"
                return self._left() or f"{how} before the training; {AGAIN}"
        return None

    def _end(self, line: str, code: int) -> None:
        if self.meeting is not None:
            self.meeting.complain(InputError(line))
        if self.trainer.local_rank == 0:
            print(f"\nfcnseg: {line}", file=sys.stderr, flush=True)
        for child in children_of(self.trainer):
            child.kill()
        if self.meeting is not None:
            time.sleep(3 * INTERVAL)  # the first one has the store in which the others look
        self.complaint.unlink(missing_ok=True)
        os._exit(code)
