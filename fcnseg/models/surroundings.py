"""What a padded trunk makes of nothing: computed once for a size, and read wherever an image does not reach.

Padded by 100, a trunk computes more beyond an image than within it: 558x678 samples for 360x480 pixels. Where no layer
has seen the image yet, they are those of an image of zeros, and the same for every image. So each layer is computed
over the window that the image reaches, with a margin of stored samples around it. Scores are those of the whole.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.geometry import Layer

SIZES = 4
"""Of how many sizes of images the surroundings are kept."""

LIMIT = 2**30
"""Bytes that they may take together; a size whose own take more is computed plainly."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Step:
    """One convolution or pooling over a window.

    Attributes:
        name: of the layer in the trunk.
        shape: (height, width) of the window with its margin.
        inner: where in it the window is that the layer before has computed.
        margin: the samples around that, (1, C, h, w) each, and where they are.
        beyond: what the window reaches beyond the map, as `torch.nn.functional.pad` has it.
    """

    name: str
    shape: tuple[int, int]
    inner: Window
    margin: tuple[tuple[Window, Tensor], ...]
    beyond: tuple[int, int, int, int]


@dataclass(frozen=True)
class Surrounding:
    """A trunk's response to an image of zeros, as far as one of the same size needs it.

    Attributes:
        state: of the weights that it was computed with.
        steps: by name of the layer.
        taps: (1, C, h, w) whole maps, and the window in each that an image reaches.
    """

    state: tuple[Any, ...]
    steps: dict[str, Step]
    taps: dict[str, tuple[Tensor, Window]]

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        margins = (samples for step in self.steps.values() for _, samples in step.margin)
        return sum(tensor.nbytes for tensor in (*margins, *(whole for whole, _ in self.taps.values())))


class Surroundings:
    """The surroundings of the sizes that a network has last seen.

    Args:
        layers: geometry of the trunk's convolutions and poolings, by name.
        taps: names of the maps that are its outputs.
    """

    def __init__(self, layers: Mapping[str, Layer], taps: tuple[str, ...]) -> None:
        self.layers, self.taps = dict(layers), taps
        self._kept: OrderedDict[Any, Surrounding | None] = OrderedDict()  # None: too large to be kept

    def __reduce__(self) -> tuple[Any, ...]:
        return Surroundings, (self.layers, self.taps)  # a copy of the network starts without them

    def forget(self) -> None:
        """Keep none of them: the weights may be about to change."""
        self._kept.clear()

    def __call__(self, trunk: nn.Module, images: Tensor) -> dict[str, Tensor] | None:
        """The taps of (N, C, H, W) images; None where the plain computation has to do.

        That is for gradients, statistics of a batch and tracers, and where memory is too little. Changed weights are
        noticed by the versions of their tensors, but not where `.data` was written to.
        """
        if torch.is_grad_enabled() or trunk.training or _traced(images) or (state := _state(trunk)) is None:
            return None
        key = (images.shape[1:], images.device, images.dtype, *_autocast(images.device.type))
        if key not in self._kept or ((kept := self._kept[key]) and kept.state != state):
            try:
                self._kept[key] = self._compute(trunk, images[:1], state)
            except (RuntimeError, MemoryError):  # too little memory; if it is anything else, the plain run says so too
                return None
        self._kept.move_to_end(key)
        self._forget_old()
        surrounding = self._kept[key]
        return None if surrounding is None else _respond(trunk, images, surrounding)

    def _forget_old(self) -> None:
        """Keep what was last used, within the limits."""
        newest = next(reversed(self._kept))
        if (last := self._kept[newest]) and last.nbytes > LIMIT:
            self._kept[newest] = None
        while len(self._kept) > SIZES or sum(each.nbytes for each in self._kept.values() if each) > LIMIT:
            self._kept.popitem(last=False)

    def _compute(self, trunk: nn.Module, image: Tensor, state: tuple[Any, ...]) -> Surrounding:
        """One run of the trunk over zeros, of which the margins and the taps are kept."""
        steps, taps = {}, {}
        x = torch.zeros_like(image)
        window = (slice(0, x.shape[-2]), slice(0, x.shape[-1]))
        for name, module in trunk.named_children():
            if (layer := self.layers.get(name)) is not None:
                steps[name], window = _step(layer, x, window)
            x = module(x)
            if name in self.taps:
                taps[name] = (x.clone(), window)
        return Surrounding(state, steps, taps)


