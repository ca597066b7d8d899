"""`fcnseg train`: train a network, as the config says."""

import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from fcnseg.runs.execution import execute, join, join_all
from fcnseg.runs.folder import output_folder
from fcnseg.runs.processes import complaining, part, rank, told


def run(config: DictConfig) -> float | None:
    """Train; returns the mean IoU of the last weights, for sweepers to maximise."""
    return execute(config, Path(config.folder or output_folder()))


def take_part(command: Callable[[], None]) -> None:
    """Carry out the command in the first of all processes; the others take part in whatever it trains."""
    if (training := told()) is not None:
        with complaining():
            return join(training)
    if rank() > 0:
        sys.exit(2 if join_all() else 0)
    try:
        command()
    except BaseException as error:
        part(error)
        raise
    part(None)
