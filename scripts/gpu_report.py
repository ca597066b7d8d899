"""Report what only a GPU can tell, in one command of less than nine minutes on an H100: report.json and report.md.

Every part is a process of its own, which neither an error nor a hanging one takes along, and both files are written
anew with every row. Exit code 1: a part failed, or found what it should not have. `--device cpu --dry-run` tries all
of it without a GPU, over tiny networks.
"""

import argparse
import datetime
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from gpu_settings import FULL, TINY, Row, Settings, last_line
from gpu_writing import Result, write

EXAMPLE = "example: python scripts/gpu_report.py --output gpu"
ORACLE = Path(__file__).parents[1] / "tests" / "models" / "oracle"
LIMIT, GRACE = 180, 30
"""Seconds after which a part that is still at work is ended: from its begin, and from the end of the budget."""

PARTS = {
    "scores": ("gpu_correctness", "Reference networks' scores against OpenCV's, at three sizes."),
    "masks": ("gpu_correctness", "Pixels of the shipped model's masks with the class that a processor gives them."),
    "devices": ("gpu_correctness", "The files that fcnseg predict writes with all devices against those of one."),
    "training": ("gpu_training", "The demo's network on the embedded scenes; float32 with TF32 where the GPU has it."),
    "resuming": ("gpu_training", "A training resumed from its middle against one that was not interrupted."),
    "processes": ("gpu_training", "The weights of two processes against those of one, without TF32."),
    "lost": (
        "gpu_training",
        "A process whose only other one is killed: seconds to its end, with a line that names it.",
    ),
    "ceiling": ("gpu_speed", "Products of square matrices, medians."),
    "throughput": ("gpu_speed", "FCN-8s VGG-16, 21 classes, channels-last; share: of the product's rate."),
    "peers": ("gpu_speed", "The networks of scripts/benchmark_peers.py in bf16, each in its better layout."),
    "compiled": ("gpu_speed", "FCN-8s VGG-16 by torch.compile."),
    "loading": ("gpu_training", "FCN-8s VGG-16 on the embedded scenes in memory, after the first epoch."),
}
"""By name, the file whose function of that name carries it out, and what its numbers are."""

SLOW_TO_IMPORT = [  # for a dry run, in which importing them for every part would take most of the time
    "fcnseg.runs.execution",
    "torchvision.models.segmentation",
    "albumentations",
]


def machine(device: str) -> Row:
    """What the numbers were measured on."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU; expected one, or --device cpu --dry-run to try the script")
    facts: Row = {"date": datetime.date.today().isoformat(), "device": platform.processor() or platform.machine()}
    if device == "cuda":
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
        facts |= {"device": f"{torch.cuda.device_count()} x {name}", "GB": round(memory / 1e9, 1)}
    facts |= {"torch": torch.__version__, "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    return facts | {"Python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}


def carry_out(name: str, settings: Settings, connection: Connection) -> None:
    """A part, in the process that was started for it: sends its rows, and at its end None, or what went wrong."""
    os.setsid()  # so that whatever it starts can be ended with it
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print does not mix with the report's own lines
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic=true; before cuBLAS is loaded
    try:
        if name == "machine":
            connection.send(machine(settings.device))
        else:
            for row in getattr(import_module(PARTS[name][0]), name)(settings):
                connection.send(row)
        connection.send(None)
    except Exception as error:
        traceback.print_exc()
        connection.send(last_line(error))


class Runner:
    """Starts a process for every part: anew, or without a GPU from one that has imported what is slow to import."""

    def __init__(self, device: str) -> None:
        self.context = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
        self.context.set_forkserver_preload(SLOW_TO_IMPORT)

    def __call__(self, name: str, settings: Settings, seconds: float, keep: Callable[[Row], None]) -> str | None:
        """Carry out a part, handing its rows to `keep` as they come; returns what went wrong."""
        deadline = time.monotonic() + seconds
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=carry_out, args=(name, settings, theirs))
        process.start()
        theirs.close()
        try:
            while ours.poll(max(0.0, deadline - time.monotonic())):
                if (told := ours.recv()) is None or isinstance(told, str):
                    return told
                keep(told)
            return f"ended after {seconds:.0f} s, in which it was not done"
        except EOFError:
            process.join()
            return f"its process ended with exit code {process.exitcode}"
        finally:
            end(process)


def end(process: multiprocessing.process.BaseProcess) -> None:
    """Wait a moment for a process that is done, and end what is left of it and of those that it started."""
    process.join(timeout=5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # where it had not come to its own group yet
    process.join()


def report(arguments: argparse.Namespace) -> int:
    """Carry out the parts that were asked for; returns the exit code."""
    began, run = time.monotonic(), Runner(arguments.device)
    settings = Settings(arguments.device, TINY if arguments.dry_run else FULL, arguments.oracle.absolute())
    facts: Row = {}
    if (error := run("machine", settings, LIMIT, facts.update)) is not None:
        print(f"gpu_report: {error}", file=sys.stderr)
        return 2
    facts |= {"dry run": arguments.dry_run}
    results = {name: Result(PARTS[name][1], skipped="not reached") for name in PARTS if name in arguments.parts}
    for name, result in results.items():
        spent = time.monotonic() - began
        if spent >= arguments.budget:
            result.skipped = f"{spent:.0f} s were spent, of a budget of {arguments.budget:.0f} s"
        else:
            told = replace(settings, ceilings=ceilings(results))
            seconds = min(LIMIT, arguments.budget + GRACE - spent)
            carry_part(result, partial(run, name, told, seconds), partial(write, arguments.output, facts, results))
        write(arguments.output, facts, results)
        state = "skipped" if result.skipped else "FAILED" if result.complaints else "done"
        print(f"{name:11} {state:8}{(result.complaints or [result.skipped or ''])[0]}".rstrip(), flush=True)
    print(arguments.output / "report.md")
    return int(any(result.complaints for result in results.values()))


def carry_part(
    result: Result, run: Callable[[Callable[[Row], None]], str | None], write_all: Callable[[], None]
) -> None:
    """Fill a part's result, and write the files with every row of it."""

    def keep(row: Row) -> None:
        result.rows.append(row)
        write_all()

    began = time.monotonic()
    result.skipped, result.error = None, "not done yet"  # which the files say of a report that is killed
    result.error = run(keep)
    result.seconds = time.monotonic() - began


def ceilings(results: dict[str, Result]) -> dict[str, float]:
    """TFLOP/s of matrix products by precision, as far as they have been measured."""
    rows = results["ceiling"].rows if "ceiling" in results else []
    return {row["precision"]: row["tflops"] for row in rows if "tflops" in row}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for report.json and report.md")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--budget", type=float, default=500, help="seconds, after which no part begins (default: 500)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, whose times mean nothing")
    parser.add_argument("--oracle", type=Path, default=ORACLE, metavar="FOLDER", help="of OpenCV's scores")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and not arguments.dry_run:
        parser.error("--device cpu: takes hours; expected --dry-run beside it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the part at work would go on
    sys.exit(report(arguments))


if __name__ == "__main__":
    main()
