"""`fcnseg doctor`: what this machine and installation have, what does not fit, and what to do about it.

Runs without Hydra and, where torch cannot be imported, without torch: that may be what is wrong.
"""

import json
import math
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

import fcnseg
from fcnseg.cores import available_cores, processor_name
from fcnseg.errors import InputError
from fcnseg.memory import available_memory
from fcnseg.user_cache import user_cache

USAGE = """fcnseg doctor: versions, devices, memory, disks and extras of this installation, with what to do.

examples:
  fcnseg doctor
  fcnseg doctor --json

Exit code 1 where something that every training needs is missing or does not fit."""

LEAST_MEMORY, LEAST_DISK, LEAST_SHARED = 4.0, 2.0, 1.0
"""Gigabytes, below which trainings of ordinary sizes end."""

MARKS = {"good": ("ok", "green"), "absent": ("-", "dim"), "doubtful": ("!", "yellow"), "bad": ("x", "bold red")}


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: it is about.
        found: in words.
        state: one of `MARKS`; "absent" is what may well be missing, "bad" what every training needs.
        advice: what to do, where something is to be done.
    """

    what: str
    found: str
    state: str = "good"
    advice: str = ""


def run(arguments: Sequence[str]) -> int:
    """Print the findings; returns the exit code.

    Raises:
        InputError: for an argument other than --json and --help.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    if unknown := [argument for argument in arguments if argument != "--json"]:
        raise InputError(f"doctor {unknown[0]}: no such option; expected --json, or nothing")
    found = list(findings())
    if arguments:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        show(found)
    return int(any(finding.state == "bad" for finding in found))


def findings() -> Iterator[Finding]:
    yield Finding("fcnseg", f"{fcnseg.__version__}, in {Path(fcnseg.__file__).parent}")
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    needed, extras = requirements()
    yield from map(package, needed)
    yield from torch_and_devices()
    yield from memory_and_disks()
    for name, wanted in extras.items():
        yield extra(name, wanted)


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What the package needs, and what each of its extras does but the developers'."""
    needed: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for text in requires("fcnseg") or ():
        requirement = Requirement(text)
        if requirement.marker is None:
            needed.append(requirement)
        else:
            name = str(requirement.marker).partition("extra == ")[2].strip("\"'")
            extras.setdefault(name, []).append(requirement)
    extras.pop("dev", None)
    return needed, dict(sorted(extras.items()))


def package(requirement: Requirement) -> Finding:
    found = installed(requirement.name)
    wanted = f"pip install '{requirement.name}{requirement.specifier}'"
    if found is None:
        return Finding(requirement.name, "not installed", "bad", wanted)
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, f"{found}; expected {requirement.specifier}", "bad", wanted)
    return Finding(requirement.name, found)


def extra(name: str, wanted: Sequence[Requirement]) -> Finding:
    missing = [
        requirement.name
        for requirement in wanted
        if (found := installed(requirement.name)) is None or not requirement.specifier.contains(found, prereleases=True)
    ]
    if missing:
        return Finding(f"[{name}]", f"lacks {', '.join(missing)}", "absent", f"pip install 'fcnseg[{name}]', if wanted")
    return Finding(f"[{name}]", ", ".join(f"{each.name} {installed(each.name)}" for each in wanted))


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_and_devices() -> Iterator[Finding]:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # whatever a broken installation raises
        yield Finding(
            *("torch with torchvision", f"{type(error).__name__}: {str(error).splitlines()[0]}", "bad"),
            "install both at once, from the same index: pip install --force-reinstall torch torchvision",
        )
        return
    yield Finding("torch with torchvision", f"{torch.__version__} with {torchvision.__version__}")
    from fcnseg.inference.device import fast_precision

    precision = fast_precision(torch.device("cpu"))
    yield Finding(
        "processor", f"{available_cores()} cores of {processor_name()}, {precision} by trainer.precision=auto"
    )
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        text = f"{facts.name}, sm_{facts.major}{facts.minor}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        yield Finding(f"cuda:{number}", text)
    if not torch.cuda.is_available():
        yield no_gpu(torch.version.cuda)


def no_gpu(built_for: str | None) -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "none", "absent", "trains on the processor; trainer.precision=auto helps there")
    reason = f"torch is built for CUDA {built_for}" if built_for else "torch is built without CUDA"
    advice = "update the driver, or install torch for the CUDA that nvidia-smi names"
    return Finding("GPU", f"nvidia-smi is there, but no GPU can be used: {reason}", "doubtful", advice)


def memory_and_disks() -> Iterator[Finding]:
    memory = available_memory() / 1e9
    if math.isfinite(memory):
        low = memory < LEAST_MEMORY
        yield Finding("memory", f"{memory:.1f} GB to take", *(("doubtful", "data.device_batch_size=1") if low else ()))
    places = [("runs, here", Path.cwd(), LEAST_DISK, "write elsewhere: hydra.run.dir=FOLDER")]
    places += [("cache", user_cache(), LEAST_DISK, "set XDG_CACHE_HOME, or data.cache_folder=FOLDER")]
    places += [("temporary files", Path(tempfile.gettempdir()), LEAST_DISK, "set TMPDIR")]
    if (shared := Path("/dev/shm")).is_dir():
        places += [("shared memory", shared, LEAST_SHARED, "for worker processes: docker run --shm-size=8g")]
    for what, path, least, advice in places:
        nearest = next(each for each in (path, *path.parents) if each.exists())
        free = shutil.disk_usage(nearest).free / 1e9
        yield Finding(what, f"{free:.1f} GB free, {path}", *(("doubtful", advice) if free < least else ()))


def show(found: Sequence[Finding]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for finding in found:
        mark, style = MARKS[finding.state]
        table.add_row(
            f"[{style}]{mark}[/]", finding.what.replace("[", "\\["), finding.found, finding.advice.replace("[", "\\[")
        )
    console.print(table)
    wrong = sum(finding.state == "bad" for finding in found)
    console.print(f"{wrong} to be mended" if wrong else "all that training needs is there", style="bold")
