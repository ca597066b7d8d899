"""Measure what a process of several gets done in a step, relative to a process that trains alone.

One thread for each process, the same images for each: two processes take a batch twice as large. The times are those
of whole steps of Lightning's, from one to the next: forward and backward pass, with synchronised batch normalisation,
the averaging of gradients and the optimiser. Processes alone and together take turns, so that a machine that slows
down does so for both. Beside the steps the averaging alone is timed, over buffers of several sizes: what
`scripts/simulate_scaling.py` computes with. On GPUs `--accelerator gpu`, one for each process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.training import SegmentationModule
from fcnseg.training.strategies import DataParallel

EXAMPLE = "example: python scripts/scaling.py --processes 2 --width 0.25 --size 180 240"
BUFFERS = (1, 2**14, 2**18, 2**22)
"""Floats of the buffers whose averaging is timed."""


class Times(pl.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def work(arguments: argparse.Namespace, processes: int) -> None:
    """As one of the processes: train, and let the first one print what it has timed."""
    if arguments.accelerator == "cpu":
        torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    size, each = tuple(arguments.size), arguments.batch
    scenes = CityScenes(2 * each * processes, seed=0, look="real", size=size)
    data = SegmentationData(
        {"scenes": scenes}, scenes, size=size, batch_size=each * processes, num_workers=0, cache="ram",
        cache_folder=arguments.folder, steps_per_epoch=arguments.warm_up + arguments.steps, allow_overlap=True,
    )  # fmt: skip
    model = fcnseg.create_model(arguments.model, num_classes=11, width=arguments.width)
    module = SegmentationModule(
        model.to(memory_format=torch.channels_last), optimizer=partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
    )
    times = Times()
    together = DataParallel(gradient_as_bucket_view=True, compress=arguments.compress)
    trainer = pl.Trainer(
        accelerator=arguments.accelerator, devices=processes, strategy=together if processes > 1 else "auto",
        max_epochs=1, limit_val_batches=0, num_sanity_val_steps=0, callbacks=[times], use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    ends = times.ends[arguments.warm_up - 1 :]
    found = {
        "step": statistics.median(after - before for before, after in pairwise(ends)),
        "bytes": 4 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "averaging": averaging(trainer.strategy.root_device) if processes > 1 else {},
    }
    if trainer.is_global_zero:
        print(json.dumps(found), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


def averaging(device: torch.device) -> dict[int, float]:
    """Seconds that the sum over all processes takes, by bytes: medians of 15."""
    found = {}
    for count in BUFFERS:
        values, seconds = torch.ones(count, device=device), []
        for _ in range(16):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(values)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        found[4 * count] = statistics.median(seconds[1:])
    return found


def measure(arguments: argparse.Namespace, processes: int) -> dict[str, Any]:
    """A training in a process of its own, which starts the others; returns what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--work", str(processes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{processes} processes: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The measurement: medians over the rounds, and of each round the ratio."""
    rounds = [[measure(arguments, count) for count in (1, arguments.processes)] for _ in range(arguments.rounds)]
    alone, together = ([found["step"] for found in column] for column in zip(*rounds, strict=True))
    sizes = rounds[0][1]["averaging"]
    return {
        "model": f"{arguments.model}, width {arguments.width:g}",
        "size": arguments.size,
        "images": arguments.batch,
        "processes": arguments.processes,
        "bytes": rounds[0][1]["bytes"],
        "alone": statistics.median(alone),
        "together": statistics.median(together),
        "ratios": [one / several for one, several in zip(alone, together, strict=True)],
        "averaging": {size: statistics.median(pair[1]["averaging"][size] for pair in rounds) for size in sizes},
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--processes", type=int, default=2, help="that train together (default: 2)")
    made.add_argument("--model", default="fcn8s_vgg16", help="default: fcn8s_vgg16")
    made.add_argument("--width", type=float, default=0.25, help="factor on its channels (default: 0.25)")
    made.add_argument("--size", type=int, nargs=2, default=[180, 240], help="height and width (default: 180 240)")
    made.add_argument("--batch", type=int, default=8, help="images of each process (default: 8)")
    made.add_argument("--steps", type=int, default=10, help="timed of each training (default: 10)")
    made.add_argument("--warm-up", type=int, default=2, help="steps before them (default: 2)")
    made.add_argument("--rounds", type=int, default=3, help="default: 3")
    made.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="default: cpu")
    made.add_argument("--compress", default="none", help="gradients to bfloat16 (default: none)")
    made.add_argument("--folder", type=Path, help="of the decoded images (default: the user's cache)")
    made.add_argument("--output", type=Path, help="a JSON file for what was measured")
    made.add_argument("--work", type=int, help=argparse.SUPPRESS)
    return made


def main() -> None:
    arguments = parser().parse_args()
    if arguments.work:
        work(arguments, arguments.work)
        return
    found = compare(arguments)
    ratios, megabytes = sorted(found["ratios"]), found["bytes"] / 1e6
    print(f"{found['model']}, {found['images']} images of {arguments.size[0]}x{arguments.size[1]} for each process")
    print(f"step alone          {found['alone'] * 1e3:.0f} ms (median of {arguments.rounds} rounds)")
    print(f"step of {found['processes']} together  {found['together'] * 1e3:.0f} ms, {megabytes:.1f} MB averaged")
    share = statistics.median(ratios)
    print(f"each of them does   {share:.3f} of one alone (rounds: {ratios[0]:.3f} to {ratios[-1]:.3f})")
    for size, seconds in found["averaging"].items():
        print(f"averaging alone     {int(size) / 1e6:.6g} MB in {seconds * 1e3:.3g} ms")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
