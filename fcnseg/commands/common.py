"""What several subcommands do alike."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fcnseg.errors import InputError
from fcnseg.silence import is_silent


def require_value(config: DictConfig, key: str, example: str) -> str:
    """The value of a key that has no default.

    Raises:
        InputError: naming the key, with an example.
    """
    if OmegaConf.is_missing(config, key) or config[key] is None:
        raise InputError(f"{key}: a value is missing; give it as {key}={example}")
    return str(config[key])


def require_writable(output: Path, *parts: str) -> None:
    """Refuse, before anything is computed, an output that is no folder or takes no files, or whose parts are so.

    Nothing is made yet: a command that ends for another reason leaves no empty folders.

    Raises:
        InputError: saying what is in the way.
    """
    for folder in [output / part for part in parts] or [output]:
        try:
            nearest = next(path for path in (folder, *folder.parents) if path.exists())
        except OSError as error:
            raise unwritable(output, error) from error
        if not nearest.is_dir():
            raise InputError(f"output={output}: {nearest} is a file; expected a folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(f"output={output}: nothing may be written in {nearest.absolute()}")


def unwritable(output: Path, error: OSError) -> InputError:
    """What to raise where writing into an output folder has failed."""
    where = f"{error.filename}: " if error.filename else ""
    return InputError(f"output={output}: cannot be written ({where}{error.strerror or error})")


def console_for_bars() -> Console:
    """The standard error, or nothing where the standard output goes nowhere, as with --quiet."""
    return Console(stderr=True, quiet=is_silent())


@contextmanager
def progress_bars(totals: Mapping[str, int]) -> Iterator[Callable[[str], None]]:
    """Show a bar for each of several jobs while they go on; gives the function that advances one by its name."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console_for_bars(), transient=True) as progress:
        bars = {name: progress.add_task(name, total=total) for name, total in totals.items()}
        yield lambda name: progress.advance(bars[name])
