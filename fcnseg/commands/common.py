"""What several subcommands do alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fcnseg.errors import InputError


def require_value(config: DictConfig, key: str, example: str) -> str:
    """The value of a key that has no default.

    Raises:
        InputError: naming the key, with an example.
    """
    if OmegaConf.is_missing(config, key) or config[key] is None:
        raise InputError(f"{key}: a value is missing; give it as {key}={example}")
    return str(config[key])


@contextmanager
def progress_bars(totals: Mapping[str, int]) -> Iterator[Callable[[str], None]]:
    """Show a bar for each of several jobs while they go on; gives the function that advances one by its name."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = {name: progress.add_task(name, total=total) for name, total in totals.items()}
        yield lambda name: progress.advance(bars[name])
