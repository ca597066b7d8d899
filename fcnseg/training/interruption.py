"""Stopping when asked to: at the end of a step, with a checkpoint to go on from, and within a bound."""

import os
import signal
import sys
import threading
from subprocess import run
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.errors import InputError
from fcnseg.training.checkpoints import LastCheckpoint
from fcnseg.training.processes import all_reduce_max

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class StopOnSignal(Callback):
    """SIGTERM, by which schedulers end jobs, and SIGINT (Ctrl-C) save after the current step and end the process.

    Its exit code is 128 and the signal's number, 143 or 130, as of a process that the signal ends: a scheduler does not
    take the job for finished. Of several processes one that gets the signal is enough. Where a step, or the validation
    that an epoch ends with, takes longer than `within`, the process ends without: the last checkpoint stays. A second
    signal ends it at once.

    In a SLURM job SIGUSR1 (`#SBATCH --signal=USR1@90`) does the same and lets the job be requeued; its command is to
    have `resume=auto`. Lightning's own handler saves in the midst of a step instead. In a job of submitit its signal,
    SIGUSR2 or `SUBMITIT_PREEMPT_SIGNAL`, does so too: what submitit has it do, which begins the job again and ends this
    process, is done after the checkpoint. A job that has no time for one is begun again all the same.

    Args:
        within: seconds, which schedulers grant between SIGTERM and SIGKILL: 30 by default in SLURM and Kubernetes.

    Raises:
        InputError: for another number of seconds.
    """

    def __init__(self, within: float = 25.0) -> None:
        if not isinstance(within, int | float) or not within > 0:
            raise InputError(f"callbacks.stop_on_signal.within={within!r}: expected seconds above 0")
        self.within = within
        self.received: signal.Signals | None = None
        # Those of before the trainer, which puts its own in their place before training starts.
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self._deadline: threading.Timer | None = None
        self._begun_again = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number in (signal.SIGTERM, signal.SIGINT) or number in requeueing():
                    signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number not in requeueing():
            self._end(number)
        self.received = signal.Signals(number)
        self._deadline = threading.Timer(self.within, self._end, [number])
        self._deadline.daemon = True
        self._deadline.start()
        print(
            f"\n{self.received.name}: stops after this step, at once when it comes again", file=sys.stderr, flush=True
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)), None)
        if not self._asked(trainer) or (keeper is not None and not keeper.at_rest(trainer, batch_idx)):
            return  # at the end of an epoch its checkpoint is still to come
        if keeper is not None:
            keeper.save(trainer)
        self._leave(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._asked(trainer):
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave what comes after training, scores and pictures, to the run that goes on."""
        if self._asked(trainer):
            self._leave(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process got a signal; all of them get to know which."""
        if trainer.world_size > 1:
            number = torch.tensor(int(self.received or 0), device=trainer.strategy.root_device)
            number = all_reduce_max(number)
            self.received = signal.Signals(int(number)) if number else None
        return self.received is not None

    def _leave(self, trainer: Trainer) -> None:
        assert self.received is not None
        raise SystemExit(self._begin_again() or 128 + self.received)

    def _end(self, number: int) -> None:
        """At once, in the midst of a step."""
        code = None
        try:
            code = self._begin_again()
        finally:
            os._exit(code or 128 + number)

    def _begin_again(self) -> int | None:
        """Let the scheduler begin the job again, where it has said so; returns an exit code of the scheduler's own."""
        if self.received not in requeueing() or self._begun_again or getattr(rank_zero_only, "rank", 0) > 0:
            return None
        self._begun_again = True  # the scheduler now ends this process too, by SIGTERM
        if self.received != submitits():
            requeue()
        elif callable(handler := self._before[self.received]):
            try:
                handler(self.received, None)
            except SystemExit as end:
                return int(end.code or 0) % 256
        return None


def requeueing() -> set[int]:
    """The signals by which the scheduler of this job says that it ends, and is to be begun again."""
    return {*([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []), *filter(None, [submitits()])}


def submitits() -> int | None:
    """The signal of submitit's, in its jobs."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    return getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", None)


def requeue() -> None:
    """Let SLURM begin this job, or this task of an array of jobs, again."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        done = run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        failed = done.stderr.strip() if done.returncode else None
    except OSError as error:
        failed = str(error)
    print(f"requeued    job {job}" if failed is None else f"job {job} is not requeued: {failed}", flush=True)
