"""From templates to a file: a page that runs no script but its own, loads nothing, and takes all text for text."""

import base64
import json
import shlex
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fcnseg.atomic import replacing

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_BYTES = 10_000_000
"""Of a page's pictures at most, which become a third more as text: a page has less than 15 MB."""


def write(template: str, path: Path, **values: Any) -> Path:
    """Write a page, which appears whole or not at all; returns its path."""
    text = render(template, **values)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(template: str, **values: Any) -> str:
    """The page that a template makes of values."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    own = {
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "digest": base64.b64encode(sha256(script.encode()).digest()).decode(),
    }
    return environment().get_template(template).render(**own, **values)


@cache
def environment() -> Environment:
    """Jinja's, which escapes whatever is no template and refuses names that are not there."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "number": number,
        "duration": duration,
        "quoted": shlex.quote,
        "as_yaml": as_yaml,
    }
    return made


def percent(value: float | None, digits: int = 1) -> str:
    """A score of 0 to 1 in percent; a dash for none."""
    return "-" if value is None or value != value else f"{100 * value:.{digits}f}"


def number(value: float | None) -> str:
    """With groups of three digits, or four digits of a fraction."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """As a person says it, such as 1 h 43 min."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def setting(value: Any) -> str:
    """As YAML has it, in one line."""
    if isinstance(value, str) and value:
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True).splitlines()[0]


def as_yaml(value: Any) -> str:
    """What was read from YAML or JSON, as YAML."""
    return yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False, allow_unicode=True)
