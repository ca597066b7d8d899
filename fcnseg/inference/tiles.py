"""Images in overlapping tiles, for any network: exact where the overlap is all that a pixel sees, or blended.

`fcnseg.models.rows` gives the same scores sooner, but for chains of layers in PyTorch alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.inference.network import Network
from fcnseg.inference.scale import Scale
from fcnseg.models import resample

Rows = Callable[[int, int], np.ndarray]
"""Gives the (stop - start, W, C) rows from `start` on and before `stop` of an image."""

Part = tuple[int, int, Tensor]
"""Row and column of the image, and the (1, classes, h, w) logits from there on."""

STEP = 32
"""What tiles begin at multiples of where a network does not tell."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
        start, stop: its pixels in the image.
        first, end: those that it gives logits for.
    """

    start: int
    stop: int
    first: int
    end: int

    def weights(self, length: int, blend: int) -> Tensor:
        """(stop - start,) shares of the tile in what it overlaps: ramps over `blend` pixels, but not at the edges."""
        pixels = torch.arange(self.start, self.stop) + 0.5
        up = (pixels - self.start) / blend if self.start else torch.ones(len(pixels))
        down = (self.stop - pixels) / blend if self.stop < length else torch.ones(len(pixels))
        return torch.minimum(up, down).clamp(max=1)


def spans(length: int, tile: int, step: int, before: int, after: int) -> Iterator[Span]:
    """Tiles along an axis of `length` pixels; `step`, `before` and `after` are as in `FCN.tiling`."""
    first = 0
    while first < length:
        start = max(first - before, 0) // step * step
        stop = min(start + tile, length)
        end = length if stop == length else stop - after
        yield Span(start, stop, first, end)
        first = end


@dataclass(frozen=True)
class Tiles:
    """Computes an image in tiles, from above to below.

    Attributes:
        network: what gives logits of a batch of tiles.
        size: (height, width) of the image.
        tile: greatest side of a tile, in pixels.
        overlap: None: as much as makes the logits those of the whole image; or pixels by which neighbours overlap, at
            least, and within which their logits fade into each other's.
        batch: how many tiles of a size are computed at once.

    Raises:
        InputError: where the network averages over the whole image and no overlap is given, or tiles are too small.
    """

    network: Network
    size: tuple[int, int]
    tile: int
    overlap: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.overlap is None and self.network.tiling() is None:
            name = self.network.spec.name
            raise InputError(f"{name}: averages over the whole image, so that no tiles are exact; expected overlap=N")
        step, before, after = self.geometry
        least = -(-(before + after + 2 * step) // step) * step
        if self.tile < min(least, max(self.size)):
            raise InputError(f"tile={self.tile}: expected at least {least} pixels for this network and overlap")

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Step, before and after, as in `FCN.tiling`."""
        exact = self.network.tiling()
        step = exact["step"] if exact else STEP
        if self.overlap is not None:
            return step, self.overlap, 0
        assert exact is not None
        return step, exact["before"], exact["after"]

    def axes(self) -> tuple[list[Span], list[Span]]:
        """The tiles' rows and columns."""
        rows, columns = (list(spans(n, self.tile, *self.geometry)) for n in self.size)
        return rows, columns

    @property
    def computed(self) -> float:
        """Pixels that are computed for each of the image's."""
        rows, columns = (
            sum(s.stop - s.start for s in axis) / n for axis, n in zip(self.axes(), self.size, strict=True)
        )
        return rows * columns

    def parts(self, image: Rows, done: int = 0) -> Iterator[Part]:
        """Logits of parts that cover the image, each pixel once.

        Args:
            image: its rows, in the values that the network takes.
            done: rows at its beginning that are not needed; parts end there.
        """
        rows, columns = self.axes()
        if self.overlap is None:
            for span in (row for row in rows if row.first >= done):
                for column, logits in self._band(image, span, columns):
                    top, left = span.first - span.start, column.first - column.start
                    inner = logits[..., top : span.end - span.start, left : column.end - column.start]
                    yield span.first, column.first, inner
        else:
            first = max((i for i, row in enumerate(rows) if row.start < done), default=0)
            yield from (part for part in self._blended(image, rows[first:], columns) if part[0] >= done)

    def _band(self, image: Rows, row: Span, columns: list[Span]) -> Iterator[tuple[Span, Tensor]]:
        """The tiles of one row, in batches."""
        band = image(row.start, row.stop)
        for _, group in groupby(enumerate(columns), lambda each: (each[0] // self.batch, each[1].stop - each[1].start)):
            some = [column for _, column in group]
            tiles = np.stack([band[:, column.start : column.stop].transpose(2, 0, 1) for column in some])
            with torch.inference_mode():
                logits = self.network.logits(torch.from_numpy(tiles).to(self.network.device))
            yield from zip(some, logits.split(1), strict=True)

    def _blended(self, image: Rows, rows: list[Span], columns: list[Span]) -> Iterator[Part]:
        """Sums of tiles under their weights, in bands as wide as the image."""
        height, width = self.size
        blend = max(self.overlap or 0, 1)
        # Where it begins with a row of tiles below another, what that one gives is not known, nor asked for.
        total, weights = torch.zeros(1, self.network.spec.num_classes, 0, width), torch.zeros(0, width)
        for row, below in zip(rows, [*rows[1:], None], strict=True):
            missing = row.stop - row.start - total.shape[-2]
            total = torch.cat([total, total.new_zeros(*total.shape[:2], missing, width)], dim=2)
            weights = torch.cat([weights, weights.new_zeros(missing, width)])
            for column, logits in self._band(image, row, columns):
                place = slice(column.start, column.stop)
                share = row.weights(height, blend)[:, None] * column.weights(width, blend)
                total[..., place] += logits.cpu() * share
                weights[:, place] += share
            done = (height if below is None else below.start) - row.start
            yield row.start, 0, total[..., :done, :] / weights[:done]
            total, weights = total[..., done:, :].clone(), weights[done:].clone()


class Rescaled:
    """A network that sees images at a multiple of their size, and gives logits at their own.

    Args:
        network: what sees them.
        scale: with a factor.
    """

    def __init__(self, network: Network, scale: Scale) -> None:
        self.network, self.scale, self.spec = network, scale, network.spec

    @property
    def device(self) -> torch.device:
        return self.network.device

    def tiling(self) -> dict[str, int] | None:
        """As `FCN.tiling`, with a pixel more that is seen where images and logits are interpolated."""
        exact, factor = self.network.tiling(), self.scale.factor
        if exact is None or factor is None:
            return exact
        margin = {side: -(-(exact[side] + 2) // factor) + factor.denominator for side in ("before", "after")}
        return {"step": exact["step"] * factor.denominator, **margin}

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in file values to (N, num_classes, H, W) logits."""
        size = images.shape[-2], images.shape[-1]
        seen = [self.scale.applied(image.permute(1, 2, 0).cpu().numpy(), None).transpose(2, 0, 1) for image in images]
        logits = self.network.logits(torch.from_numpy(np.stack(seen)).to(self.device))
        return resample(logits, self.scale.covered(size))[..., : size[0], : size[1]]
