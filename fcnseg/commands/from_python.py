"""`fcnseg.train`: what `fcnseg train` does, from Python and in notebooks."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fcnseg.commands import configuration
from fcnseg.commands.config_files import config_folder
from fcnseg.errors import InputError
from fcnseg.runs.execution import execute
from fcnseg.runs.finished import Run

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""That Lightning sets when it is given a seed."""

LOGGERS = ("pytorch_lightning", "lightning_fabric")


def train(*overrides: str, folder: str | Path | None = None, quiet: bool = False, **settings: Any) -> Run:
    """Train a network as the command `fcnseg train` does, in this process.

    Hydra's state, `sys.argv`, filters of warnings and levels of logs are afterwards what they were before; the state
    of random numbers is not.

    Args:
        overrides: settings as on the command line, such as "experiment=demo" or "trainer.max_epochs=2".
        folder: of the run; by default runs/NAME/TIME. One that holds a run is refused, unless `resume` goes on with it.
        quiet: print nothing but what goes wrong.
        settings: plain settings and choices of groups, such as seed=3, resume="auto" or regime="bgc"; None is null.

    Returns:
        The finished run.

    Raises:
        InputError: for a mistake in a setting, a file or a label; its message is the line that the command prints.
        KeyboardInterrupt: after Ctrl-C or the kernel's interruption, when the last checkpoint is written.
    """
    given = [*overrides, *(f"{key}={_written(key, value)}" for key, value in settings.items())]
    with _as_before(), _silent(quiet):
        sys.argv[:] = ["fcnseg", "train", *given, *([] if folder is None else [f"folder={folder}"])]  # for run.json
        try:
            return _train(given, folder)
        except SystemExit as end:  # how Lightning and ours end a command that was interrupted
            if end.code == 128 + signal.SIGTERM:
                raise
            raise KeyboardInterrupt("training was interrupted; resume='auto' and the same folder go on") from end
        except InputError:
            raise
        except Exception as error:
            message = configuration.explain(error, "train", given)
            if message is None:
                raise
            raise InputError(message) from error


def _train(given: Sequence[str], folder: str | Path | None) -> Run:
    overrides = [configuration.as_given(override) for override in given]
    if options := [override for override in overrides if override.startswith("-")]:
        raise InputError(f"{options[0]}: expected KEY=VALUE; options such as those of sweeps are the command line's")
    configuration.register_models(given)
    with hydra.initialize_config_dir(str(config_folder()), job_name="train", version_base="1.3"):
        config = _composed(overrides, folder)
        _require_one_process(config)
        place = Path(config.folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        try:
            execute(config, place)
        except BaseException:
            with suppress(OSError):  # where nothing has been written
                place.rmdir()
            raise
    return Run(Path(config.folder))  # with resume= it may be that of a run with stages


def _composed(overrides: list[str], folder: str | Path | None) -> DictConfig:
    """The config, as Hydra would hand it to the command; what it knows of the run is in `HydraConfig` too."""
    whole = hydra.compose("train", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(whole)
    output = Path(str(OmegaConf.select(whole, "hydra.run.dir")) if folder is None else folder).absolute()
    with read_write(whole.hydra.runtime), open_dict(whole.hydra.runtime):
        whole.hydra.runtime.output_dir = str(output)
    HydraConfig.instance().set_config(whole)
    config = deepcopy(whole)
    with read_write(config), open_dict(config):
        del config["hydra"]
        config.folder = str(output if folder is not None else config.folder or output)
    return config


def _require_one_process(config: DictConfig) -> None:
    for key in ("devices", "num_nodes"):
        if (count := OmegaConf.select(config, f"trainer.{key}")) not in (1, "1"):
            raise InputError(f"trainer.{key}={count}: from Python one process trains; expected 1, or `fcnseg train`")


def _written(key: str, value: Any) -> str:
    """A plain value as on the command line.

    Raises:
        InputError: for one that cannot be written there.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | Path | int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, each) for each in value)}]"
    raise InputError(f"{key}={value!r}: expected a text, a number, True, False, None or a list of such")


@contextmanager
def _silent(quiet: bool) -> Iterator[None]:
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def _as_before() -> Iterator[None]:
    """Leave the process as it was found, with Hydra's state of another config, or of none."""
    arguments, variables = list(sys.argv), {name: os.environ.get(name) for name in VARIABLES}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        with warnings.catch_warnings(), _own_hydra():
            yield
    finally:
        sys.argv[:] = arguments
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra of its own: what another one was initialised with, has composed and stores is put aside meanwhile."""
    kinds = GlobalHydra, HydraConfig, VersionBase
    before: dict[type, Any] = {kind: kind.instance() for kind in kinds}
    for kind in kinds:
        del Singleton._instances[kind]  # the next who asks for it gets a new one
    store = ConfigStore.instance()
    stored = dict(vars(store))
    store.repo = dict(store.repo) | {"model": {}}
    try:
        yield
    finally:
        Singleton._instances.update(before)
        vars(store).clear()
        vars(store).update(stored)
