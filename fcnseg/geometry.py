"""The algebra of pixel grids: where each feature sits on the image, and the crops that follow.

Every layer maps coordinates of pixel centres, `out = scale * in + offset`. Maps compose, so the
place of any feature follows from the layers that made it, and so do receptive fields, bilinear
kernels and crop offsets. Fractions keep it exact. The algebra is that of Caffe's coordinate maps
and of the worked example in the discussion of NVIDIA's DIGITS 5 segmentation article.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from math import ceil, floor, lcm
from typing import Any

from fcnseg.errors import InputError

RESIZES = ("keep", "stretch", "native")
"""How images come to the size of a network's input: scaled to fit into it, their aspect ratio kept; scaled to it along
either axis; or not at all."""


class GeometryError(InputError):
    """Layers whose grids do not fit: a fractional or negative crop, or an output of no size."""


@dataclass(frozen=True)
class CoordinateMap:
    """The affine map `out = scale * in + offset` from one grid's pixel centres to another's."""

    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def __call__(self, coordinate: int | Fraction) -> Fraction:
        return self.scale * coordinate + self.offset

    def after(self, first: "CoordinateMap") -> "CoordinateMap":
        """The map that applies `first`, then this one."""
        return CoordinateMap(self.scale * first.scale, self(first.offset))

    def inverse(self) -> "CoordinateMap":
        return CoordinateMap(1 / self.scale, -self.offset / self.scale)


@dataclass(frozen=True)
class Layer:
    """What a convolution, pooling or transposed convolution does to a grid, along one axis.

    Attributes:
        name: the layer's name, for error messages and tables.
        kernel, stride, padding, dilation: in pixels, as torch and Caffe define them.
        transposed: a transposed convolution, which multiplies the grid by `stride`.
        ceil: the output size is rounded up, as Caffe's poolings do.
    """

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    ceil: bool = False

    @property
    def extent(self) -> int:
        """Pixels from the first to the last that the kernel touches."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def map(self) -> CoordinateMap:
        """From input to output coordinates."""
        if self.transposed:
            return CoordinateMap(Fraction(self.stride), Fraction(self.extent - 1, 2) - self.padding)
        return CoordinateMap(Fraction(1, self.stride), (self.padding - Fraction(self.extent - 1, 2)) / self.stride)

    def output_size(self, size: int) -> int:
        """Number of output pixels for `size` input pixels.

        Raises:
            GeometryError: when nothing would be left.
        """
        if self.transposed:
            out = self.stride * (size - 1) + self.extent - 2 * self.padding
        else:
            steps = size + 2 * self.padding - self.extent
            out = (-(-steps // self.stride) if self.ceil else steps // self.stride) + 1
            # A window that starts in the padding behind the image is dropped (Caffe and torch alike).
            if self.ceil and (out - 1) * self.stride >= size + self.padding:
                out -= 1
        if out < 1:
            raise GeometryError(f"{self.name}: nothing is left of {size} pixels (kernel {self.kernel})")
        return out

    def input_size(self, size: int) -> int:
        """The least number of input pixels of which a convolution or pooling leaves `size`; below 1 where any do."""
        if not self.ceil:
            return (size - 1) * self.stride + self.extent - 2 * self.padding
        # One pixel of a window is enough, if the window does not start in the padding behind the image.
        return (size - 1) * self.stride + 1 - self.padding + max(self.extent - self.padding - self.stride, 0)

    def seen(self, start: int, stop: int) -> tuple[int, int]:
        """The input pixels, first and end, that output pixels from `start` on and before `stop` see, also beyond it."""
        if self.transposed:
            first, last = start + self.padding - self.extent + 1, stop - 1 + self.padding
            return -(-first // self.stride), last // self.stride + 1
        return start * self.stride - self.padding, (stop - 1) * self.stride - self.padding + self.extent

    def reached(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """The output pixels, as `seen` has them, that see any of such input pixels, of `size` in all."""
        first = -(-(start + self.padding - self.extent + 1) // self.stride)
        last = (stop - 1 + self.padding) // self.stride
        return max(first, 0), min(last + 1, self.output_size(size))


@dataclass(frozen=True)
class Grid:
    """A feature map's pixel grid, placed on the image.

    Attributes:
        name: the layer that made it.
        map: from image coordinates to coordinates of this grid.
        receptive_field: of one of its pixels, in image pixels.
    """

    name: str
    map: CoordinateMap = CoordinateMap()
    receptive_field: int = 1

    @property
    def stride(self) -> Fraction:
        """Image pixels from one sample to the next."""
        return 1 / self.map.scale

    @property
    def origin(self) -> Fraction:
        """Image coordinate of the centre of sample 0."""
        return self.map.inverse().offset

    def seen(self, start: int, stop: int) -> tuple[int, int]:
        """The image pixels, first and end, that samples from `start` on and before `stop` see, also beyond it."""
        around = Fraction(self.receptive_field - 1, 2)
        first, last = self.origin + start * self.stride - around, self.origin + (stop - 1) * self.stride + around
        return floor(first), ceil(last) + 1

    def then(self, layer: Layer) -> "Grid":
        """The grid of `layer`'s output when this grid is its input."""
        reach = -(-layer.extent // layer.stride) if layer.transposed else layer.extent
        return Grid(layer.name, layer.map.after(self.map), int(self.receptive_field + (reach - 1) * self.stride))


IMAGE = Grid("image")


def trace(layers: Iterable[Layer], start: Grid = IMAGE) -> dict[str, Grid]:
    """The grid after each layer of a chain, by layer name."""
    grids = accumulate(layers, lambda grid, layer: grid.then(layer), initial=start)
    return {grid.name: grid for grid in grids if grid is not start}


def path_grid(path: Iterable[Layer], start: Grid = IMAGE) -> Grid:
    """The grid at the end of a chain of layers."""
    for layer in path:
        start = start.then(layer)
    return start


def path_size(path: Iterable[Layer], size: int) -> int:
    """Number of samples that a chain of layers leaves of `size` pixels.

    Raises:
        GeometryError: when nothing would be left.
    """
    for layer in path:
        size = layer.output_size(size)
    return size


class Covering:
    """Of what sizes an image is seen to its end by several chains of layers.

    Where a stride does not divide the image, layers may drop its last pixels, and small images may leave no sample
    at all. The end is seen when its last pixel lies within half a stride of the last sample, or within a stride
    where samples lie on pixels, as overlapping windows have it.
    """

    def __init__(self, paths: Iterable[Sequence[Layer]]) -> None:
        self._chains = [(path, *_seen_and_stride(path_grid(path))) for path in paths]

    def least_size(self, size: int, largest: Callable[[int, int], int] = max) -> int:
        """The least size that is `size` or more.

        Args:
            largest: of two sizes; `torch.sym_max` where they are a tracer's.
        """
        covering = size
        for path, seen, stride, unit in self._chains:
            # Divided in a way that rounds alike towards zero, as ONNX does, and down, as Python.
            samples = largest(1, 1 + (size * unit - seen + stride - 1) // stride)
            for layer in reversed(path):
                samples = largest(1, layer.input_size(samples))
            covering = largest(covering, samples)
        return covering


def _seen_and_stride(grid: Grid) -> tuple[int, int, int]:
    """The pixels that a grid's first sample sees and those from one to the next, in such parts of a pixel."""
    seen = grid.origin + 1 + (grid.stride / 2 if grid.origin.denominator == 2 else grid.stride)
    unit = lcm(seen.denominator, grid.stride.denominator)
    return int(seen * unit), int(grid.stride * unit), unit


def upsampling(name: str, coarse: Grid, fine: Grid) -> Layer:
    """The bilinear transposed convolution that takes `coarse` to the stride of `fine`.

    Its kernel is 2s for a factor s where coarse centres fall between fine ones (block-centred), and
    2s - 1 where they fall on them (pixel-centred): only then are the output's centres on the fine grid.

    Raises:
        GeometryError: when the strides are no multiples, or the grids cannot be brought together.
    """
    factor = coarse.stride / fine.stride
    if factor.denominator != 1:
        raise GeometryError(
            f"{name}: stride {coarse.stride} of {coarse.name} is no multiple of {fine.stride} of {fine.name}"
        )
    centre = fine.map(coarse.origin)
    for kernel in (2 * int(factor), 2 * int(factor) - 1):
        if (centre - Fraction(kernel - 1, 2)).denominator == 1:
            return Layer(name, kernel, int(factor), transposed=True)
    raise GeometryError(
        f"{name}: the centres of {coarse.name} lie at fraction {centre % 1} of the pixels of {fine.name}"
    )


def aligned_upsampling(name: str, coarse: Grid, fine: Grid) -> Layer:
    """`upsampling` with the padding that cuts its output to begin at pixel 0 of `fine`.

    Raises:
        GeometryError: where `fine` begins more than a stride before the first sample of `coarse`, as well.
    """
    layer = upsampling(name, coarse, fine)
    padding = Fraction(layer.kernel - 1, 2) - fine.map(coarse.origin)
    if padding < 0:
        raise GeometryError(
            f"crop of {name} from {coarse.name} to {fine.name} is negative: {padding} pixels; "
            f"the first sample of {coarse.name} lies {coarse.origin - fine.origin} pixels behind that of {fine.name}"
        )
    return replace(layer, padding=int(padding))


def crop_offset(source: Grid, reference: Grid) -> int:
    """Pixels to cut from the start of `source` so that its pixel 0 lies on pixel 0 of `reference`.

    Raises:
        GeometryError: when the strides differ, or the crop is fractional or negative.
    """
    if source.stride != reference.stride:
        raise GeometryError(
            f"crop of {source.name} (stride {source.stride}) to {reference.name} (stride {reference.stride}): "
            "strides differ"
        )
    offset = source.map.offset - reference.map.offset
    if offset.denominator != 1 or offset < 0:
        kind = "fractional" if offset.denominator != 1 else "negative"
        raise GeometryError(f"crop of {source.name} to {reference.name} is {kind}: {offset} pixels")
    return int(offset)


def shown_size(size: tuple[int, int], frame: Sequence[int] | None, resize: str) -> tuple[int, int]:
    """The (height, width) at which a network that sees `frame` = (height, width) is shown an image of `size`.

    With "keep" that is less than `frame` along one axis, where their aspect ratios differ; the rest is padding.

    Args:
        size: of the image.
        frame: of the network's input; None: it takes images of any size.
        resize: one of `RESIZES`.
    """
    if frame is None or resize == "native":
        return size
    if resize == "stretch":
        return frame[0], frame[1]
    (height, width), (rows, columns) = size, frame
    if rows * width <= columns * height:  # in whole numbers, so that equal ratios give the frame itself
        return rows, max((2 * width * rows + height) // (2 * height), 1)
    return max((2 * height * columns + width) // (2 * width), 1), columns


def require_size(size: Any, key: str = "size") -> None:
    """
    Raises:
        InputError: for anything but two whole numbers above 0.
    """
    sides = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else []
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"{key}={sides or size}: expected [height, width] in pixels")


def require_resize(resize: str, key: str = "resize", choices: Sequence[str] = RESIZES) -> None:
    """
    Raises:
        InputError: for another name than those of `choices`.
    """
    if resize not in choices:
        raise InputError(f"{key}={resize}: expected one of {', '.join(choices)}")
