"""`fcnseg train`: train a network, as the config says."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig

from fcnseg.runs.execution import execute, join, join_all, silence_warnings
from fcnseg.runs.folder import output_folder
from fcnseg.runs.processes import complaining, part, rank, told

T = TypeVar("T")


def run(config: DictConfig) -> float | None:
    """Train; returns the mean IoU of the last weights, for sweepers to maximise."""
    return execute(config, Path(config.folder or output_folder()))


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
