"""What a training needs of disk and memory, looked at before its first step; and one line where it runs out of them."""

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.optim import Optimizer

from fcnseg.data import SegmentationData
from fcnseg.data.dataset import is_labelled, read_mask
from fcnseg.data.statistics import spread
from fcnseg.errors import InputError, causes, mistake, vanished
from fcnseg.memory import IN_TRAINING, available_memory, full_memory
from fcnseg.models.sharded import files_of
from fcnseg.training import SegmentationModule
from fcnseg.training.averaging import WeightAverage
from fcnseg.training.checkpoints import LastCheckpoint

BESIDE = 32 * 2**20
"""Bytes that a run writes beside its checkpoints: settings, curves, scores, pictures."""

LABELS = 4
"""Label files of each domain that are read before the first step, evenly over it."""


def check_resources(trainer: Trainer, module: SegmentationModule, data: SegmentationData, folder: Path) -> None:
    """Refuse a training that would certainly end for want of disk or memory, or by labels that are no classes.

    Raises:
        InputError: naming folder, model or label file, with what is needed and what there is.
    """
    check_labels(data)
    state = state_share(module.optimizer) + averages(trainer)
    check_memory(trainer, module, state)
    if trainer.is_global_zero:
        check_space(trainer, checkpoint_bytes(module, state), folder)


def check_labels(data: SegmentationData) -> None:
    """Read some of the labels of each domain, those to train on unless `data.on_error=skip` passes over bad ones."""
    train = {} if data.on_error == "skip" else data.train
    for dataset in (*train.values(), data.val):
        if is_labelled(dataset):
            for index in spread(len(dataset), LABELS):
                read_mask(dataset, index)


def state_share(optimizer: Callable[..., Optimizer]) -> float:
    """Bytes of what an optimiser keeps for each byte of a weight, such as 2 of Adam's; 0 where it does not tell."""
    weight = nn.Parameter(torch.zeros(64))
    weight.grad = torch.zeros_like(weight)
    try:
        made = optimizer([weight])
        made.step()
    except (TypeError, ValueError, RuntimeError):  # one that wants more than gradients
        return 0.0
    kept = [value for value in made.state[weight].values() if isinstance(value, torch.Tensor)]
    return sum(value.nbytes for value in kept if value.shape == weight.shape) / weight.nbytes


def averages(trainer: Trainer) -> int:
    """How many averages of the weights a training keeps beside them."""
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    return sum(isinstance(each, WeightAverage) and each.decay is not None for each in callbacks)


def checkpoint_bytes(module: nn.Module, state: float) -> int:
    """Of a checkpoint with weights and the optimiser's state, which averages count to."""
    return sum(value.nbytes for value in module.state_dict().values()) + int(state * _trained_bytes(module))


def check_space(trainer: Trainer, size: int, folder: Path) -> None:
    """
    Args:
        size: of a checkpoint, in bytes.

    Raises:
        InputError: when the folder has no room for as many as are kept, and one more while it replaces another.
    """
    homes = [
        (Path(keeper.dirpath or folder).absolute(), max(1, keeper.save_top_k) + isinstance(keeper, LastCheckpoint))
        for keeper in trainer.checkpoint_callbacks
        if isinstance(keeper, ModelCheckpoint) and keeper.save_top_k != 0
    ]
    kept = [(home, number) for home, number in homes if home.is_relative_to(folder.absolute())]
    number = sum(number for _, number in kept)
    if not number or "://" in str(folder):
        return
    written = (path for home in {home for home, _ in kept} for path in home.glob("*.ckpt"))
    there = sum(file.stat().st_size for path in written for file in files_of(path))
    needed = max(0, number * size - there) + size + BESIDE
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(nearest).free) < needed:
        raise InputError(
            f"{folder}: has {_shown(free)} free, the run will write {_shown(needed)} ({free} and {needed} bytes): "
            f"{number} checkpoints of {_shown(size)}, and one more while it replaces another; "
            "expected more space, or hydra.run.dir= on another disk"
        )


def check_memory(trainer: Trainer, module: nn.Module, state: float) -> None:
    """
    Args:
        state: see `state_share`.

    Raises:
        InputError: when weights, gradients and the optimiser's state alone do not fit into memory.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return  # others spread the weights over devices
    device, trained = trainer.strategy.root_device, _trained_bytes(module)
    needed = int((1 + state) * trained)
    if device.type == "cuda":
        needed += sum(parameter.nbytes for parameter in module.parameters())
    else:
        needed *= trainer.num_devices  # processes on this host
    if needed <= _free(device):
        return
    gc.collect()  # perhaps an earlier run of a sweep
    if needed > (free := _free(device)):
        raise InputError(
            f"model: {_shown(trained)} of weights to train; gradients and the optimiser's state need {_shown(needed)} "
            f"{'with them ' * (device.type == 'cuda')}of memory, {_shown(free)} are free on {device}; "
            "a smaller model.width or model.fc_channels needs less, and so does optimizer=sgd"
        )


@contextmanager
def in_one_line(folder: Path) -> Iterator[None]:
    """Say in one line that memory is full, or that a folder or a file system is gone, wherever training meets it.

    Args:
        folder: of the run, named where the system names no file.

    Raises:
        InputError: with that line.
    """
    try:
        yield
    except Exception as error:
        if mistake(error) is None:
            for cause in causes(error):
                if isinstance(cause, OSError) and (line := vanished(cause, folder)):
                    raise InputError(line) from error
                if whose := full_memory(cause):
                    raise InputError(f"{whose} is full; {IN_TRAINING}") from error
        raise


def _trained_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)


def _free(device: torch.device) -> float:
    """Bytes that a process can take on a device, what torch keeps for it there among them; infinite if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return available_memory() if device.type == "cpu" else float("inf")


def _shown(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
