"""Pieces of HTML with which objects show themselves in notebooks.

They take the notebook's own colours for text, so that they are read on light and on dark grounds, and need neither
scripts nor anything from elsewhere: pictures are within them. Texts are escaped here, once.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

WIDEST, QUALITY = 1000, 88
"""Of a picture within HTML: its width in pixels at most, and JPEG's quality."""

GREY, GREEN = "rgba(128, 128, 128, 0.45)", "#3a9b6c"


class Html(str):
    """A text that is HTML already."""


def html(value: object) -> Html:
    """A value's text, escaped; HTML stays as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def view(title: object, *parts: object) -> str:
    """What an object shows: its title, and parts below one another."""
    below = "".join(f'<div style="margin-top: 4px">{html(part)}</div>' for part in parts)
    return f'<div style="text-align: left"><b>{html(title)}</b>{below}</div>'


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> Html:
    """Rows of cells, texts to the left and numbers, as texts too, to the right."""
    lines = [_row(head, "th")] if head else []
    lines += [_row(row, "td") for row in rows]
    return Html(f'<table style="border-collapse: collapse; margin: 0">{"".join(lines)}</table>')


def _row(cells: Sequence[object], kind: str) -> str:
    style = f"padding: 1px 8px; border-bottom: 1px solid {GREY}; text-align: "
    texts = [f'<{kind} style="{style}{_side(cell)}">{html(cell)}</{kind}>' for cell in cells]
    return f"<tr>{''.join(texts)}</tr>"


def _side(cell: object) -> str:
    return "right" if not isinstance(cell, Html) and str(cell)[:1].isdigit() else "left"


def swatch(colour: Sequence[int]) -> Html:
    """A square of (red, green, blue), each 0 to 255."""
    red, green, blue = (int(part) for part in colour)
    square = f"width: 0.9em; height: 0.9em; border: 1px solid {GREY}; vertical-align: -0.1em"
    return Html(f'<span style="display: inline-block; {square}; background: rgb({red}, {green}, {blue})"></span>')


def swatches(names: Sequence[str], colours: Sequence[Sequence[int]]) -> Html:
    """Every class with its colour, index and name, in lines that break where the page ends."""
    each = (
        f'<span style="display: inline-block; margin-right: 1.2em; white-space: nowrap">{swatch(colour)} '
        f'<span style="opacity: 0.65">{index}</span> {html(name)}</span>'
        for index, (name, colour) in enumerate(zip(names, colours, strict=True))
    )
    return Html(" ".join(each))


def bar(share: float, width: float = 8.0) -> Html:
    """A bar of a share, 0 to 1, of a width in em; nothing for nan."""
    filled = 0.0 if isnan(share) else min(max(share, 0.0), 1.0)
    ground = f"display: inline-block; width: {width:g}em; height: 0.7em; background: rgba(128, 128, 128, 0.18)"
    inner = f"display: block; width: {100 * filled:.1f}%; height: 100%; background: {GREEN}"
    return Html(f'<span style="{ground}"><span style="{inner}"></span></span>')


def percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None or isnan(share) else f"{100 * share:.{digits}f}"


def picture(image: "Image.Image") -> Html:
    """A picture within the HTML, as JPEG, shrunk where it is wider than `WIDEST`."""
    file = BytesIO()
    shrunk(image).save(file, "JPEG", quality=QUALITY, subsampling=0)
    encoded = b64encode(file.getvalue()).decode()
    return Html(f'<img style="max-width: 100%" src="data:image/jpeg;base64,{encoded}">')


def shrunk(image: "Image.Image") -> "Image.Image":
    """In RGB, and no wider than `WIDEST` nor higher than twice that."""
    from PIL import Image

    scale = min(WIDEST / image.width, 2 * WIDEST / image.height, 1.0)
    size = max(round(scale * image.width), 1), max(round(scale * image.height), 1)
    rgb = image.convert("RGB")
    return rgb if size == rgb.size else rgb.resize(size, Image.Resampling.LANCZOS)
