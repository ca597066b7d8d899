"""The pictures of a report: which images of a validation set are kept, and in what file."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from PIL import Image

from fcnseg.atomic import replacing
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation.evaluator import Evaluation, examples_of
from fcnseg.evaluation.report import Example, error_picture
from fcnseg.inference.exported import Exported
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN

FILE = "gallery.zip"
INDEX = "gallery.json"
LONGEST = 480
"""Pixels of the longer side of a picture."""

PANELS = {"image": "jpeg", "label": "png", "prediction": "png", "error": "jpeg"}
"""The pictures of an image, and their formats: masks keep their colours."""

DATE = (1980, 1, 1, 0, 0, 0)
"""Of the files in a gallery, which is the same each time."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of the gallery.

    Attributes:
        name: of the image.
        mean_iou: its mean IoU, 0 to 1.
        rank: its place among all images by IoU, the worst being 1.
        classes: indices of those that are labelled or predicted in it.
        panels: by the names of `PANELS` the files' bytes.
    """

    name: str
    mean_iou: float
    rank: int
    classes: tuple[int, ...]
    panels: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all panels."""
        return sum(map(len, self.panels.values()))


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures from the worst to the best, out of so many images that have a score."""

    label_space: LabelSpace
    images: int
    pictures: tuple[Picture, ...]


def choose(count: int, most: int) -> list[int]:
    """Which places of an order of `count` to show, `most` at most: the first third, the last third, some between.

    Those between are spread evenly, so that the median is near one of them.
    """
    if count <= most:
        return list(range(count))
    ends = (most + 1) // 3
    first, last = range(ends), range(count - ends, count)
    middle, between = count - 2 * ends, most - 2 * ends
    places = ends + (np.arange(between) + 0.5) * middle / max(between, 1)
    return [*first, *places.astype(int).tolist(), *last]


def save_gallery(
    evaluation: Evaluation, model: FCN | Exported, data: SegmentationData, folder: Path, images: int
) -> None:
    """Segment some images of the validation set again, and keep them with their labels, predictions and errors.

    Args:
        images: how many at most; 0: none, and no file is written.
    """
    scored = [int(i) for i in np.argsort(evaluation.mean_iou, kind="stable") if not np.isnan(evaluation.mean_iou[i])]
    places = choose(len(scored), images)
    if not places:
        return
    space = data.label_space
    entries: list[dict[str, Any]] = []
    with replacing(folder / FILE) as temporary, ZipFile(temporary, "w", ZIP_STORED) as file:
        found = examples_of([scored[place] for place in places], evaluation, model, data)
        for place, example in zip(places, found, strict=True):
            small = _shrunk(example)
            present = np.unique([*np.unique(small.label), *np.unique(small.prediction)])
            facts = {"name": example.name, "mean_iou": example.mean_iou, "rank": place + 1}
            entries.append(facts | {"classes": [int(i) for i in present if i < space.num_classes]})
            for panel, content in _encoded(small, space).items():
                file.writestr(ZipInfo(_file(place + 1, panel), DATE), content)
        told = {"label_space": space.to_dict(), "images": len(scored), "pictures": entries}
        file.writestr(ZipInfo(INDEX, DATE), json.dumps(told, indent=1))


def load_gallery(folder: Path) -> Gallery | None:
    """What `save_gallery` has written; None where it is missing or damaged."""
    try:
        with ZipFile(folder / FILE) as file:
            told = json.loads(file.read(INDEX))
            pictures = [
                Picture(
                    name=str(entry["name"]),
                    mean_iou=float(entry["mean_iou"]),
                    rank=int(entry["rank"]),
                    classes=tuple(map(int, entry["classes"])),
                    panels={panel: file.read(_file(int(entry["rank"]), panel)) for panel in PANELS},
                )
                for entry in told["pictures"]
            ]
        saved = told["label_space"]
        space = LabelSpace(saved["name"], saved["classes"], saved["palette"])
        return Gallery(space, int(told["images"]), tuple(pictures))
    except (OSError, BadZipFile, KeyError, TypeError, ValueError, InputError):
        return None


def within(pictures: Sequence[Picture], images: int, most_bytes: int) -> list[Picture]:
    """As many of the pictures as fit, chosen as by `choose`."""
    for count in range(min(images, len(pictures)), 0, -1):
        chosen = [pictures[place] for place in choose(len(pictures), count)]
        if sum(picture.size for picture in chosen) <= most_bytes:
            return chosen
    return []


def _file(rank: int, panel: str) -> str:
    return f"{rank}_{panel}.{PANELS[panel]}"


def _shrunk(example: Example) -> Example:
    height, width = example.label.shape
    factor = min(LONGEST / max(height, width), 1)
    size = max(round(width * factor), 1), max(round(height * factor), 1)

    def resized(pixels: np.ndarray, way: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize(size, way))

    image = resized(example.image, Image.Resampling.LANCZOS)
    label, prediction = (resized(mask, Image.Resampling.NEAREST) for mask in (example.label, example.prediction))
    return replace(example, image=image, label=label, prediction=prediction)


def _encoded(example: Example, space: LabelSpace) -> dict[str, bytes]:
    pictures = {"image": Image.fromarray(example.image), "error": Image.fromarray(error_picture(example))}
    for name in ("label", "prediction"):
        pictures[name] = Image.fromarray(getattr(example, name)).convert("P")
        pictures[name].putpalette(space.colours().tobytes())
    return {panel: _file_of(pictures[panel], kind) for panel, kind in PANELS.items()}


def _file_of(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 85, "subsampling": 0} if kind == "jpeg" else {}))
    return buffer.getvalue()
