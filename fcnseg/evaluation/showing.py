"""Scores as a table in notebooks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fcnseg.views import Html, bar, html, percent, swatch, table

MEANS = {
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
}


def score_table(found: Mapping[str, Any], palette: Sequence[Sequence[int]] | None = None) -> Html:
    """A row for each class with its IoU, a bar of it, accuracy and share of the label pixels, in percent; the means.

    Args:
        found: as `fcnseg.evaluation.metrics.to_dict` gives them, and metrics.json holds them.
        palette: the classes' colours, if they are known.
    """
    classes = found["classes"]
    total = max(sum(each["pixels"] for each in classes.values()), 1)
    colours = [Html()] * len(classes) if palette is None else [swatch(colour) for colour in palette]
    rows: list[Sequence[object]] = []
    for (name, each), colour in zip(classes.items(), colours, strict=True):
        shown = "absent" if each["iou"] is None else percent(each["iou"])
        numbers = percent(each["accuracy"]), percent(each["pixels"] / total, 2)
        rows.append((colour, html(name), shown, bar(_number(each["iou"])), *numbers))
    for key, name in MEANS.items():
        mean, heading = found[key], Html(f"<b>{name}</b>")
        if key.endswith("iou"):
            rows.append((Html(), heading, percent(mean), bar(_number(mean)), Html(), Html()))
        else:
            rows.append((Html(), heading, Html(), Html(), percent(mean), Html()))
    return table(rows, head=(Html(), "class", "IoU %", Html(), "accuracy %", "pixels %"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
