"""Kill trainings with SIGKILL at random moments, go on each time on another number of processes, and compare the ends.

A training of 40 steps is begun on one, two or three processes and killed, all processes or one of them, at a moment
drawn by chance, again and again until it is through; then the next one, until there were as many kills as wanted.
Every step of every part must see the samples that it sees in a training that is left in peace, and the weights must
end where that one's end. Processes are forked from one that has imported everything, so that a kill costs seconds; what
runs in them is `fcnseg train ... resume=auto`.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR")

import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning import Callback, LightningModule, Trainer

import fcnseg.commands.train  # noqa: F401 - what the forked processes run
from fcnseg.commands import cli

EXAMPLE = "example: python scripts/kill_and_resume.py --kills 100"
PATIENCE = 300.0
"""Seconds after which a part is taken to hang."""

TRAINING = (
    "train", "data.size=[32,48]", "data.batch_size=6", "data.num_workers=0", "model=fcn32s_vgg16_bn",
    "model.width=0.05", "optimizer=sgd", "optimizer.lr=0.01", "trainer=ddp_cpu",
    "trainer.precision=64-true", "trainer.max_epochs=4", "data.steps_per_epoch=10",
    "trainer.log_every_n_steps=1", "callbacks.progress=null", "callbacks.last.every_n_train_steps=1",
    "callbacks.heartbeat.within=5", "logger.tensorboard=null", "data.train.real.length=15",
    "data.train.synthetic.length=8", "data.val.length=3", "resume=auto",
    "+callbacks.record={_target_: kill_and_resume.Record, folder: '${folder}/samples'}",
)  # fmt: skip


class Record(Callback):
    """Writes down, before each step, which samples this process has; for one file of each process of each part."""

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / f"{os.environ['PART']}.{os.environ.get('RANK', 0)}"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        samples = [
            hashlib.md5(image.numpy().tobytes() + mask.numpy().tobytes()).hexdigest()
            for image, mask in zip(batch["image"], batch["mask"], strict=True)
        ]
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps([trainer.global_step, samples]) + "\n")


def begin(processes: int, part: int, folder: Path) -> list[int]:
    """Fork the processes of one part of a training; returns their numbers."""
    port = find_free_network_port()
    return [_fork(rank, processes, part, folder, port) for rank in range(processes)]


def _fork(rank: int, processes: int, part: int, folder: Path, port: int) -> int:
    if number := os.fork():
        return number
    code = 1
    try:
        os.environ["PART"] = str(part)
        if processes > 1:  # what torchrun would say
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            told |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in told.items()})
        output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["fcnseg", *TRAINING, f"trainer.devices={processes}", f"hydra.run.dir={folder}"]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(processes: dict[int, int | None]) -> bool:
    """Whether all have ended; takes down their exit codes."""
    for number in [number for number, code in processes.items() if code is None]:
        gone, status = os.waitpid(number, os.WNOHANG)
        if gone:
            processes[number] = os.waitstatus_to_exitcode(status)
    return None not in processes.values()


def run_part(processes: int, part: int, folder: Path, moment: float | None, only_one: bool) -> tuple[bool, bool]:
    """One part of a training; returns whether it was killed, and whether the training is through.

    Args:
        processes: how many train together.
        part: its number in the training.
        folder: the run's.
        moment: seconds after its start at which it is killed; None: it is not.
        only_one: whether one process is killed, and the others are to end by themselves.
    """
    codes: dict[int, int | None] = dict.fromkeys(begin(processes, part, folder))
    began, killed = time.monotonic(), False
    while not ended(codes):
        if moment is not None and not killed and time.monotonic() - began > moment:
            alive = [number for number, code in codes.items() if code is None]
            for number in random.sample(alive, 1) if only_one else alive:
                os.kill(number, signal.SIGKILL)
            killed = True
        lost = any(codes.values())  # by a signal, or with a code that is not 0
        if lost and not begun_by_all(folder, part, processes):  # still preparing: a launcher would end the others
            for number in [number for number, code in codes.items() if code is None]:
                os.kill(number, signal.SIGKILL)
        if time.monotonic() - began > PATIENCE:
            raise RuntimeError(f"part {part} of {folder} hangs")
        time.sleep(0.01)
    through = (folder / "metrics.json").is_file()
    if not killed and any(codes.values()):
        raise RuntimeError(f"part {part} of {folder} failed:\n{folder.with_suffix('.log').read_text()[-3000:]}")
    return killed, through


def begun_by_all(folder: Path, part: int, processes: int) -> bool:
    return len(list((folder / "samples").glob(f"{part}.*"))) == processes


def samples_of(folder: Path) -> dict[int, list[tuple[int, list[str]]]]:
    """For each step the part, and the samples of all its processes, of each time that it was begun by all of them."""
    seen: dict[tuple[int, int], list[list[str]]] = defaultdict(list)
    for file in (folder / "samples").iterdir():
        for line in file.read_text().splitlines():
            with suppress(ValueError):  # the last line of a killed process may be a part of one
                step, samples = json.loads(line)
                seen[int(file.stem), step].append(samples)
    steps: dict[int, list[tuple[int, list[str]]]] = defaultdict(list)
    for (part, step), shares in sorted(seen.items()):
        steps[step].append((part, sorted(chain.from_iterable(shares))))
    return steps


def weights_of(folder: Path, name: str = "last.ckpt") -> torch.Tensor:
    state = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="how many (100)")
    parser.add_argument("--seed", type=int, default=0, help="of numbers of processes and moments (0)")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    torch.set_num_threads(1)
    sys.modules["kill_and_resume"] = sys.modules["__main__"]  # by which Hydra finds `Record`
    with tempfile.TemporaryDirectory() as name:
        survived = compare(Path(name), arguments.kills)
    sys.exit(0 if survived else 1)


def compare(root: Path, wanted: int) -> bool:
    """Kill until there were as many kills as wanted; returns whether all trainings ended as the one left in peace."""
    began = time.monotonic()
    run_part(1, 0, root / "peace", None, False)
    peace, expected = weights_of(root / "peace"), samples_of(root / "peace")
    first = expected[0][0][1]
    latest = time.monotonic() - began  # the moment after which one that is left in peace is through
    print(f"left in peace: {len(expected)} steps of {len(first)} samples, {latest:.0f} s", flush=True)
    kills = trainings = 0
    by_count: dict[int, int] = defaultdict(int)
    sound, farthest = True, 0.0
    while kills < wanted:
        folder, through, part, processes = root / f"{trainings}", False, 0, 0
        while not through:
            processes = random.choice([number for number in (1, 2, 3) if number != processes])
            moment = random.uniform(0, latest) if kills < wanted else None
            killed, through = run_part(processes, part, folder, moment, only_one=random.random() < 0.2)
            kills, part = kills + killed, part + 1
            by_count[processes] += killed
        trainings += 1
        wrong = disagreements(samples_of(folder), expected)
        apart = float((weights_of(folder) - peace).norm() / peace.norm())
        farthest, sound = max(farthest, apart), sound and not wrong and apart < 1e-9
        print(
            f"training {trainings}: {part} parts, {kills} kills so far, weights {apart:.0e} apart", *wrong, flush=True
        )
    counts = ", ".join(f"{by_count[n]} on {n}" for n in sorted(by_count))
    print(
        f"{kills} kills ({counts} processes) in {trainings} trainings, {time.monotonic() - began:.0f} s: "
        f"{'every step saw its samples' if sound else 'NOT the same'}; weights at most {farthest:.0e} apart, "
        "relative to their length, in float64"
    )
    return sound


def disagreements(seen: dict[int, list[tuple[int, list[str]]]], expected: dict[int, Any]) -> list[str]:
    """What of the steps is not as expected; what not all processes had begun is looked at in the next part."""
    wrong = [f"step {step} is missing" for step in expected if step not in seen]
    for step, parts in seen.items():
        right = expected[step][0][1]
        complete = [samples for _, samples in parts if len(samples) == len(right)]
        if not complete or any(samples != right for samples in complete):
            wrong.append(f"step {step} has other samples")
    return wrong


if __name__ == "__main__":
    main()
