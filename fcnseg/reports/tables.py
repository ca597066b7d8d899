"""What a report says of scores: classes with their support, and the confusion matrix either way."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fcnseg.labels import LabelSpace

MANY = 40
"""Classes from which on a confusion matrix is a picture, without numbers."""

PAIRS = 10
"""Confusions that are told in words."""


@dataclass(frozen=True)
class ClassRow:
    """A class's line: scores and share lie in 0 to 1, None where there are none.

    Attributes:
        pixels: that have its label, its support.
        share: of all label pixels.
        images: in which it is labelled; None where no matrices are kept.
        reported: whether the means are over it too.
    """

    name: str
    colour: str
    iou: float | None
    accuracy: float | None
    precision: float | None
    pixels: int
    share: float | None
    images: int | None
    reported: bool


def class_rows(metrics: dict[str, Any], matrices: np.ndarray | None, space: LabelSpace) -> list[ClassRow]:
    """The lines of the classes of metrics.json, with what the (images, C, C) matrices add to them."""
    total = sum(int(scores["pixels"]) for scores in metrics["classes"].values())
    reported = metrics.get("reported") or space.classes
    rows = []
    for index, (name, scores) in enumerate(metrics["classes"].items()):
        precision = images = None
        if matrices is not None:
            counts = matrices.sum(axis=0)
            predicted = int(counts[:, index].sum())
            precision = counts[index, index] / predicted if predicted else None
            images = int((matrices[:, index].sum(axis=1) > 0).sum())
        pixels = int(scores["pixels"])
        rows.append(
            ClassRow(
                name=name,
                colour=css_colour(space.palette[index]),
                iou=scores["iou"],
                accuracy=scores["accuracy"],
                precision=precision,
                pixels=pixels,
                share=pixels / total if total else None,
                images=images,
                reported=name in reported,
            )
        )
    return rows


@dataclass(frozen=True)
class Confusion:
    """The matrix in one normalisation.

    Attributes:
        key: of the normalisation, "label" or "prediction".
        title: what a cell is a share of.
        cells: (C, C) shares, 0 to 1, or None where nothing was divided; empty where `picture` shows them.
        picture: data URI of a PNG with a pixel for each cell; empty where there are few classes.
    """

    key: str
    title: str
    cells: list[list[float | None]]
    picture: str


def confusions(counts: np.ndarray) -> list[Confusion]:
    """(C, C) counts, rows = labels, as shares of each label's pixels and of each prediction's."""
    found = []
    for key, axis, title in (("label", 1, "of the pixels of each label"), ("prediction", 0, "of each prediction")):
        total = counts.sum(axis=axis, keepdims=True).astype(float)
        shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
        many = len(counts) > MANY
        cells = [] if many else [[None if np.isnan(v) else v for v in row] for row in shares.tolist()]
        found.append(Confusion(key, title, cells, _picture(shares) if many else ""))
    return found


def pairs(counts: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The confusions with the most pixels: label, prediction, and the share of the label's pixels that they take."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places = [divmod(int(place), len(counts)) for place in order]
    return [
        {
            "label": classes[i],
            "prediction": classes[j],
            "pixels": int(wrong[i, j]),
            "share": wrong[i, j] / counts[i].sum(),
        }
        for i, j in places
        if wrong[i, j] > 0
    ]


def css_colour(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _picture(shares: np.ndarray) -> str:
    depth = np.sqrt(np.nan_to_num(shares))[..., None]
    pixels = (255 - depth * (255 - np.array([8, 81, 156]))).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return data_uri(buffer.getvalue(), "png")
