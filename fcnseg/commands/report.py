"""`fcnseg report`: the page about a run, or the one that compares several."""

import os
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from fcnseg.commands.common import unwritable
from fcnseg.errors import InputError
from fcnseg.reports import write_comparison, write_page
from fcnseg.reports.run_page import FILE
from fcnseg.runs.folder import relative

COMPARISON = "comparison.html"


def run(config: DictConfig) -> None:
    folders = _folders(config)
    images = config.images
    if isinstance(images, bool) or not isinstance(images, int) or images < 0:
        raise InputError(f"images={images}: expected a whole number from 0 on")
    path = _path(config.output, folders)
    try:
        if len(folders) == 1:
            write_page(folders[0], path, images)
        else:
            write_comparison(folders, path, images)
    except OSError as error:
        raise unwritable(path, error) from error
    print(f"report  {relative(path)}")


def _folders(config: DictConfig) -> list[Path]:
    """
    Raises:
        InputError: when there are none.
    """
    if OmegaConf.is_missing(config, "runs") or not config.runs:
        raise InputError("runs: a value is missing; expected folders, as in: fcnseg report runs/NAME/TIME")
    runs = list(config.runs) if isinstance(config.runs, ListConfig) else [config.runs]
    return [Path(str(run)) for run in runs]


def _path(output: str | None, folders: list[Path]) -> Path:
    """Where the page goes: into the run's folder, or that in which all runs lie, or else the working directory."""
    name = FILE if len(folders) == 1 else COMPARISON
    if output is not None:
        return Path(output) if str(output).endswith(".html") else Path(output) / name
    if len(folders) == 1:
        return folders[0] / name
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    return (common if common != Path(common.anchor) and os.access(common, os.W_OK) else Path.cwd()) / name
