"""YAML files of plain values."""

from pathlib import Path
from typing import Any

import yaml

from fcnseg.errors import InputError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; no code in it is executed.

    Raises:
        InputError: naming the file, when it cannot be read as YAML.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
