"""Trace the geometry of any network: it runs once without data, and every layer tells where it looks.

Tensors on torch's meta device have shapes and no values, so a run costs milliseconds. Each carries its place:
the grid of its samples on the image. Convolutions and poolings move the grid by what they were really called
with, sums and concatenations demand that their parts lie on the same grid, and a function that is not known
loses it, which is an error only where a tap depends on it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from fcnseg.geometry import IMAGE, GeometryError, Grid, Layer

# Height and width differ in every parity, so that a layer that pads by the size of its input shows.
TRACING_SIZE = (224, 225)


@dataclass(frozen=True)
class GridPlacement:
    """Where a tensor's samples lie.

    Attributes:
        grid: on the image.
        axes: dimensions of the tensor that run over rows and columns.
        path: the layers from the image to here; along the first operand where several meet.
        whole_image: one value for the whole image, such as a squeeze-and-excitation gate.
        lost: why the place is not known; empty where it is.
    """

    grid: Grid = IMAGE
    axes: tuple[int, int] = (2, 3)
    path: tuple[Layer, ...] = ()
    whole_image: bool = False
    lost: str = ""


@dataclass(frozen=True)
class TracedLayer:
    """One convolution, pooling or linear layer over channels, at the size it was read at.

    Attributes:
        layer: kernel, stride, padding and dilation.
        grid: of its output.
        channels: of its output.
        size: (height, width) of its output.
        parameters: weights and biases of a convolution.
        multiply_adds: of a convolution, for one image.
    """

    layer: Layer
    grid: Grid
    channels: int
    size: tuple[int, int]
    parameters: int = 0
    multiply_adds: int = 0


@dataclass(frozen=True)
class Trace:
    """What a network is made of.

    Attributes:
        layers: in the order they ran.
        outputs: their places, by name.
        local: whether a sample depends on nothing beyond its receptive field; not so with gates or normalisations that
            average over the whole image.
    """

    layers: tuple[TracedLayer, ...]
    outputs: dict[str, GridPlacement]
    local: bool = True


def trace_network(network: nn.Module, in_channels: int, size: tuple[int, int] = TRACING_SIZE) -> Trace:
    """Run `network` on an empty image of `size` = (height, width); it returns a mapping of feature maps.

    Raises:
        GeometryError: when an output's place cannot be told, with the reason, or the network does not run.
    """
    # Shapes count alone; in float32, as the image is, whatever the network's precision.
    values = {
        name: t.to("meta", torch.float32 if t.is_floating_point() else t.dtype)
        for name, t in (*network.named_parameters(), *network.named_buffers())
    }
    tracer = _Tracer()
    image = torch.empty(1, in_channels, *size, device="meta")
    tracer.places[id(image)] = GridPlacement()
    with torch.no_grad(), evaluating(network), _names(network, tracer), tracer:
        try:
            outputs: Mapping[str, Tensor] = torch.func.functional_call(network, values, (image,))
        except GeometryError:
            raise
        except Exception as error:  # whatever a foreign network objects to
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise GeometryError(f"the network does not run on {size[0]}x{size[1]} pixels: {reason}") from error
    places = {name: tracer.places[id(tensor)] for name, tensor in outputs.items()}
    for name, place in places.items():
        if place.lost or place.whole_image:
            raise GeometryError(f"{name}: its place on the image cannot be read: {place.lost or 'it has none'}")
    return Trace(tuple(tracer.layers), places, tracer.local)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode; each part is in its own again afterwards."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _names(network: nn.Module, tracer: "_Tracer") -> Iterator[None]:
    """Tell the tracer the name of the module that is running."""
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, _: Any) -> None:
        tracer.module = names.get(module, tracer.module)

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


class _Tracer(TorchFunctionMode):
    """Follows places through the functions that a network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.module = ""
        self.layers: list[TracedLayer] = []
        self.places: dict[int, GridPlacement] = {}
        self.local = True
        self._kept: list[Tensor] = []  # ids stay unique while the tensors live

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm:  # for a result without values torch would import its compiler, for seconds
            out = torch.empty_like(args[0] if args else kwargs["input"])
        else:
            out = function(*args, **kwargs)
        if operands := [a for a in _tensors((*args, *kwargs.values())) if id(a) in self.places]:
            name = getattr(function, "__name__", str(function)).strip("_")
            for part in _tensors((out,)):
                self._kept.append(part)
                self.places[id(part)] = self._follow(name, operands, args, kwargs, part)
        return out

    def _follow(self, name: str, operands: list[Tensor], args: Any, kwargs: Any, out: Tensor) -> GridPlacement:
        places = [self.places[id(a)] for a in operands]
        if lost := next((p for p in places if p.lost), None):
            return lost
        placed = [p for p in places if not p.whole_image]
        if not placed:
            return places[0]
        first = placed[0]
        if name in _LAYERS:
            return self._layer(_LAYERS[name](*args, **kwargs), first, operands[0], out)
        if name in _REDUCTIONS and (out.dim() < 4 or all(out.shape[axis] == 1 for axis in first.axes)):
            self.local = False
            return replace(first, whole_image=True)
        if name in ("group_norm", "instance_norm"):
            self.local = False
        if name == "permute":
            order = [int(d) % out.dim() for d in _flat(args[1:] or kwargs.values())]
            return replace(first, axes=(order.index(first.axes[0]), order.index(first.axes[1])))
        source = next(a for a, p in zip(operands, places, strict=True) if p is first)
        mixes_positions = name == "linear" and out.dim() - 1 in first.axes
        keeps_sizes = all(out.shape[axis] == source.shape[axis] for axis in first.axes)
        if name in _POINTWISE and keeps_sizes and not mixes_positions:
            if name == "linear":
                self._note(Layer(self.module, 1), _conv2d(*_as_1x1(*args, **kwargs)), first, out)
            return self._joined(placed)
        return GridPlacement(lost=f"{name} in {self.module or 'the network'}")

    def _layer(self, call: "_Call", place: GridPlacement, source: Tensor, out: Tensor) -> GridPlacement:
        if any(len(set(pair)) > 1 for pair in (call.kernel, call.stride, call.padding, call.dilation)):
            return GridPlacement(lost=f"{self.module} treats height and width differently ({call})")
        if place.axes != (2, 3):
            return GridPlacement(lost=f"{self.module}: rows and columns are not its last two dimensions")
        layer = Layer(self.module, call.kernel[0], call.stride[0], call.padding[0], call.dilation[0], ceil=call.ceil)
        before, after = tuple(source.shape[2:]), (int(out.shape[2]), int(out.shape[3]))
        if tuple(layer.output_size(n) for n in before) != after:
            return GridPlacement(lost=f"{self.module}: {before} pixels became {after}; {call} would not do that")
        self._note(layer, call, place, out)
        return replace(place, grid=place.grid.then(layer), path=(*place.path, layer))

    def _note(self, layer: Layer, call: "_Call", place: GridPlacement, out: Tensor) -> None:
        """Add a row to the table of layers; `place` is that of its input."""
        size = (int(out.shape[place.axes[0]]), int(out.shape[place.axes[1]]))
        channels = int(out.shape[6 - sum(place.axes)])  # of the axes 0 to 3, the one that is neither batch nor place
        weights = call.weight.numel() if call.weight is not None else 0
        macs = weights * size[0] * size[1]
        self.layers.append(TracedLayer(layer, place.grid.then(layer), channels, size, weights + call.biases, macs))

    def _joined(self, placed: list[GridPlacement]) -> GridPlacement:
        """The place of a sum, product or concatenation."""
        first = placed[0]
        for other in placed[1:]:
            if other.axes != first.axes or other.grid.map != first.grid.map:
                shift = other.grid.origin - first.grid.origin
                return GridPlacement(
                    lost=f"{first.grid.name} and {other.grid.name} meet in {self.module}, {float(shift):g} pixels apart"
                )
        receptive_field = max(p.grid.receptive_field for p in placed)
        return replace(first, grid=replace(first.grid, receptive_field=receptive_field))


