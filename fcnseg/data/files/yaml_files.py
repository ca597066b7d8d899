"""YAML files of plain values."""

from pathlib import Path
from typing import Any

import yaml

from fcnseg.errors import InputError, refuse_endless

DEEPEST = 100
"""How deep lists and mappings may be nested."""

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, yaml.YAMLError)
"""What PyYAML raises, also for values that are not of the type that they say."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it


class _Loader(_Base):
    """Without what lets a short file take forever: mappings merged of merged ones, and keys of one hash."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise ValueError(f"line {key.start_mark.line + 1}: mappings cannot be merged (<<)")
            if key.tag == "tag:yaml.org,2002:int" and len(key.value) > 18:
                raise ValueError(f"line {key.start_mark.line + 1}: a key of more than 18 digits")


def read_yaml(path: Path, most: int | None = None) -> Any:
    """What a YAML file holds; no code in it is executed.

    Args:
        path: of the file.
        most: values that it may have with all its references (& and *) written out: a few lines can stand for more
            than memory holds. None: any number.

    Raises:
        InputError: naming the file, when it cannot be read as YAML, or has more values.
    """
    refuse_endless(path)
    try:
        text = path.read_text(encoding="utf-8")
        _require_shallow(text)
        found = yaml.load(text, _Loader)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as YAML ({reason})") from error
    if most is not None and _is_larger(found, most):
        raise InputError(f"{path}: has more than {most} values, with all references (& and *) written out")
    return found


def _require_shallow(text: str) -> None:
    """Refuse what is nested deeper than any description is: at some ten thousand levels libyaml's reader crashes.

    Raises:
        ValueError: for such a text.
        yaml.YAMLError: for what is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"lists and mappings are nested more than {DEEPEST} deep")


def _is_larger(found: Any, most: int) -> bool:
    """Whether there are more values than `most`, counting each as often as it is referred to."""
    left = [found]
    while left and most > 0:
        part, most = left.pop(), most - 1
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return bool(left)
