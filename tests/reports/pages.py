"""Reading a report as a browser does: its elements, texts, and whatever it refers to."""

import base64
import csv
import io
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID = {"meta", "img", "input", "br", "link", "hr", "source"}


class Page(HTMLParser):
    """A page's elements in order: (tag, attributes, text of all that is in it)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.elements[place][2].append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of a tag, those with all the words in an attribute."""
        wanted = {key.rstrip("_"): value for key, value in wanted.items()}
        return [
            (attributes, " ".join("".join(text).split()))
            for name, attributes, text in self.elements
            if name == tag and all(value in attributes.get(key, "").split() for key, value in wanted.items())
        ]

    def rows(self, head: str) -> dict[str, list[str]]:
        """The lines of the table whose first heading is this, by their first cell."""
        tables: list[list[list[str]]] = []
        for tag, _, text in self.elements:
            if tag == "table":
                tables.append([])
            elif tag == "tr":
                tables[-1].append([])
            elif tag in ("td", "th") and tables:
                tables[-1][-1].append(" ".join("".join(text).split()))
        (found,) = (table for table in tables if table[0][0] == head)
        return {row[0]: row[1:] for row in found}


def outside(page: Page) -> list[str]:
    """What a browser would fetch from elsewhere to show the page, or run though it is not the page's own."""
    found = []
    for tag, attributes, _ in page.elements:
        if tag in ("link", "iframe", "object", "embed", "base", "form", "audio", "video", "use", "image"):
            found.append(tag)
        for key, value in attributes.items():
            if key.startswith("on"):
                found.append(f"{tag} {key}")
            if key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"):
                found += [] if value.startswith(("data:image/", "#")) else [f"{tag} {key}={value[:60]}"]
            if "url(" in value or (tag == "meta" and attributes.get("http-equiv") == "refresh"):
                found.append(f"{tag} {key}={value[:60]}")
    styles = [text for _, text in page.all("style")]
    found += [match for style in styles for match in re.findall(r"@import.*|url\([^)]*\)", style)]
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert policy.startswith("default-src 'none';")
    for script in re.findall(r"<script[^>]*>(.*?)</script>", page.source, re.DOTALL):
        if base64.b64encode(sha256(script.encode()).digest()).decode() not in allowed:
            found.append(f"script {script[:60]}")
    return found


def pixels(uri: str) -> np.ndarray:
    """Of a picture that is part of a page: a palette's indices, or colours."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def logged(path: Path, column: str) -> list[float]:
    with path.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]
