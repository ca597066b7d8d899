"""Noticing that a process of a training is gone, for which all others would wait: killed, cut off or without power."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed import DistError
from torch.distributed.distributed_c10d import _get_default_store

from fcnseg.errors import InputError
from fcnseg.runs.folder import last_checkpoint, relative
from fcnseg.runs.signs import INTERVAL, Signs

ROLL_CALL = 5.0
"""Seconds in which a process that is there gives a sign of life, for those whose connection to some other broke."""

GRACE = 10.0
"""Seconds from the loss of a process until one ends that still waits for it; by then most have ended by themselves."""


class Lost(SystemExit):
    """Ends a process since another one is gone, which has been told."""


class Heartbeat(Callback):
    """Ends a training on every machine, with exit code 1, where one of its processes is gone.

    Each process counts in the training's key-value store once a second. The first one looks whether the others go on
    counting, and they whether it does; so it costs 1,024 processes no more than two. What a process is busy with does
    not matter: a long validation is no loss, and neither gloo's nor NCCL's connections are asked.

    The first process of each machine says which one is lost, where, and how to go on. Restarts, such as those of
    `torchrun --max-restarts`, go on by themselves with `resume=auto`.

    Args:
        within: seconds without a sign of life after which a process is lost; one that ends is noticed at once, and one
            whose launcher ends, which has nobody left to end it, ends itself.

    Raises:
        InputError: for another number of seconds.
    """

    def __init__(self, within: float = 120.0) -> None:
        if not isinstance(within, int | float) or not within > 0:
            raise InputError(f"callbacks.heartbeat.within={within!r}: expected seconds above 0")
        self.within = within
        self.interval = min(INTERVAL, within / 5)
        self.children: list[Any] = []
        self.told_by_others: Callable[[], str | None] = lambda: None
        self.connected: Callable[[], None] = lambda: None
        self.lost: str | None = None
        self._over: threading.Event | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin, once the processes are connected."""
        if trainer.world_size == 1 or self._over is not None:
            return
        self.rank, self.count, self.folder = trainer.global_rank, trainer.world_size, Path(trainer.default_root_dir)
        self.speaks = trainer.local_rank == 0
        self.children = children_of(trainer)
        self.store = _get_default_store().clone()
        self.signs = Signs(self.store, self.rank, range(1, self.count) if self.rank == 0 else [0])
        # Asked once, since a store that does not answer any more blocks whoever asks.
        self.first = bytes(self.store.get("host/0")).decode()
        self.launcher = os.getppid() if is_launched(trainer) else None
        self.heard = time.monotonic()
        self._over = threading.Event()
        for loop in (self._beat, self._watch):
            threading.Thread(target=loop, args=[self._over], daemon=True, name="heartbeat").start()
        self.connected()

    def stop(self) -> None:
        """Let go of the others, when the training is over, or has failed here."""
        if self._over is not None:
            self._over.set()
            self._over = None

    def loss(self) -> str | None:
        """After an error: the process whose end it comes from, as one line; None where all seem to be there."""
        if self._over is None:
            return None
        deadline = time.monotonic() + (ROLL_CALL if self.rank == 0 else 2 * ROLL_CALL)  # the first one tells the others
        while self.lost is None and time.monotonic() < deadline:
            if silent := [
                rank for rank, (_, heard) in self.signs.watched.items() if time.monotonic() - heard > ROLL_CALL
            ]:
                self._lose(f"{self._name(silent[0])} is gone")
            time.sleep(0.1)
        return self.lost

    def tell(self) -> None:
        """Say who is lost, in the first process of each machine."""
        if self.speaks:
            path = last_checkpoint(self.folder)
            on = f"; go on with the same settings and resume={relative(path)}" if path.exists() else ""
            told = self.told_by_others() if self.rank == 0 else None  # elsewhere asking may block: the link may be down
            print(f"\nfcnseg: {told or self.lost}{on}", file=sys.stderr, flush=True)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(self.interval):
            try:
                self._look()
            except DistError:
                if self.rank > 0 and not over.is_set():
                    self._lose(f"{self.first} is gone, or the connection to it")
                return

    def _look(self) -> None:
        self.signs.give()
        if (silent := self.signs.silent(self.within)) is not None:
            self._lose(f"{self._name(silent)} has given no sign of life for {self.within:g} seconds")
        for number, child in enumerate(self.children, start=1):
            if child.poll():
                self._lose(f"{self._name(self.rank + number)} {ended(child.returncode)}")
        if self.launcher not in (None, os.getppid()):
            self._lose(f"the launcher of {self._name(self.rank)} is gone")
        if self.rank > 0 and self.store.check(["lost"]):
            self._lose(bytes(self.store.get("lost")).decode())
        self.heard = time.monotonic()

    def _watch(self, over: threading.Event) -> None:
        """End this process if nothing else does; apart from the beats, which wait for a store that does not answer."""
        since = None
        while not over.wait(self.interval):
            if time.monotonic() - self.heard > self.within:
                self._lose(f"{self.first} has not answered for {self.within:g} seconds")
            if self.lost is not None:
                since = since or time.monotonic()
                if time.monotonic() - since > GRACE:
                    self.tell()
                    for child in self.children:
                        child.kill()
                    os._exit(1)

    def _lose(self, line: str) -> None:
        if self.lost is not None:
            return
        self.lost = line
        if self.rank == 0:
            with suppress(DistError):
                self.store.set("lost", line)

    def _name(self, rank: int) -> str:
        return self.first if rank == 0 else self.signs.name(rank)


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, without its watch over the processes that it has started: it kills this one before that tells why.

    Attributes:
        children: these processes.
    """

    children: Sequence[Any] = ()

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        self.children, self.procs = self.procs, []


def children_of(trainer: Trainer) -> list[Any]:
    """The processes that Lightning has started for a training."""
    return list(getattr(trainer.strategy.launcher, "children", ()))


def is_launched(trainer: Trainer) -> bool:
    """Whether this process is to end with the one that has started it, as what torchrun and Lightning start is."""
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(cluster, TorchElasticEnvironment) or (
        isinstance(cluster, LightningEnvironment) and trainer.local_rank > 0
    )


def ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def heartbeat_of(trainer: Trainer) -> Heartbeat | None:
    """The trainer's heartbeat, where its callbacks have one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, Heartbeat)), None)
