"""How do I make it faster without losing accuracy? Trains, measures and draws the rungs of a ladder on CamVid.

    python scripts/speed_ladder.py --root PATH/TO/camvid
    python scripts/speed_ladder.py --root PATH/TO/camvid --dry-run
    python scripts/speed_ladder.py --root PATH/TO/camvid --seeds 0 1 2 --rows reference same stem2 int8
    python scripts/speed_ladder.py --root PATH/TO/camvid --phases report

In three phases. `train`: every network that the rungs take, with every seed, as many steps of as many images
(experiment=speed_ladder). `measure`: each rung's confusion matrices on the validation images, and the time from an
image in memory to its mask, all rungs taking turns. `report`: ladder.json, ladder.md and ladder.png.

The same command goes on where it was stopped. What this machine lacks for a rung stands in its row. With the defaults
and one seed two cores take about three hours, nearly all of it for training; --dry-run has the arithmetic. On a GPU
the whole networks are within reach (not run yet): --width 1 --steps 4000 --device cuda -- model.weights=imagenet

Times want an idle machine: where other programs share the cores, threads wait for each other, and small networks take
many times as long with two threads as with --threads 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from ladder_measure import Measuring
from ladder_report import write_report
from ladder_rows import Rung, Settings, chosen, is_trained, run_folder, trainings
from studies import circumstances, duration, gpus, interrupt, last_line, resources, stop

from fcnseg.errors import InputError
from fcnseg.evaluation.report import write_json
from fcnseg.models import create_model, summarise

PHASES = ("train", "measure", "report")
STEPS = 500
"""Of the optimiser, as in experiment=speed_ladder."""

BATCH = 10
RATE, OVERHEAD = 40.0, 1.0
"""GFLOP/s and further seconds a step (optimiser, normalisation, augmentation) that two cores with AVX2 take to train
such slim networks, for an estimate of the time: a line through steps of five of them, within a third."""

POLL = 0.5  # seconds

Job = tuple[str, int]
"""A training and its seed."""


def main() -> int:
    options = parse()
    try:
        settings = Settings(options.trunk, options.width, tuple(options.size))
        rows = chosen(settings, options.rows)
        jobs = plan(rows, options.seeds)
        if options.dry_run:
            print(estimate(settings, rows, jobs, options))
            return 0
        begin(options, settings, rows)
        signal.signal(signal.SIGTERM, interrupt)
        failed = Trainings(jobs, settings, options).run() if "train" in options.phases else []
        if "measure" in options.phases:
            torch.set_num_threads(options.threads or torch.get_num_threads())
            Measuring(options.output, options.root, options.device, options.rounds).run(rows, options.seeds)
        if "report" in options.phases:
            print(write_report(options.output))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 130
    except InputError as error:
        print(f"speed_ladder: {error}", file=sys.stderr)
        return 2
    for log in failed:
        print(f"failed: {log}: {last_line(log)}", file=sys.stderr)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder, with train, trainannot, val, ...")
    parser.add_argument("--output", type=Path, default=Path("runs/speed_ladder"), help="(%(default)s)")
    parser.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES, help=f"({' '.join(PHASES)})")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="names of rungs, of which --dry-run has a list (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,), metavar="SEED", help="(0)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the optimiser in each training (%(default)s)")
    parser.add_argument("--width", type=float, default=0.25, help="factor on channel counts (%(default)s)")
    parser.add_argument("--trunk", default="vgg16_bn", help="of FCN-8s, such as vgg16 (%(default)s)")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(180, 240), metavar=("HEIGHT", "WIDTH"), help="of images (180 240)"
    )
    parser.add_argument("--device", default="cpu", help="that rungs are measured on, but for the GPU's (%(default)s)")
    parser.add_argument("--threads", type=int, help="of a processor, to measure with (as many as torch takes)")
    parser.add_argument("--rounds", type=int, default=30, help="in which all rungs are timed (%(default)s)")
    parser.add_argument("--processes", type=int, default=max(1, len(gpus())), help="that train at a time (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and about how long it takes")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further settings of fcnseg train, after --")
    options = parser.parse_intermixed_args()
    for name in ("steps", "processes", "rounds", "width", "threads"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} {value}: expected a number above 0")
    if min(options.size) < 2:
        parser.error(f"--size {' '.join(map(str, options.size))}: expected a height and a width in pixels")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds: the same value twice")
    if not options.root.is_dir():
        parser.error(f"--root {options.root}: no such folder")
    for text in (text for text in options.overrides if "=" not in text):
        parser.error(f"{text}: expected a setting of fcnseg train, KEY=VALUE")
    return options


def plan(rows: list[Rung], seeds: list[int]) -> list[Job]:
    """The trainings that the rungs take, of which what is missing here takes none; a whole ladder of one seed first."""
    names = dict.fromkeys(rung.training for rung in rows if rung.training and not rung.missing())
    return [(name, seed) for seed in seeds for name in names]


def begin(options: argparse.Namespace, settings: Settings, rows: list[Rung]) -> None:
    """Write down what is asked for.

    Raises:
        InputError: where the folder holds a ladder of other networks.
    """
    path = options.output / "study.json"
    asked = {**vars(settings), "size": list(settings.size), "steps": options.steps, "overrides": options.overrides}
    if path.is_file() and (before := json.loads(path.read_text())["settings"]) != asked:
        key = next(key for key in asked if asked[key] != before.get(key))
        raise InputError(f"{options.output}: holds a ladder with {key}={before.get(key)}; give another --output")
    options.output.mkdir(parents=True, exist_ok=True)
    # Folders by their names alone: where they lie on this machine is nobody's business.
    command = ["python", *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv)]
    facts = {"command": command, "settings": asked, "seeds": list(options.seeds)}
    write_json(path, facts | {"rows": [rung.name for rung in rows]} | circumstances())


def estimate(settings: Settings, rows: list[Rung], jobs: list[Job], options: argparse.Namespace) -> str:
    """The plan, with the arithmetic of its trainings: three forwards of each image, two operations a multiply-add."""
    lines = ["rungs", *(f"  {rung.name:14} {rung.override}" for rung in rows), "", "trainings"]
    total = 0.0
    for name, seed in jobs:
        words = dict(word.split("=", 1) for word in trainings(settings)[name])
        size = settings.half if name == "half" else settings.size
        units = words.get("model.fc_channels")
        with torch.device("meta"):
            model = create_model(
                words["model"], num_classes=11, width=settings.width, padding=words.get("model.padding", "same"),
                fc_channels=None if units is None else int(units),
            )  # fmt: skip
        multiply_adds = summarise(model, size).multiply_adds
        seconds = options.steps * (6 * multiply_adds * BATCH / (RATE * 1e9) + OVERHEAD)
        total += seconds
        there = ", there already" if is_trained(options.output, name, seed) else ""
        lines.append(
            f"  {name:10} seed {seed}  {multiply_adds / 1e9:6.2f} billion multiply-adds an image, "
            f"about {duration(seconds)}{there}"
        )
    lines.append(f"  {len(jobs)} trainings of {options.steps} steps, about {duration(total)} on two cores")
    return "\n".join(lines)


class Trainings:
    """Keeps some processes busy with the trainings, and says what they have finished."""

    def __init__(self, jobs: list[Job], settings: Settings, options: argparse.Namespace) -> None:
        self.options, self.commands = options, trainings(settings)
        self.waiting = [job for job in jobs if not is_trained(options.output, *job)]
        self.running: dict[int, tuple[Job, subprocess.Popen]] = {}
        print(f"{len(jobs)} trainings, {len(jobs) - len(self.waiting)} of them there already", flush=True)

    def run(self) -> list[Path]:
        """Train all; returns the logs of those that failed."""
        failed = []
        try:
            while self.waiting or self.running:
                for slot in range(self.options.processes):
                    if slot not in self.running and self.waiting:
                        self.start(slot, self.waiting.pop(0))
                time.sleep(POLL)
                for slot in [slot for slot, (_, process) in self.running.items() if process.poll() is not None]:
                    job, process = self.running.pop(slot)
                    print(self.said(job), flush=True)
                    if process.returncode:
                        failed.append(self.log(job))
        finally:
            stop([process for _, process in self.running.values()])
        return failed

    def start(self, slot: int, job: Job) -> None:
        log = self.log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | resources(slot, self.options.processes) | {"PYTHONUNBUFFERED": "1"}
        with log.open("a") as output:  # what a stopped process said stays
            process = subprocess.Popen(self.command(job), stdout=output, stderr=subprocess.STDOUT, env=environment)
        self.running[slot] = (job, process)

    def command(self, job: Job) -> list[str]:
        """With a fixed folder, in which `resume=auto` finds its way."""
        name, seed = job
        return [
            *(sys.executable, "-m", "fcnseg", "train", "experiment=speed_ladder", *self.commands[name]),
            f"seed={seed}",
            f"data.root={self.options.root.resolve()}",
            f"trainer.max_steps={self.options.steps}",
            "resume=auto",
            "callbacks.progress=null",  # a log file is no terminal
            f"hydra.run.dir={run_folder(self.options.output, name, seed).resolve()}",
            *self.options.overrides,
        ]

    def said(self, job: Job) -> str:
        path = run_folder(self.options.output, *job) / "metrics.json"
        if not path.is_file():
            return f"failed: {self.log(job)}: {last_line(self.log(job))}"
        found = json.loads(path.read_text())
        trained = duration(found["train_seconds"])
        return f"{job[0]:10} seed {job[1]}  mean IoU {100 * found['mean_iou']:4.1f} %  trained {trained}"

    def log(self, job: Job) -> Path:
        return run_folder(self.options.output, *job).with_suffix(".log")


if __name__ == "__main__":
    sys.exit(main())
