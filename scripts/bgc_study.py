"""BGC or fine-tuning: which, when, by how much? Trains every regime at every share of the real images with every seed.

    python scripts/bgc_study.py --root PATH/TO/camvid
    python scripts/bgc_study.py --root PATH/TO/camvid --shares 1 0.25 --seeds 0 1 --regimes real finetune bgc
    python scripts/bgc_study.py --root PATH/TO/camvid -- model.width=0.25 data.size=[180,240]

A share is a run of neighbouring frames of the video, another one for each seed; the same for all regimes, so that they
are compared seed by seed. The synthetic scenes are the same in all runs. The regime `synthetic` sees no real image, and
is trained once per seed, as share 0.

The same command goes on where a study was stopped. The report (scripts/bgc_report.py) is written anew after each cell
of the study, that is, all regimes at one share with one seed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bgc_runs import FOCUS, Run
from studies import circumstances, duration, gpus, interrupt, last_line, resources, stop

from fcnseg.commands.configuration import config_folder
from fcnseg.cores import available_cores
from fcnseg.evaluation.report import write_json

REGIMES = ("real", "synthetic", "mixed", "finetune", "bgc", "bgc_then_real")
POLL = 0.5  # seconds


@dataclass(frozen=True)
class Cell:
    """Runs of one share and seed, trained one after the other by one process."""

    share: float
    seed: int
    start: float
    regimes: tuple[str, ...]

    def runs(self, output: Path) -> list[Run]:
        return [Run.planned(output, self.share, self.seed, regime) for regime in self.regimes]

    def folder(self, output: Path) -> Path:
        return self.runs(output)[0].folder.parent

    def command(self, options: argparse.Namespace) -> list[str]:
        """The Hydra sweep over the regimes, with a fixed folder for each, in which `resume=auto` finds its way."""
        part = f"{{camvid: {{share: {self.share:g}, start: {self.start}}}}}"
        return [
            *(sys.executable, "-m", "fcnseg", "train", "-m", "experiment=bgc_study"),
            f"regime={','.join(self.regimes)}",
            f"seed={self.seed}",
            "data.train.synthetic.seed=0",  # the same scenes for all
            f"data.root={options.root.resolve()}",
            *([f"data.parts={part}"] if 0 < self.share < 1 else []),
            *([f"trainer.max_steps={options.steps}"] if options.steps else []),
            "resume=auto",
            "callbacks.progress=null",  # a log file is no terminal
            f"hydra.sweep.dir={self.folder(options.output).resolve()}",
            "hydra.sweep.subdir=${hydra:runtime.choices.regime}",
            *options.overrides,
        ]


def main() -> int:
    options = parse()
    cells = plan(options.shares, options.seeds, options.regimes)
    if options.report_only:
        return report(options.output)
    signal.signal(signal.SIGTERM, interrupt)
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "study.json", facts(options))
    try:
        failed = Study(cells, options).train()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 130
    code = report(options.output)
    for log in failed:
        print(f"failed: {log}: {last_line(log)}", file=sys.stderr)
    return 1 if failed else code


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in (config_folder() / "regime").glob("*.yaml"))
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder, with train, trainannot, val, ...")
    parser.add_argument("--output", type=Path, default=Path("runs/bgc_study"), help="(%(default)s)")
    parser.add_argument("--regimes", nargs="+", default=REGIMES, choices=known, metavar="REGIME", help=", ".join(known))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), metavar="SEED", help="(0 1 2)")
    parser.add_argument(
        "--shares", nargs="+", type=share, default=(1, 0.5, 0.25, 0.125), metavar="SHARE",
        help="of CamVid's training images, above 0 and at most 1 (1 0.5 0.25 0.125)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="of the optimiser in each run (those of experiment=bgc_study)")
    parser.add_argument(
        "--processes", type=int, default=len(gpus()) or available_cores(), help="at a time (%(default)s)"
    )
    parser.add_argument("--report-only", action="store_true", help="report on what is there; train nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further settings of fcnseg train, after --")
    options = parser.parse_intermixed_args()
    for name in ("steps", "processes"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} {value}: expected at least 1")
    for name in ("regimes", "seeds", "shares"):
        if len(set(values := getattr(options, name))) < len(values):
            parser.error(f"--{name}: the same value twice")
    if not options.root.is_dir():
        parser.error(f"--root {options.root}: no such folder")
    for text in (text for text in options.overrides if "=" not in text):
        parser.error(f"{text}: expected a setting of fcnseg train, KEY=VALUE")
    return options


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected above 0 and at most 1")
    return value


def plan(shares: list[float], seeds: list[int], regimes: list[str]) -> list[Cell]:
    """The cells in an order in which early results tell the most."""
    starts = {seed: round(i / len(seeds), 4) for i, seed in enumerate(seeds)}
    with_real = tuple(regime for regime in regimes if regime != "synthetic")
    first, *rest = ordered(shares)
    groups = [(first, with_real), (0, ("synthetic",) if "synthetic" in regimes else ())]
    groups += [(share, with_real) for share in rest]
    return [Cell(share, seed, starts[seed], names) for share, names in groups if names for seed in seeds]


def ordered(shares: list[float]) -> list[float]:
    """0.25 first, then the largest, the smallest, the next to largest, ..."""
    first = [share for share in shares if share == FOCUS]
    rest = sorted((share for share in shares if share != FOCUS), reverse=True)
    while rest:
        first.append(rest.pop(0))
        rest.reverse()
    return first


class Study:
    """Keeps some processes busy with the cells, and says what they have finished."""

    def __init__(self, cells: list[Cell], options: argparse.Namespace) -> None:
        self.waiting, self.options = list(cells), options
        self.running: dict[int, tuple[Cell, subprocess.Popen]] = {}
        self.runs = [run for cell in cells for run in cell.runs(options.output)]
        self.finished = {run for run in self.runs if run.finished}
        self.there, self.started = len(self.finished), time.monotonic()

    def train(self) -> list[Path]:
        """Train all cells; returns the logs of those that failed."""
        print(
            f"{len(self.runs)} runs, {self.there} of them there already; {self.options.processes} at a time", flush=True
        )
        failed: list[Path] = []
        fresh = False
        try:
            while self.waiting or self.running:
                for slot in range(self.options.processes):
                    if slot not in self.running and self.waiting:
                        self.start(slot, self.waiting.pop(0))
                if fresh:
                    report(self.options.output)
                time.sleep(POLL)
                ended = [slot for slot, (_, process) in self.running.items() if process.poll() is not None]
                self.tell()
                for slot in ended:
                    cell, process = self.running.pop(slot)
                    if process.returncode:
                        failed.append(self.log(cell))
                        print(f"failed: {failed[-1]}: {last_line(failed[-1])}", flush=True)
                fresh = bool(ended and self.finished)
        finally:
            stop([process for _, process in self.running.values()])
        return failed

    def start(self, slot: int, cell: Cell) -> None:
        log = self.log(cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | resources(slot, self.options.processes) | {"PYTHONUNBUFFERED": "1"}
        with log.open("a") as output:  # what a stopped process said stays
            process = subprocess.Popen(
                cell.command(self.options), stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self.running[slot] = (cell, process)

    def tell(self) -> None:
        """One line for each run that has ended since the last call."""
        for run in self.runs:
            if run not in self.finished and run.finished:
                self.finished.add(run)
                left = len(self.runs) - len(self.finished)
                pace = (time.monotonic() - self.started) / (len(self.finished) - self.there)
                score, seconds = run.metrics["mean_iou"], run.metrics["train_seconds"]
                print(
                    f"{len(self.finished):3} of {len(self.runs)}  share {run.share:<5g}  seed {run.seed}  "
                    f"{run.regime:14} mean IoU {100 * score:4.1f} %  trained {duration(seconds)}, "
                    f"about {duration(left * pace)} left",
                    flush=True,
                )

    def log(self, cell: Cell) -> Path:
        return cell.folder(self.options.output) / "log.txt"


def report(output: Path) -> int:
    """In a process of its own: whatever happens to it, training goes on."""
    return subprocess.run([sys.executable, Path(__file__).with_name("bgc_report.py"), output], check=False).returncode


def facts(options: argparse.Namespace) -> dict:
    """What was asked for, by which code, and on what."""
    return {
        "command": ["python", *sys.argv],
        "shares": list(options.shares),
        "seeds": list(options.seeds),
        "regimes": list(options.regimes),
        "processes": options.processes,
        **circumstances(),
    }


if __name__ == "__main__":
    sys.exit(main())
