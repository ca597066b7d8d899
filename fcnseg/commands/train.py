"""`fcnseg train`: train a network, as the config says."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fcnseg.runs.execution import execute, join, join_all, silence_warnings
from fcnseg.runs.folder import output_folder, relative
from fcnseg.runs.processes import complaining, part, rank, told

T = TypeVar("T")


def run(config: DictConfig) -> float | None:
    """Train; returns the mean IoU of the last weights, for sweepers to maximise."""
    folder = Path(config.folder or output_folder())
    finished_before = (folder / "metrics.json").is_file()
    score = execute(config, folder)
    if score is not None and not finished_before:
        say_what_next(Path(config.folder))
    return score


def say_what_next(folder: Path) -> None:
    """Print the commands that are likely to come next, ready to paste."""
    kept = json.loads((folder / "metrics.json").read_text())["checkpoints"]
    hydra, commands = HydraConfig.get(), [["rerun", relative(folder)]]
    if kept:
        checkpoint = f"checkpoint={kept[next(iter(kept))]['path']}"
        commands.insert(0, ["predict", checkpoint, "input=IMAGES", "output=predictions"])
        if data := hydra.runtime.choices.get("data"):
            given = [override for override in hydra.overrides.task if override.startswith(("data.", "data/"))]
            commands.insert(0, ["evaluate", checkpoint, f"data={data}", *given])
    for number, words in enumerate(commands):
        print(f"{'' if number else 'next':21}{shlex.join(['fcnseg', *words])}")


def take_part(command: Callable[[], T]) -> T | None:
    """Carry out the command in the first of all processes; the others take part in whatever it trains."""
    silence_warnings()
    if (training := told()) is not None:
        with complaining():
            join(training)
        return None
    if rank() > 0:
        if join_all():
            sys.exit(2)
        return None
    try:
        result = command()
    except BaseException as error:
        part(error)
        raise
    part(None)
    return result
