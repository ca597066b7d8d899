"""`fcnseg train`: train a network, as the config says."""

from omegaconf import DictConfig

from fcnseg.runs.execution import execute
from fcnseg.runs.folder import output_folder


def run(config: DictConfig) -> float | None:
    """Train; returns the mean IoU of the last weights, for sweepers to maximise."""
    return execute(config, output_folder())
