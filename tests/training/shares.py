"""Processes that share a small network, each for a test of checkpoints that every process writes its part of."""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import AdamW, Optimizer

from fcnseg.models import FCN, create_model
from fcnseg.training import checkpoints, sharding
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining
from fcnseg.training.strategies import shard

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.shares"])  # imports torch once for all processes


def together(count: int, function: Callable[..., None], folder: Path, *arguments: object) -> list[int | None]:
    """The exit codes of so many processes that carry out a function of (folder, *arguments) as one group."""
    store = folder / f"store_{len(list(folder.iterdir()))}"
    group = [
        CONTEXT.Process(target=_one, args=(rank, count, store, function, folder, *arguments)) for rank in range(count)
    ]
    for process in group:
        process.start()
    for process in group:
        process.join(300)
    return [process.exitcode for process in group]


def _one(rank: int, count: int, store: Path, function: Callable[..., None], *arguments: object) -> None:
    torch.set_num_threads(1)
    files = torch.distributed.FileStore(str(store), count)
    torch.distributed.init_process_group("gloo", store=files, rank=rank, world_size=count)
    function(*arguments)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def network(seed: int) -> tuple[FCN, AdamW]:
    """A network of a seed, of whose tensors many have rows that three processes share unequally."""
    torch.manual_seed(seed)
    model = create_model("fcn32s_vgg16_bn", num_classes=5, width=0.03)
    weights, others = ([p for p in model.parameters() if (p.dim() > 1) == many] for many in (True, False))
    return model, AdamW([{"params": weights}, {"params": others, "lr": 2e-3}])


def trained(steps: int) -> tuple[FCN, AdamW]:
    """After steps along gradients that are alike in any number of processes."""
    model, optimizer = network(0)
    step(model, optimizer, steps)
    return model, optimizer


def step(model: FCN, optimizer: Optimizer, count: int) -> None:
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.sin(100 * parameter.detach())
        optimizer.step()
    optimizer.zero_grad()


def divided(seed: int) -> tuple[FCN, AdamW]:
    model, _ = network(seed)
    shard(model, init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    weights, others = ([p for p in model.parameters() if (p.dim() > 1) == many] for many in (True, False))
    return model, AdamW([{"params": weights}, {"params": others, "lr": 2e-3}])


def checkpoint(model: FCN, optimizer: Optimizer, number: int = 0) -> dict[str, Any]:
    states = [get_optimizer_state_dict(model, optimizer)]
    return {"state_dict": get_model_state_dict(model), "optimizer_states": states, "global_step": number}


def save(folder: Path, name: str) -> None:
    """Two steps on a network that is divided, and its checkpoint."""
    model, optimizer = divided(0)
    step(model, optimizer, 2)
    sharding.save_sharded(checkpoint(model, optimizer, 2), folder / name, AtomicCheckpointIO())


def save_beside(folder: Path, name: str) -> None:
    """The checkpoint of two steps, while the network is trained on."""
    model, optimizer = divided(0)
    step(model, optimizer, 2)
    files, group = BesideTraining(), torch.distributed.new_group(backend="gloo")
    content = checkpoint(model, optimizer, 2)
    for _ in range(2):
        files.beside(content, lambda copy: sharding.save_sharded(copy, folder / name, files, group))
    step(model, optimizer, 3)
    files.teardown()


def read_and_save(folder: Path, names: Sequence[str], again: str) -> None:
    """What was saved, into other networks, and from there into other checkpoints."""
    for name in names:
        model, optimizer = divided(1)
        load = sharding.load_sharded if (folder / name).is_dir() else sharding.load_whole
        rest = load(folder / name, model, [optimizer], True)
        assert rest["global_step"] == 2
        sharding.save_sharded(checkpoint(model, optimizer, 2), folder / again / name, AtomicCheckpointIO())


def save_with(folder: Path, name: str, broken: str) -> None:
    """Save where the second process cannot write, or has a weight of nan; each notes what it is told."""
    model, optimizer = divided(0)
    step(model, optimizer, 1)
    second = torch.distributed.get_rank() == 1
    if second and broken == "nan":
        next(model.parameters()).data.to_local().fill_(float("nan"))
    if second and broken == "disk":
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        sharding.save_sharded(checkpoint(model, optimizer, 3), folder / name, AtomicCheckpointIO())
    except Exception as error:
        (folder / f"told_{torch.distributed.get_rank()}").write_text(f"{type(error).__name__}: {error}")


def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a checkpoint with their places."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from flat(value, f"{name}/{key}")
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for number, value in enumerate(values):
            yield from flat(value, f"{name}/{number}")
    else:
        yield name, values


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two checkpoints hold the same, bit by bit."""
    ours, theirs = dict(flat(one)), dict(flat(other))
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) if isinstance(value, Tensor) else value == theirs[name]
        for name, value in ours.items()
    )


def killed_at(folder: Path, name: str, module: str, function: str) -> None:
    """Save the number 9, in a process that ends where it would call this function."""
    setattr({"sharding": sharding, "checkpoints": checkpoints}[module], function, lambda *_: os._exit(9))
    save_number(folder / name, 9)


def save_number(path: Path, number: int) -> None:
    content = {"state_dict": {"weight": torch.full((4, 3), float(number))}, "global_step": number}
    with warnings.catch_warnings(action="ignore"):  # torch's, that there is one process
        sharding.save_sharded(content, path, AtomicCheckpointIO())
