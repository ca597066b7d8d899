"""`fcnseg train`: train a network, as the config says."""

from pathlib import Path

from omegaconf import DictConfig

from fcnseg.runs.execution import execute, join
from fcnseg.runs.folder import output_folder
from fcnseg.runs.processes import told


def run(config: DictConfig) -> float | None:
    """Train; returns the mean IoU of the last weights, for sweepers to maximise."""
    return execute(config, Path(config.folder or output_folder()))


def join_others() -> bool:
    """Take part in the training of the process that has started this one; False where none has."""
    if (training := told()) is None:
        return False
    join(training)
    return True
