"""BGC or fine-tuning: which, when, by how much? Trains every regime at every share of the real images with every seed.

    python scripts/bgc_study.py --root PATH/TO/camvid
    python scripts/bgc_study.py --root PATH/TO/camvid --shares 1 0.25 --seeds 0 1 --regimes real finetune bgc bgc+ema
    python scripts/bgc_study.py --root PATH/TO/camvid --tune           # first: tries settings of fine-tuning and BGC
    python scripts/bgc_study.py --root PATH/TO/camvid -- model.width=0.25 data.size=[180,240]

A share is a run of neighbouring frames of the video, another one for each seed; the same for all regimes, so that they
are compared seed by seed. The synthetic scenes are the same in all runs. A regime that sees no real label (synthetic,
fda, dacs, entropy) is trained once per seed, as share 0. Pieces of a recipe come after a plus sign: bgc+ema, real+ohem
(scripts/bgc_arms.py), and finetune+tuned, bgc+tuned are the best of --tune's trials, with a seed of their own.

The same command goes on where a study was stopped, also with further seeds, shares and regimes. The report
(scripts/bgc_report.py) is written anew after each cell of the study, that is, all regimes at one share with one seed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bgc_arms import PIECES, TRIALS, TUNED, regimes, settings
from bgc_runs import FOCUS, Run, without_labels
from studies import circumstances, duration, gpus, interrupt, last_line, resources, stop

from fcnseg.cores import available_cores
from fcnseg.evaluation.report import write_json

REGIMES = ("real", "synthetic", "mixed", "finetune", "bgc", "bgc_then_real")
TUNED_FILE = "tuned.json"
POLL = 0.5  # seconds
GOLDEN = (5**0.5 - 1) / 2
TUNING_SEED = 100
"""Its block of frames is not that of a seed of the study."""


@dataclass(frozen=True)
class Cell:
    """Runs of one share and seed."""

    share: float
    seed: int
    regimes: tuple[str, ...]

    @property
    def start(self) -> float:
        """Where the seed's block of real images begins: far from those of other seeds, however many there will be."""
        return round(self.seed * GOLDEN % 1, 4)

    def runs(self, output: Path) -> list[Run]:
        return [Run.planned(output, self.share, self.seed, regime) for regime in self.regimes]

    def finished(self, output: Path) -> bool:
        return all(run.finished for run in self.runs(output))


def command(run: Run, start: float, options: argparse.Namespace) -> list[str]:
    """The training of a run, in a fixed folder, in which `resume=auto` finds its way."""
    part = f"{{camvid: {{share: {run.share:g}, start: {start}}}}}"
    return [
        *(sys.executable, "-m", "fcnseg", "train", "experiment=bgc_study"),
        *settings(run.regime, best_trials(options.output)),
        f"seed={run.seed}",
        "data.train.synthetic.seed=0",  # the same scenes for all
        f"data.root={options.root.resolve()}",
        *([f"data.parts={part}"] if 0 < run.share < 1 else []),
        *([f"trainer.max_steps={options.steps}"] if options.steps else []),
        "resume=auto",
        "callbacks.progress=null",  # a log file is no terminal
        f"hydra.run.dir={run.folder.resolve()}",
        *options.overrides,
    ]


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if options.report_only:
            return report(options.output)
        if options.tune:
            return tune(options)
        return carry_out(options, plan(options.shares, options.seeds, options.regimes))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 130


def carry_out(options: argparse.Namespace, cells: list[Cell]) -> int:
    """Train what is missing and report on it; the exit code."""
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "study.json", facts(options))
    failed = Study(cells, options).train()
    code = report(options.output)
    for log in failed:
        print(f"failed: {log}: {last_line(log)}", file=sys.stderr)
    return 1 if failed else code


def tune(options: argparse.Namespace) -> int:
    """Train the trials of each regime at one share with a seed of their own, and note the best."""
    trials = argparse.Namespace(**vars(options))
    trials.output, trials.seeds, trials.shares = options.output / "tuning", [TUNING_SEED], [ordered(options.shares)[0]]
    trials.regimes = [name for names in TRIALS.values() for name in names]
    if code := carry_out(trials, plan(trials.shares, trials.seeds, trials.regimes)):
        return code
    scores = {
        name: Run.planned(trials.output, trials.shares[0], TUNING_SEED, name).metrics["mean_iou"]
        for name in trials.regimes
    }
    best = {regime: max(names, key=scores.__getitem__) for regime, names in TRIALS.items()}
    write_json(options.output / TUNED_FILE, {"share": trials.shares[0], "best": best, "mean_iou": scores})
    for regime, name in best.items():
        print(f"{regime}+tuned is {name}, {100 * scores[name]:.1f} %, the best of {len(TRIALS[regime])}")
    return 0


