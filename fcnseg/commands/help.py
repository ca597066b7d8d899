"""The `--help` of a command that has a config, read from the config's own files: at once, and with their comments."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fcnseg
from fcnseg.commands.config_files import config_folder, groups_of, is_beside, read

GIVEN_BY_DATA = ("num_classes", "image_type", "scaling", "input_size", "resize", "label_space")
"""Arguments of `create_model` that are no settings."""

NOT_SHOWN = re.compile(r"\s*(_target_|_partial_|_convert_): |# @package ")
"""Lines that say how a setting is built, not what it is."""


def text(command: str) -> str:
    """What `fcnseg COMMAND --help` prints.

    Args:
        command: as the config is named, such as "data_create".
    """
    path = config_folder() / f"{command}.yaml"
    written = read(path)
    shown = written["hydra"]["help"]
    parts = {
        "${hydra.help.header}": shown["header"].rstrip(),
        "$APP_CONFIG_GROUPS": "\n".join(groups()) + "\n",
        "$CONFIG": "\n".join([*own(path), *chosen(written)]),
    }
    filled: str = shown["template"]
    for name, value in parts.items():
        filled = filled.replace(name, value)
    return filled.rstrip()


def groups() -> Iterator[str]:
    """Each config group with its options."""
    options: dict[str, list[str]] = {"model": ["what fcnseg zoo list 'pattern=*' names"]}
    for path in sorted(config_folder().rglob("*.yaml")):
        if path.parent != config_folder():
            options.setdefault(path.parent.relative_to(config_folder()).as_posix(), []).append(path.stem)
    return (f"{name}: {', '.join(each)}" for name, each in sorted(options.items()))


def own(path: Path) -> list[str]:
    """A config file's lines without those that are for Hydra."""
    lines, skipped = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line[:1] not in (" ", "#", ""):
            skipped = line.startswith(("defaults:", "hydra:"))
        if not skipped and not NOT_SHOWN.match(line):
            lines.append(line)
    return "\n".join(lines).strip().splitlines()


def chosen(written: dict[str, Any]) -> Iterator[str]:
    """The settings of the options that a command takes unless others are chosen."""
    for group, option in groups_of(written).items():
        if option is not None:
            yield f"\n{group}: # {group}={option}"
            yield from indented(model_settings() if group == "model" else settings_of(group, option))


def settings_of(group: str, option: str) -> Iterator[str]:
    """Those of an option, and of the groups within it."""
    path = config_folder() / group / f"{option}.yaml"
    yield from own(path)
    for inner, chosen_there in groups_of(read(path), within=group).items():
        if chosen_there is not None:
            lines = settings_of(f"{group}/{inner}", chosen_there)
            beside = is_beside(group, inner, chosen_there)
            if not beside:
                yield f"{inner}: # {group}/{inner}={chosen_there}"
            yield from lines if beside else indented(lines)


def indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in lines)


def model_settings() -> Iterator[str]:
    """The arguments of `create_model` with their defaults, from its source: importing it would import torch."""
    source = (Path(fcnseg.__file__).parent / "models" / "registry.py").read_text(encoding="utf-8")
    function = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "create_model")
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.arg not in GIVEN_BY_DATA and isinstance(default, ast.Constant):
            yield f"{argument.arg}: {'null' if default.value is None else ast.literal_eval(default)}"