def _step(layer: Layer, x: Tensor, window: Window) -> tuple[Step, Window]:
    """The step of a layer over (1, C, h, w) surroundings, and the window that the image reaches behind it."""
    size = x.shape[-2:]
    reached = [layer.reached(part.start, part.stop, n) for part, n in zip(window, size, strict=True)]
    wanted = [layer.seen(*part) for part in reached]
    rows, columns = (slice(max(first, 0), min(end, n)) for (first, end), n in zip(wanted, size, strict=True))
    (top, bottom), (left, right) = wanted
    beyond = (max(-left, 0), max(right - size[1], 0), max(-top, 0), max(bottom - size[0], 0))
    if layer.ceil:
        beyond = (beyond[0], 0, beyond[2], 0)  # what a pooling rounds up for is no padding
    inner = tuple(slice(w.start - p.start, w.stop - p.start) for w, p in zip(window, (rows, columns), strict=True))
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    around = x[..., rows, columns]
    margin = tuple((part, around[..., *part].clone()) for part in _margin(shape, *inner))
    step = Step(layer.name, shape, (inner[0], inner[1]), margin, beyond)
    return step, (slice(*reached[0]), slice(*reached[1]))


def _margin(shape: tuple[int, int], rows: slice, columns: slice) -> Iterator[Window]:
    """What is left of (height, width) = `shape` around the rows and columns: above, below, left and right."""
    parts = (
        (slice(0, rows.start), slice(0, shape[1])),
        (slice(rows.stop, shape[0]), slice(0, shape[1])),
        (rows, slice(0, columns.start)),
        (rows, slice(columns.stop, shape[1])),
    )
    return (part for part in parts if all(side.stop > side.start for side in part))


def _respond(trunk: nn.Module, images: Tensor, surrounding: Surrounding) -> dict[str, Tensor]:
    x, taps = images, {}
    for name, module in trunk.named_children():
        step = surrounding.steps.get(name)
        x = module(x) if step is None else _carried_out(step, module, x)
        if name in surrounding.taps:
            whole, window = surrounding.taps[name]
            taps[name] = _like(x, whole.shape[-2:])
            taps[name].copy_(whole)
            taps[name][..., *window] = x
    return taps


def _carried_out(step: Step, module: nn.Module, x: Tensor) -> Tensor:
    if step.margin:
        whole = _like(x, step.shape)
        whole[..., *step.inner] = x
        for place, samples in step.margin:
            whole[..., *place] = samples
        x = whole
    if isinstance(module, nn.Conv2d):
        left, right, top, bottom = step.beyond
        padding = (top, left)
        if (left, top) != (right, bottom):
            x, padding = F.pad(x, step.beyond), (0, 0)
        return F.conv2d(x, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)
    assert isinstance(module, nn.MaxPool2d)
    if any(step.beyond):
        x = F.pad(x, step.beyond, value=-torch.inf)
    return F.max_pool2d(x, module.kernel_size, module.stride, 0, module.dilation, module.ceil_mode)


def _like(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Without values, of another height and width, in the same layout of memory."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=layout)


def _state(trunk: nn.Module) -> tuple[Any, ...] | None:
    """What changes whenever the weights do; None where torch does not tell."""
    tensors = [*trunk.parameters(), *trunk.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _traced(images: Tensor) -> bool:
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.overrides._get_current_function_mode()
    return bool(tracing) or type(images) is not Tensor or images.device.type == "meta"
