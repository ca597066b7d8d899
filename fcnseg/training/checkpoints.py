"""Writing checkpoints so that a full disk or a killed job cannot damage one."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning_fabric.utilities.types import _PATH
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fcnseg.atomic import exchange, remove, replacing, write_through
from fcnseg.errors import InputError
from fcnseg.models.sharded import is_sharded, pieces_of, read_checkpoint, read_head

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The checkpoint to go on from, and the one that was it before."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its target, reads its table of contents back, and then renames it.

    The last but one stays as previous.ckpt.

    Lightning's own writer collects the file in the system's temporary folder and moves it; where that is
    another disk the move is a copy, and a full disk leaves half a checkpoint under the final name.
    """

    def __init__(self) -> None:
        super().__init__()
        self._homes: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store, which has transactions of its own
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        require_finite(checkpoint, path)
        path = Path(path)
        self.require_home(path)
        with replacing(path, durable=True) as temporary:
            write(checkpoint, temporary)
            require_whole(temporary, path)
            if path.name == LAST:
                keep(path, path.with_name(PREVIOUS))
        self._homes.add(path.absolute().parent)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        if "://" not in str(path) and is_sharded(path):
            content: dict[str, Any] = read_checkpoint(path)
            return content
        return super().load_checkpoint(path, map_location, weights_only)

    def require_home(self, path: Path) -> None:
        """Refuse to make the folder again that checkpoints were written to: it would lie on whatever disk is there now.

        Raises:
            InputError: naming the checkpoint.
        """
        home = path.absolute().parent
        if home in self._homes and not home.is_dir():
            raise InputError(f"{path}: not written, since the folder is gone that checkpoints were written to")

    def put(self, folder: Path, path: Path) -> None:
        """Put a folder that was written beside its target in the target's place, and keep the last but one."""
        require_whole(folder, path)
        if path.exists():
            old = exchange(folder, path)
            if path.name == LAST and is_whole(old):
                previous = path.with_name(PREVIOUS)
                remove(previous)
                old.rename(previous)
            else:
                remove(old)
        else:
            folder.rename(path)
        if os.name == "posix":
            write_through(path.parent)
        self._homes.add(path.absolute().parent)


class BesideTraining(AtomicCheckpointIO):
    """Writes a checkpoint in a thread, while training goes on with the next steps.

    A copy of it is in the host's memory meanwhile. One is written at a time: the next one waits. What goes wrong is
    raised by the next one, or at the end of the training, which waits for the last one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        require_finite(checkpoint, path)
        save = super().save_checkpoint
        self.beside(checkpoint, lambda snapshot: save(snapshot, path, storage_options))

    def beside(self, checkpoint: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
        """Write a copy of a checkpoint in the thread, when what it writes already is written."""
        self._wait()
        snapshot = apply_to_collection(checkpoint, torch.Tensor, lambda values: values.detach().to("cpu", copy=True))
        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._writing = self._thread.submit(write, snapshot)

    def teardown(self) -> None:
        try:
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint piece by piece, so that it is not in memory a second time.

    Raises:
        OSError: when the disk is full, for instance; torch's own error says nothing of it.
    """
    with path.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def require_whole(written: Path, path: Path) -> None:
    """
    Raises:
        InputError: naming `path`, when what was written for it does not read back.
    """
    if not is_whole(written):
        raise InputError(f"{path}: what was written does not read back; the disk may be failing")


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's table of contents is there and fits the file, or files; its values are not read."""
    if path.is_dir():
        try:
            pieces_of(path, read_head(path))
        except InputError:
            return False
        return True
    try:
        with ZipFile(path) as file:
            return any(name.endswith("/data.pkl") for name in file.namelist())
    except (OSError, BadZipFile):
        return False


def keep(path: Path, previous: Path) -> None:
    """Let a whole checkpoint have a second name, where the file system has hard links; a folder is renamed."""
    if path.is_dir() and is_whole(path):
        remove(previous)
        path.rename(previous)
    elif path.is_file() and is_whole(path):
        with suppress(OSError), replacing(previous) as temporary:
            os.link(path, temporary)


def require_finite(checkpoint: dict[str, Any], path: _PATH) -> None:
    """Refuse to write weights of nan or infinity over good ones.

    Raises:
        InputError: naming the weights.
    """
    for name, value in checkpoint.get("state_dict", {}).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: not written, since {name} is not finite; a lower optimizer.lr may help")


class LastCheckpoint(ModelCheckpoint):
    """A checkpoint to go on from: at the end of every epoch and, with `every_n_train_steps`, within it.

    Lightning's own does one or the other. Within an epoch it is written after a step of the optimiser alone, since
    gradients that accumulate are in no checkpoint. The last batch is left to the end of the epoch: between the two
    the epoch's validation is outstanding, and a resumed run would leave it out.

    Args:
        every_n_train_steps: steps of the optimiser; None: at the end of epochs only.
        options: those of `ModelCheckpoint`.

    Raises:
        InputError: when the number of steps is not one.
    """

    def __init__(self, *, every_n_train_steps: int | None = None, **options: Any) -> None:
        steps = every_n_train_steps
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise InputError(
                f"callbacks.last.every_n_train_steps={steps!r}: expected a whole number from 1 on, or null"
            )
        super().__init__(**options, every_n_epochs=1, save_on_train_epoch_end=True)
        self.steps = steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.steps and trainer.global_step % self.steps == 0 and self.at_rest(trainer, batch_idx):
            self.save(trainer)

    def at_rest(self, trainer: Trainer, batch_idx: int) -> bool:
        """Whether after this batch a checkpoint holds all that there is to go on with, and none is written anyway."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        return stepped and not trainer.is_last_batch

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint now."""
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