def best_trials(output: Path) -> dict[str, str]:
    """By regime the name of its best trial, where the study has been tuned."""
    path = output / TUNED_FILE
    return json.loads(path.read_text())["best"] if path.is_file() else {}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder, with train, trainannot, val, ...")
    parser.add_argument("--output", type=Path, default=Path("runs/bgc_study"), help="(%(default)s)")
    parser.add_argument(
        "--regimes", nargs="+", default=REGIMES, metavar="REGIME[+PIECE...]",
        help=f"out of {', '.join(regimes())}; pieces: {', '.join(PIECES)}, {TUNED}",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), metavar="SEED", help="(0 1 2)")
    parser.add_argument(
        "--shares", nargs="+", type=share, default=(1, 0.5, 0.25, 0.125), metavar="SHARE",
        help="of CamVid's training images, above 0 and at most 1 (1 0.5 0.25 0.125)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="of the optimiser in each run (those of experiment=bgc_study)")
    parser.add_argument(
        "--processes", type=int, default=len(gpus()) or available_cores(), help="at a time (%(default)s)"
    )
    parser.add_argument(
        "--tune", action="store_true", help="train the trials of fine-tuning and BGC, and note the best"
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
    try:
        for arm in options.regimes:
            settings(arm, best_trials(options.output))
    except ValueError as error:
        parser.error(f"--regimes {error}")
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
    with_real = tuple(regime for regime in regimes if not without_labels(regime))
    without = tuple(regime for regime in regimes if without_labels(regime))
    first, *rest = ordered(shares)
    groups = [(first, with_real), (0, without), *((share, with_real) for share in rest)]
    return [Cell(share, seed, names) for share, names in groups if names for seed in seeds]


def ordered(shares: list[float]) -> list[float]:
    """0.25 first, then the largest, the smallest, the next to largest, ..."""
    first = [share for share in shares if share == FOCUS]
    rest = sorted((share for share in shares if share != FOCUS), reverse=True)
    while rest:
        first.append(rest.pop(0))
        rest.reverse()
    return first


class Study:
    """Keeps some processes busy with the runs, and says what they have finished."""

    def __init__(self, cells: list[Cell], options: argparse.Namespace) -> None:
        self.cells, self.options = cells, options
        self.runs = {run: cell for cell in cells for run in cell.runs(options.output)}
        self.finished = {run for run in self.runs if run.finished}
        self.waiting = [run for run in self.runs if run not in self.finished]
        self.running: dict[int, tuple[Run, subprocess.Popen]] = {}
        self.there, self.started = len(self.finished), time.monotonic()

    def train(self) -> list[Path]:
        """Train all runs; returns the logs of those that failed."""
        print(
            f"{len(self.runs)} runs, {self.there} of them there already; {self.options.processes} at a time", flush=True
        )
        failed: list[Path] = []
        try:
            while self.waiting or self.running:
                for slot in range(self.options.processes):
                    if slot not in self.running and self.waiting:
                        self.start(slot, self.waiting.pop(0))
                time.sleep(POLL)
                for slot in [slot for slot, (_, process) in self.running.items() if process.poll() is not None]:
                    run, process = self.running.pop(slot)
                    if process.returncode:
                        failed.append(log_of(run))
                        print(f"failed: {failed[-1]}: {last_line(failed[-1])}", flush=True)
                    else:
                        self.tell(run)
        finally:
            stop([process for _, process in self.running.values()])
        return failed

    def start(self, slot: int, run: Run) -> None:
        log = log_of(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | resources(slot, self.options.processes) | {"PYTHONUNBUFFERED": "1"}
        with log.open("a") as output:  # what a stopped process said stays
            process = subprocess.Popen(
                command(run, self.runs[run].start, self.options),
                stdout=output, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
        self.running[slot] = (run, process)

    def tell(self, run: Run) -> None:
        """One line for a run that has ended, and a report where it was the last one of its cell."""
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
        if self.waiting and self.runs[run].finished(self.options.output):
            report(self.options.output)


def log_of(run: Run) -> Path:
    return run.folder.parent / f"{run.regime}.log"


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
