"""Whether an exported file does what the network does, told by its own runtime on real images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcnseg.data import CityScenes
from fcnseg.data.resizing import resize_image
from fcnseg.evaluation import evaluate, scores
from fcnseg.inference.exported import Exported
from fcnseg.models import FCN
from fcnseg.models.spec import ModelSpec

AGREEMENT = {"32-true": 0.9999, "bf16-mixed": 0.98, "16-mixed": 0.98, "int8": 0.9}
"""Of all pixels, the share that must keep its class, by precision."""

USUAL = (240, 320)
"""Height and width of images for a network that tells none."""

BATCH = 2


@dataclass(frozen=True)
class Compared:
    """One size.

    Attributes:
        size: (height, width) of the images in pixels.
        agreement: share of the pixels that have the same class, 0 to 1.
        difference: the largest one between logits, over the largest logit; None of masks.
    """

    size: tuple[int, int]
    agreement: float
    difference: float | None


@dataclass(frozen=True)
class Proof:
    """What an exported file and its network were found to differ in.

    Attributes:
        sizes: at each size.
        least: the agreement that is asked for at each.
        mean_iou: of the network and of the file on a validation set, 0 to 1; None without one.
    """

    sizes: tuple[Compared, ...]
    least: float
    mean_iou: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        return all(each.agreement >= self.least for each in self.sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"holds": self.holds}


def prove(
    exported: Exported,
    model: FCN,
    images: Sequence[np.ndarray],
    least: float,
    loader: Iterable[dict[str, Any]] | None = None,
) -> Proof:
    """Compare an exported file with its network.

    Args:
        exported: in its own runtime.
        model: what it was made of.
        images: (H, W, C) real images in file values, `BATCH` of them at least; they are resized.
        least: agreement that is asked for.
        loader: `SegmentationData.validation_loader()`, for the mean IoU of both.
    """
    model = model.eval()
    only = exported.facts.get("size")
    sizes = ((0, tuple(only)),) if only else _sizes(model.spec, images)
    compared = tuple(_compared(exported, model, images[i : i + BATCH], size) for i, size in sizes)
    if loader is None:
        return Proof(compared, least)
    both = (evaluate(network, loader).confusion for network in (model, exported))
    first, second = (float(scores(matrix).mean_iou) for matrix in both)
    return Proof(compared, least, (first, second))


def _sizes(spec: ModelSpec, images: Sequence[np.ndarray]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Three sizes, two of them odd, each with the number of the first image that is used."""
    height, width = spec.input_size or USUAL
    for number, size in enumerate(((height, width), (height + 37 | 1, max(width // 2, 128) + 1 | 1), (161, 131))):
        yield number * BATCH % max(len(images) - BATCH + 1, 1), size


@torch.inference_mode()
def _compared(exported: Exported, model: FCN, images: Sequence[np.ndarray], size: tuple[int, int]) -> Compared:
    batch = torch.from_numpy(np.stack([resize_image(image, size).transpose(2, 0, 1) for image in images]))
    expected, found = model.logits(batch.to(model.device)).float().cpu(), exported.logits(batch)
    agreement = float((expected.argmax(1) == found.argmax(1)).double().mean())
    if exported.gives == "mask":
        return Compared(size, agreement, None)
    return Compared(size, agreement, float((found - expected).abs().max() / expected.abs().max()))


def stand_ins(spec: ModelSpec) -> list[np.ndarray]:
    """Images where there is no data set: street scenes, or shades of them in other types and channels."""
    scenes = CityScenes(4, 5, "real", size=spec.input_size or USUAL)
    images = [scenes[number][0] for number in range(4)]
    if (spec.in_channels, spec.image_type) == (3, "uint8"):
        return images
    mean, std = np.array(spec.mean), np.array(spec.std)
    shades = [np.resize(image.mean(axis=2, keepdims=True) / 64 - 2, (*image.shape[:2], 1)) for image in images]
    low, high = {"uint8": (0, 255), "uint16": (0, 65535)}.get(spec.image_type, (-np.inf, np.inf))
    return [(mean + std * shade).clip(low, high).astype(spec.image_type) for shade in shades]


def name_of_refused(output: Path) -> Path:
    """Where a file goes that does not hold."""
    return output.with_name(f"{output.stem}.refused{output.suffix}")
