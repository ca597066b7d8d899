"""`fcnseg benchmark`: how fast networks are on this machine, and how much memory they take."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fcnseg.commands.common import progress_bars, require_writable, unwritable
from fcnseg.commands.geometry import FORMATS
from fcnseg.errors import InputError
from fcnseg.inference.benchmark import Settings, benchmark
from fcnseg.inference.device import default_device
from fcnseg.inference.measured import Benchmark, Row
from fcnseg.models import FCN, create_model, from_pretrained, list_models
from fcnseg.models.names import is_model

_TEXTS = ("model", "form", "precision", "what", "size")
_NUMBERS = ("batch", "median ms", "least", "90 %", "images/s", "memory MB", "GFLOP", "GFLOP/s")


def run(config: DictConfig) -> None:
    if config.format not in FORMATS:
        raise InputError(f"format={config.format}: expected one of {', '.join(FORMATS)}")
    settings = settings_of(config)
    default_device(config.device)  # a mistake in its name comes before models are loaded
    output = Path(config.output) if config.output is not None else None
    if output is not None:
        require_writable(output)
    models = load_models(config)
    with progress_bars({"measuring": settings.calls * len(models)}) as advance:
        measured = benchmark(models, settings, device=config.device, advance=lambda: advance("measuring"))
    if config.format == "json":
        print(json.dumps(measured.to_dict(), indent=2))
    else:
        show(measured)
    if output is not None:
        write(measured, output)


def settings_of(config: DictConfig) -> Settings:
    """What the config asks for; one value will do where several may stand.

    Raises:
        InputError: for a value that cannot be measured.
    """
    sizes = _several(config.size)
    if not all(isinstance(size, list) for size in sizes):
        sizes = [sizes]
    lists = {name: _several(config[name]) for name in ("batch", "precision", "form", "what")}
    if not isinstance(config.memory, bool):
        raise InputError(f"memory={config.memory}: expected true or false")
    return Settings(
        size=sizes,
        **lists,
        rounds=config.rounds,
        threads=config.threads,
        memory=config.memory,
    )


def _several(value: Any) -> list[Any]:
    plain: Any = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return plain if isinstance(plain, list) else [plain]


def load_models(config: DictConfig) -> dict[str, FCN]:
    """The models that `model` names, by what their rows shall be called; of those of the zoo one for each padding.

    Trained ones are called by the name of their file or folder, numbered where several have the same.

    Raises:
        InputError: for a name that is neither.
    """
    paddings = list(dict.fromkeys(_several(config.padding)))
    if not paddings:
        raise InputError("padding=[]: expected one value at least")
    for key, kind in (("num_classes", int), ("width", int | float)):
        if not isinstance(config[key], kind):
            raise InputError(f"{key}={config[key]}: expected a number")
    models: dict[str, FCN] = {}
    for source in dict.fromkeys(map(str, _several(config.model))):
        if is_model(source):
            for padding in paddings:
                name = source if padding == "same" else f"{source}, padding={padding}"
                options = {"num_classes": config.num_classes, "padding": padding, "width": config.width}
                models[name] = create_model(source, **options)
        else:
            models[_new_name(source, models)] = _trained(source)
    return models


def _new_name(source: str, taken: Iterable[str]) -> str:
    name = source if not Path(source).exists() else Path(source).resolve().name
    repeated = 1 + sum(other.partition(" #")[0] == name for other in taken)
    return f"{name} #{repeated}" if repeated > 1 else name


def _trained(source: str) -> FCN:
    try:
        return from_pretrained(source)
    except InputError as error:
        near = get_close_matches(source, list_models(), n=3)
        if near and not Path(source).exists():
            raise InputError(f"model={source}: no such model; did you mean {', '.join(near)}?") from error
        raise


def write(measured: Benchmark, output: Path) -> None:
    try:
        measured.write(output)
    except OSError as error:
        raise unwritable(output, error) from error


def show(measured: Benchmark) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (*_TEXTS, *_NUMBERS):
        table.add_column(heading, justify="left" if heading in _TEXTS else "right", no_wrap=True)
    before = None
    for row in measured.rows:
        group = (row.case.what, row.case.size, row.case.batch)
        if before not in (None, group):
            table.add_row()
        table.add_row(*_cells(row))
        before = group
    console = Console(width=None if Console().is_terminal else 160)
    machine = measured.machine
    console.print(
        f"{machine['device_name']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date']}",
        style="bold",
        highlight=False,
    )
    console.print(table)
    console.print(
        "90 %: nine of ten calls end within. GFLOP: of one call, two for each multiply-add, also where padding=caffe\n"
        "computes once what all images have in common.",
        style="dim",
    )


def _cells(row: Row) -> list[str]:
    case = row.case
    about = [row.model, case.form, case.precision, case.what, f"{case.size[0]}x{case.size[1]}", str(case.batch)]
    if row.problem:
        return [*about, row.problem]
    times = [f"{1000 * seconds:.4g}" for seconds in (row.median, row.least, row.p90)]
    memory = "" if row.memory is None else f"{row.memory / 1e6:,.0f}"
    costs = ["" if cost is None else f"{cost:.4g}" for cost in (row.gflop, row.gflop_per_second)]
    return [*about, *times, f"{row.images_per_second:.4g}", memory, *costs]
