"""Does a network know how sure it may be? Temperature scaling, calibration error, reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.inference.exported import Exported
from fcnseg.inference.exported.network import LOGITS
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models import FCN, at_own_sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15
RANGE = (0.01, 100.0)
"""Between which temperatures the best one is looked for."""

PIXELS_PER_IMAGE = 10_000

Drawn = tuple[np.ndarray, np.ndarray]
"""(n, C) float32 logits and (n,) labels of pixels of an image."""

AT_ONCE = 1 << 17
"""Pixels whose softmax is computed at once, in float64."""


@dataclass(frozen=True)
class Bins:
    """Pixels by the confidence of their predictions, in `BINS` bins of equal width from 0 to 1.

    Attributes:
        pixels: how many are in each bin.
        confidence: their mean confidence, the probability of the predicted class; nan where there are none.
        accuracy: the share of them that is right; nan where there are none.
    """

    pixels: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance of confidence and accuracy over all pixels, 0 to 1 (Naeini et al. 2015; Guo et al. 2017).

        It is sum_b n_b / n |accuracy_b - confidence_b|.
        """
        filled = [(n, abs(a - c)) for n, a, c in zip(self.pixels, self.accuracy, self.confidence, strict=True) if n]
        return sum(n * gap for n, gap in filled) / sum(n for n, _ in filled)


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling does to a network, told by images that the temperature was not fitted on.

    Attributes:
        temperature: logits are divided by it; above 1 the network was too sure. Predictions stay the same.
        ece_before, ece_after: expected calibration error, 0 to 1.
        nll_before, nll_after: mean negative log likelihood of the labels, in nats.
        bins: pixels by confidence, before and after.
        fitted_pixels, reported_pixels: how many pixels the temperature, and all else, comes from.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    bins: tuple[Bins, Bins]
    fitted_pixels: int
    reported_pixels: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: nan becomes None."""
        names = ("temperature", "ece_before", "ece_after", "nll_before", "nll_after")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values |= {"fitted_pixels": self.fitted_pixels, "reported_pixels": self.reported_pixels}
        return values | {
            f"bins_{when}": _plain(bins) for when, bins in zip(("before", "after"), self.bins, strict=True)
        }


def calibrate(
    model: FCN | Exported, loader: Iterable[dict[str, Any]], pixels_per_image: int = PIXELS_PER_IMAGE, seed: int = 0
) -> Calibration:
    """Fit a temperature on every other image of a validation set, and report on those between.

    Temperature scaling (Guo et al., ICML 2017, section 4.2) divides all logits by the one number that makes the
    labels likeliest. Neighbouring frames of a video are alike, so that for videos the report is a little too good.

    Args:
        model: on the device to use, or an exported one; put into evaluation mode for the time of the call.
        loader: `SegmentationData.validation_loader()`.
        pixels_per_image: how many labelled pixels of an image are taken at most, drawn at random; each costs four
            bytes for every class.
        seed: of the draws, which depend on it and on the image's place in the data alone.

    Raises:
        InputError: when there are no labelled pixels in one of the two halves, and for an exported model of masks.
    """
    require_probabilities(model)
    return calibration_of(chain.from_iterable(draw_batches(model, loader, pixels_per_image, seed)))


def require_probabilities(model: FCN | Exported) -> None:
    """
    Raises:
        InputError: for an exported model of masks.
    """
    if isinstance(model, Exported) and model.gives != LOGITS:
        raise InputError(f"calibrate=true: {model.path} gives masks, without a probability; expected one of logits")


def calibration_of(images: Iterable[Drawn]) -> Calibration:
    """As `calibrate`, of what `draw_batches` has drawn from each image, in order.

    Raises:
        InputError: when there are no labelled pixels in one of the two halves.
    """
    halves: tuple[list[Drawn], ...] = ([], [])
    for number, drawn in enumerate(images):
        halves[number % 2].append(drawn)
    if not all(sum(len(labels) for _, labels in half) for half in halves):
        raise InputError("calibrate=true: needs labelled pixels in two images of the validation set at least")
    (logits, labels), (others, truth) = (
        [torch.from_numpy(np.concatenate(parts)) for parts in zip(*half, strict=True)] for half in halves
    )
    temperature = fit_temperature(logits, labels)
    before, after = (reliability(others, truth, t) for t in (1.0, temperature))
    return Calibration(
        temperature=temperature,
        ece_before=before.expected_calibration_error,
        ece_after=after.expected_calibration_error,
        nll_before=negative_log_likelihood(others, truth),
        nll_after=negative_log_likelihood(others, truth, temperature),
        bins=(before, after),
        fitted_pixels=len(labels),
        reported_pixels=len(truth),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature within `RANGE` that makes the labels likeliest.

    The likelihood has one maximum only, being log-concave in 1 / T.

    Args:
        logits: (n, C).
        labels: (n,) class indices.
    """
    from scipy.optimize import minimize_scalar

    low, high = map(math.log, RANGE)
    found = minimize_scalar(
        lambda x: negative_log_likelihood(logits, labels, math.exp(x)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return math.exp(found.x)


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> float:
    """The mean over (n, C) logits with (n,) labels, in nats, of softmax(logits / temperature)."""
    parts = zip(logits.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    total = sum(F.cross_entropy(z.double() / temperature, y.long(), reduction="sum").item() for z, y in parts)
    return total / len(labels)


def reliability(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Bins:
    """(n, C) logits with (n,) labels by the confidence of softmax(logits / temperature)."""
    sums = np.zeros((3, BINS))
    for z, y in zip(logits.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        confidence, predicted = (z.double() / temperature).softmax(dim=1).max(dim=1)
        place = (confidence * BINS).long().clamp(max=BINS - 1).numpy()
        for row, weights in zip(sums, (None, confidence.numpy(), (predicted == y).numpy()), strict=True):
            row += np.bincount(place, weights, BINS)
    pixels = sums[0]
    means = np.divide(sums[1:], pixels, out=np.full((2, BINS), np.nan), where=pixels > 0)
    return Bins(tuple(map(int, pixels)), tuple(means[0].tolist()), tuple(means[1].tolist()))


def save_reliability(calibration: Calibration, path: Path | str) -> None:
    """Draw accuracy over confidence before and after scaling, and how the confidences are spread.

    Args:
        path: a .png, .pdf or .svg file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6.8), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1, label="as sure as right")
    looks = (
        ("before", "C1", calibration.ece_before),
        (f"T = {calibration.temperature:.2f}", "C0", calibration.ece_after),
    )
    for (name, colour, error), bins in zip(looks, calibration.bins, strict=True):
        label = f"{name}, calibration error {100 * error:.1f} %"
        upper.plot(*_filled(bins), "o-", color=colour, markersize=4, linewidth=1.5, label=label)
        shares = 100 * np.array(bins.pixels) / sum(bins.pixels)
        lower.stairs(shares, np.linspace(0, 1, BINS + 1), color=colour, fill=False, linewidth=1.5)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above, where no curve can be
    lower.set(xlabel="confidence", ylabel="pixels, %", ylim=(0, None))
    for axes in (upper, lower):
        _tidy(axes)
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png")


@torch.inference_mode()
def draw_batches(
    model: FCN | Exported, loader: Iterable[dict[str, Any]], pixels_per_image: int = PIXELS_PER_IMAGE, seed: int = 0
) -> Iterator[list[Drawn]]:
    """What is drawn from the images of each batch; arguments as of `calibrate`."""
    was_training = isinstance(model, FCN) and model.training
    if isinstance(model, FCN):
        model.eval()
    number = 0
    for batch in loader:
        logits = model.logits(batch["image"].to(model.device)).float()
        masks = batch["mask"]
        full = at_own_sizes(logits, [mask.shape for mask in masks], batch.get("shown"))
        places = batch.get("index", range(number, number + len(masks)))
        drawn = []
        for place, one, mask in zip(places, full, masks, strict=True):
            flat = mask.flatten()
            labelled = np.flatnonzero((flat != IGNORE_INDEX).numpy())
            if len(labelled) > pixels_per_image:
                labelled = np.random.default_rng((seed, place)).choice(labelled, pixels_per_image, replace=False)
            chosen = torch.from_numpy(labelled)
            scores = one[0].flatten(1)
            drawn.append((scores[:, chosen.to(scores.device)].T.cpu().numpy(), flat[chosen].numpy()))
        number += len(masks)
        yield drawn
    if was_training:
        model.train()  # type: ignore[union-attr]


def _filled(bins: Bins) -> tuple[list[float], list[float]]:
    """Confidence and accuracy of the bins that have pixels."""
    points = [(c, a) for n, c, a in zip(bins.pixels, bins.confidence, bins.accuracy, strict=True) if n]
    return [c for c, _ in points], [a for _, a in points]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _plain(bins: Bins) -> dict[str, list]:
    means = {name: getattr(bins, name) for name in ("confidence", "accuracy")}
    finite = {name: [None if math.isnan(value) else value for value in values] for name, values in means.items()}
    return {"pixels": list(bins.pixels), **finite}
