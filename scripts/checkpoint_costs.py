"""What writing and reading a checkpoint costs: memory and time of two processes, and how long a training stands still.

Of FCN-8s over a whole VGG-16 (134 M parameters) with AdamW's state, 1.6 GB, which two processes share (FSDP2, gloo):
once in one file, which the first process gathers and writes, and once as a folder, into which each writes its share
(`trainer.strategy.sharded_checkpoints`). Memory is the most that a process had resident beyond what it has between
checkpoints. Then, in one process, how long a save keeps the training, written at once and beside it
(`trainer.async_checkpoints`).
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR")

import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh

from fcnseg.models import FCN, create_model
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining
from fcnseg.training.sharding import load_sharded, load_whole, save_sharded
from fcnseg.training.strategies import shard

EXAMPLE = "example: python scripts/checkpoint_costs.py --width 1"
PROCESSES = 2


def resident(name: str) -> float:
    """GB of this process that are resident (VmRSS), or were at most since `forget` (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e9


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measured(job: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the most GB beyond those of before."""
    torch.distributed.barrier()
    forget()
    before, began = resident("VmRSS"), time.perf_counter()
    job()
    torch.distributed.barrier()
    return time.perf_counter() - began, resident("VmHWM") - before


def trained(width: float, divide: bool) -> tuple[FCN, torch.optim.AdamW]:
    """A network and its optimiser after a step, whose state is as large as twice the weights."""
    model = create_model("fcn8s_vgg16", num_classes=21, width=width)
    if divide:
        shard(model, init_device_mesh("cpu", (PROCESSES,)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=False, foreach=False)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def states(model: FCN, optimizer: torch.optim.Optimizer, whole: bool) -> dict[str, Any]:
    """As Lightning's strategy collects them."""
    options = StateDictOptions(full_state_dict=whole, cpu_offload=True)
    found = get_optimizer_state_dict(model, optimizer, options=options)
    return {"state_dict": get_model_state_dict(model, options=options), "optimizer_states": [found]}


def process(rank: int, width: float, folder: Path, whole: bool, results: Any) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / f"store_{whole}"), PROCESSES)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    model, optimizer = trained(width, divide=True)
    path, files = folder / "last.ckpt", AtomicCheckpointIO()

    def save() -> None:
        if not whole:
            save_sharded(states(model, optimizer, whole), path, files)
            return
        content = states(model, optimizer, whole)
        if rank == 0:
            files.save_checkpoint(content, path)

    saving = measured(save)
    load = load_whole if whole else load_sharded
    reading = measured(lambda: load(path, model, [optimizer], True))
    results.put((rank, *saving, *reading))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def divided(width: float, whole: bool, home: Path | None) -> list[tuple[float, ...]]:
    """Of each process: its number, seconds and GB of saving, seconds and GB of reading."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fcnseg.training.strategies"])  # imports torch once for all
    results = context.Queue()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        places = [(rank, width, Path(folder), whole, results) for rank in range(PROCESSES)]
        group = [context.Process(target=process, args=place) for place in places]
        for each in group:
            each.start()
        found = sorted(results.get(timeout=600) for _ in group)
        for each in group:
            each.join()
    return found


def standing_still(width: float, saves: int, beside: bool, home: Path | None) -> float:
    """Seconds that a save keeps one process; what is written beside has time to end before the next one."""
    model, optimizer = trained(width, divide=False)
    content = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    files, times = (BesideTraining() if beside else AtomicCheckpointIO()), []
    with tempfile.TemporaryDirectory(dir=home) as folder:
        for _ in range(saves):
            began = time.perf_counter()
            files.save_checkpoint(content, Path(folder, "last.ckpt"))
            times.append(time.perf_counter() - began)
            files.teardown()
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--width", type=float, default=1, help="of the network; 1: as published")
    parser.add_argument("--saves", type=int, default=3, help="of which the median is told")
    parser.add_argument(
        "--folder", type=Path, help="where 5 GB are written for a while (default: the system's for that)"
    )
    arguments = parser.parse_args()
    print("| checkpoint | process | saving, s | memory, GB | reading, s | memory, GB |\n|---|---|---|---|---|---|")
    for whole in (True, False):
        for rank, *found in divided(arguments.width, whole, arguments.folder):
            numbers = " | ".join(f"{number:.2f}" for number in found)
            print(f"| {'one file' if whole else 'shares'} | {rank} | {numbers} |", flush=True)
    for beside in (False, True):
        seconds = standing_still(arguments.width, arguments.saves, beside, arguments.folder)
        print(f"a training stands still for {seconds:.2f} s, written {'beside it' if beside else 'at once'}")


if __name__ == "__main__":
    main()