@dataclass(frozen=True)
class _Call:
    """What a convolution or pooling was called with, per axis."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False
    weight: Tensor | None = None
    biases: int = 0

    def __str__(self) -> str:
        values = {"kernel": self.kernel, "stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return ", ".join(f"{name} {value[0]}x{value[1]}" for name, value in values.items())


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Call:
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    if padding == "same":  # stride 1 and, in any network that keeps its grid, odd kernels
        padding = tuple(d * (k - 1) // 2 for d, k in zip(_pair(dilation), kernel, strict=True))
    biases = 0 if bias is None else bias.numel()
    pads = (0, 0) if padding == "valid" else _pair(padding)
    return _Call(kernel, _pair(stride), pads, _pair(dilation), weight=weight, biases=biases)


def _as_1x1(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of a linear layer over channels as those of the convolution that it is."""
    return input, weight[:, :, None, None], bias


def _max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Call:
    return _Call(_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation), ceil_mode)


def _avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, *_: Any, **__: Any
) -> _Call:
    return _Call(_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), ceil=ceil_mode)


def _pad(input: Tensor, pad: Any, *_: Any, **__: Any) -> _Call:
    """Equal padding before and after, and along both axes, is a layer of kernel 1; other paddings show as unlike it."""
    left, top = int(pad[0]), int(pad[2]) if len(pad) > 2 else 0
    return _Call((1, 1), (1, 1), (top, left))


_LAYERS: dict[str, Callable[..., _Call]] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "pad": _pad,
}

_REDUCTIONS = frozenset(("mean", "amax", "norm", "adaptive_avg_pool2d", "adaptive_max_pool2d"))

# Functions after which every sample is still where it was; of several operands, all must lie on one grid.
_POINTWISE = frozenset(
    """add add_ iadd radd sub sub_ isub rsub mul mul_ imul rmul div div_ truediv cat concat chunk split getitem
    clone contiguous to type float relu relu_ leaky_relu gelu silu mish elu hardswish hardtanh hardsigmoid relu6
    sigmoid tanh softplus clamp batch_norm layer_norm group_norm instance_norm local_response_norm rms_norm
    dropout dropout2d linear addcmul""".split()  # noqa: SIM905
)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from value
        else:
            yield value


def _pair(value: Any) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (int(values[0]), int(values[-1]))
