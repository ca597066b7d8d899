"""The files of the configs: where they lie, and what they say, without Hydra."""

from pathlib import Path
from typing import Any

import fcnseg


def config_folder() -> Path:
    """Where the config groups lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(fcnseg.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def read(path: Path) -> dict[str, Any]:
    """What a YAML file holds; nothing where there is none."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def groups_of(written: dict[str, Any], within: str = "") -> dict[str, str | None]:
    """The config groups of a command, or those within an option of a group, with the option that each has by default.

    Args:
        written: in the config's file.
        within: the group whose option it is.
    """
    chosen = {k: v for each in written.get("defaults", ()) if isinstance(each, dict) for k, v in each.items()}
    return {
        name: option for name, option in chosen.items() if name == "model" or (config_folder() / within / name).is_dir()
    }


def is_beside(group: str, inner: str, option: str) -> bool:
    """Whether the settings of a group within a group are those of the outer one, by its "@package"."""
    path = config_folder() / group / inner / f"{option}.yaml"
    return path.is_file() and path.read_text(encoding="utf-8").startswith(f"# @package {group}\n")


def settings_in(group: str, option: str) -> dict[str, Any]:
    """What an option of a group sets, with the groups within it."""
    written = read(config_folder() / group / f"{option}.yaml")
    found = dict(written)
    for inner, each in groups_of(written, within=group).items():
        if each is not None:
            settings = settings_in(f"{group}/{inner}", each)
            found |= settings if is_beside(group, inner, each) else {inner: settings}
    return found
