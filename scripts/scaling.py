"""Measure what a process of several gets done in a step, relative to a process that trains alone.

One thread for each process, the same images for each: two processes take a batch twice as large. The times are those
of whole steps of Lightning's, from one to the next: forward and backward pass, with synchronised batch normalisation,
the averaging of gradients and the optimiser. One process alone, as many apart at the same time, which know nothing of
one another, and as many together take turns, so that a machine that slows down does so for all. What those apart lose
is the machine's (memory, caches, clock); what those together lose beyond is training's. Beside the steps the
averaging alone is timed, over buffers of several sizes: what `scripts/simulate_scaling.py` computes with. On GPUs
`--accelerator gpu`, one for each process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
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
    """Notes when each step ends, and the processor time until then.

    Args:
        warm_up: steps after which processes apart wait for one another, in `folder`.
        apart: how many they are.
    """

    def __init__(self, warm_up: int, apart: int, folder: Path | None) -> None:
        self.ends: list[tuple[float, float]] = []
        self.warm_up, self.apart, self.folder = warm_up, apart, folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        if len(self.ends) == self.warm_up - 1 and self.folder is not None:
            (self.folder / f"{os.getpid()}").touch()
            while len(list(self.folder.iterdir())) < self.apart:
                time.sleep(0.001)
        self.ends.append((time.perf_counter(), time.process_time()))


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
    times = Times(arguments.warm_up, arguments.processes, arguments.apart)
    together = DataParallel(gradient_as_bucket_view=True, compress=arguments.compress)
    trainer = pl.Trainer(
        accelerator=arguments.accelerator, devices=processes, strategy=together if processes > 1 else "auto",
        max_epochs=1, limit_val_batches=0, num_sanity_val_steps=0, callbacks=[times], use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    ends = times.ends[arguments.warm_up - 1 :]
    steps, busy = zip(*((after - was, used - had) for (was, had), (after, used) in pairwise(ends)), strict=True)
    found = {
        "step": statistics.median(steps),
        "busy": statistics.median(busy),
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


def measure(processes: int, apart: int = 1) -> dict[str, Any]:
    """Trainings in processes of their own, each of which starts its others; returns the mean of what they printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--work", str(processes)]
        command += ["--apart", folder] if apart > 1 else []
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(command, env=environment, **pipes) for _ in range(apart)]
        told = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, told, strict=True):
        if process.returncode:
            raise RuntimeError(f"{processes} processes: {errors[-3000:]}")
    found = [json.loads(printed.strip().splitlines()[-1]) for printed, _ in told]
    return found[0] | {key: statistics.mean(each[key] for each in found) for key in ("step", "busy")}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The measurement: medians over the rounds, and of each round the ratio."""
    count = arguments.processes
    rounds = [(measure(1), measure(1, apart=count), measure(count)) for _ in range(arguments.rounds)]
    alone, apart, together = ([found["step"] for found in column] for column in zip(*rounds, strict=True))
    busy = [statistics.median(found["busy"] for found in column) for column in zip(*rounds, strict=True)]
    sizes = rounds[0][2]["averaging"]
    return {
        "model": f"{arguments.model}, width {arguments.width:g}",
        "size": arguments.size,
        "images": arguments.batch,
        "processes": arguments.processes,
        "bytes": rounds[0][2]["bytes"],
        "alone": statistics.median(alone),
        "apart": statistics.median(apart),
        "together": statistics.median(together),
        "busy": dict(zip(("alone", "apart", "together"), busy, strict=True)),
        "ratios": [one / several for one, several in zip(alone, together, strict=True)],
        "of_apart": [one / several for one, several in zip(apart, together, strict=True)],
        "averaging": {size: statistics.median(each[2]["averaging"][size] for each in rounds) for size in sizes},
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
    made.add_argument("--apart", type=Path, help=argparse.SUPPRESS)
    return made


def main() -> None:
    arguments = parser().parse_args()
    if arguments.work:
        work(arguments, arguments.work)
        return
    found = compare(arguments)
    for name in ("alone", "apart", "together"):
        milliseconds = found[name] * 1e3, found["busy"][name] * 1e3
        print("step {:<8}       {:.0f} ms, {:.0f} of it computing".format(name, *milliseconds))
    for name, ratios in (("alone", sorted(found["ratios"])), ("apart", sorted(found["of_apart"]))):
        share = f"{statistics.median(ratios):.3f} of one {name} (rounds: {ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"each of {found['processes']} does      {share}")
    print(f"averaged            {found['bytes'] / 1e6:.1f} MB")
    for size, seconds in found["averaging"].items():
        print(f"averaging alone     {int(size) / 1e6:.6g} MB in {seconds * 1e3:.3g} ms")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
