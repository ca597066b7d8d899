"""A network's geometry as a table: every layer with its place, size and cost, and where each crop comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fcnseg.errors import InputError
from fcnseg.geometry import IMAGE, Grid, Layer, path_size
from fcnseg.models.fcn import FCN
from fcnseg.models.tracing import trace_network


@dataclass(frozen=True)
class Row:
    """One layer at one input size.

    Attributes:
        layer: kernel, stride, padding.
        size: (height, width) of the output.
        channels: of the output.
        grid: of the output, on the image.
        receptive_field: in image pixels; None after an upsampling, where it differs from pixel to pixel.
        parameters, multiply_adds: of the layer, the latter for one image.
    """

    layer: Layer
    size: tuple[int, int]
    channels: int
    grid: Grid
    receptive_field: int | None
    parameters: int
    multiply_adds: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer.name,
            "kernel": self.layer.kernel,
            "stride": self.layer.stride,
            "padding": self.layer.padding,
            "channels": self.channels,
            "size": list(self.size),
            "scale": str(self.grid.map.scale),
            "offset": float(self.grid.map.offset),
            "receptive_field": self.receptive_field,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
        }


@dataclass(frozen=True)
class Summary:
    """A network at one input size.

    Attributes:
        name, padding: of the model.
        input_size: (height, width) of the image.
        padded_size: what it is padded to at its end, with "same" padding, so that no pixel is left out.
        rows: every convolution, pooling and upsampling, in order.
        crops: for each alignment, what is cut, by how many pixels, and the sum that gives it.
        parameters: of the whole model, normalisation layers included.
    """

    name: str
    padding: str
    input_size: tuple[int, int]
    padded_size: tuple[int, int]
    rows: tuple[Row, ...]
    crops: tuple[tuple[str, int, str], ...]
    parameters: int

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(row.multiply_adds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON. Scales are fractions as text, offsets are in pixels of the layer's output."""
        return {
            "model": self.name,
            "padding": self.padding,
            "input_size": list(self.input_size),
            "padded_size": list(self.padded_size),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [row.to_dict() for row in self.rows],
            "crops": [{"layer": name, "pixels": pixels, "because": why} for name, pixels, why in self.crops],
        }


def summarise(model: FCN, size: tuple[int, int] = (224, 224)) -> Summary:
    """The geometry and cost of a model for images of `size` = (height, width). Nothing is computed on pixels.

    Raises:
        InputError: for a size that is not positive.
    """
    if min(size) < 1:
        raise InputError(f"input_size={list(size)}: expected a height and a width in pixels")
    padded = model.covered_size(size)
    traced = trace_network(model.backbone, model.spec.in_channels, padded)
    rows = [
        Row(r.layer, r.size, r.channels, r.grid, r.grid.receptive_field, r.parameters, r.multiply_adds)
        for r in traced.layers
    ]
    taps = {
        tap: (path_size(place.path, padded[0]), path_size(place.path, padded[1]))
        for tap, place in traced.outputs.items()
    }
    rows += _head(model, taps, size)
    return Summary(
        name=model.spec.name,
        padding=model.spec.padding,
        input_size=size,
        padded_size=padded,
        rows=tuple(rows),
        crops=tuple(_crops(model)),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _head(model: FCN, taps: dict[str, tuple[int, int]], image: tuple[int, int]) -> Iterator[Row]:
    """The rows of fc6, fc7, the score layers and the upsamplings."""
    trunk = model.backbone.taps[-1]
    grid, size = model.grids()[trunk], taps[trunk]
    fc6 = ("fc6.L", "fc6.U") if model.spec.fc6_rank else ("fc6",)
    for name in (*fc6, "fc7", "score_fr"):
        row = _convolution(model, name, grid, size)
        grid, size = row.grid, row.size
        yield row
    caffe = model.spec.padding == "caffe"
    for fusion in model.fusions:
        grid = grid.then(fusion.layer)
        fine = taps[fusion.tap] if fusion.tap else image
        channels, kernel = model.spec.num_classes, fusion.layer.kernel
        if caffe:
            cost = channels * kernel**2 * size[0] * size[1]
            size = (fusion.layer.output_size(size[0]), fusion.layer.output_size(size[1]))
        else:
            cost, size = channels * 4 * fine[0] * fine[1], fine
        yield Row(fusion.layer, size, channels, grid, None, 0, cost)
        if fusion.tap:
            yield _convolution(model, f"score_{fusion.tap}", model.grids()[fusion.tap], fine)


def _convolution(model: FCN, name: str, grid: Grid, size: tuple[int, int]) -> Row:
    """The row of one of the head's convolutions, over a map of `size` on `grid`."""
    module: Any = model.get_submodule(name)
    layer = Layer(name, module.kernel_size[0], padding=module.padding[0])
    grid, out = grid.then(layer), (layer.output_size(size[0]), layer.output_size(size[1]))
    weights = module.weight.numel()
    parameters = weights + (0 if module.bias is None else module.bias.numel())
    return Row(layer, out, module.out_channels, grid, grid.receptive_field, parameters, weights * out[0] * out[1])


def _crops(model: FCN) -> Iterator[tuple[str, int, str]]:
    """What is cut at each fusion: the layer, the pixels, and the sum that gives them."""
    coarse = model.grids()["fc7"]
    for fusion in model.fusions:
        fine = model.grids()[fusion.tap] if fusion.tap else IMAGE
        up = coarse.then(fusion.layer)
        if model.spec.padding == "same":
            middle, place = float(Fraction(fusion.layer.kernel - 1, 2)), float(fine.map(coarse.origin))
            why = f"half its kernel, {middle:g}, less the place of its first sample on {fine.name}, {place:g}"
            yield fusion.layer.name, fusion.layer.padding, why
            coarse = fine
        else:
            cut, kept = (fine, up) if fusion.tap else (up, fine)
            cut_name = f"score_{fusion.tap}" if fusion.tap else fusion.layer.name
            why = (
                f"offset of {cut.name}, {float(cut.map.offset):g}, less that of {kept.name}, {float(kept.map.offset):g}"
            )
            yield cut_name, fusion.crop, why
            coarse = up
