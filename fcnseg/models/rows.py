"""An image of any height through a network, a few rows at a time: every row is computed once.

Each convolution and pooling keeps the last rows that its kernel will need again, and computes a row as soon as it has
all that the row sees. So nothing is computed twice, and memory grows with an image's width alone, but for the scores,
which are kept: (classes, H / stride, W / stride) for each tap. Logits are those of the whole image.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import Layer, path_size
from fcnseg.models.backbones import Chain
from fcnseg.models.fcn import FCN
from fcnseg.models.product import LowRankConv2d

Allocate = Callable[[str, tuple[int, ...]], Tensor]
"""Makes a tensor of such a name and shape, in memory or in a file."""

_WINDOWS = (nn.Conv2d, nn.MaxPool2d)
_ROW_BY_ROW = (nn.ReLU, nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Identity)


def streams(model: FCN) -> bool:
    """Whether `RowStream` can compute a network: a chain of layers that see rows above and below, or only their own."""
    if not isinstance(model.backbone, Chain):
        return False
    return all(isinstance(layer, (*_WINDOWS, *_ROW_BY_ROW)) for layer in model.backbone.children())


class RowStream:
    """The scores of one image, whose rows come from above to below, in strips of any heights.

    Args:
        model: a network in evaluation mode that `streams`.
        size: (height, width) of the image in pixels.
        allocate: where the scores are kept; in memory by default.

    Attributes:
        rows: how many rows of the image have been taken.
        scores: (1, num_classes, h, w) each, coarse to fine, complete once all rows have been taken.

    Raises:
        InputError: for a network that does not stream.
    """

    def __init__(self, model: FCN, size: tuple[int, int], allocate: Allocate | None = None) -> None:
        if not streams(model):
            raise InputError(f"{model.spec.name}: is no chain of layers; its images are computed whole or in tiles")
        self.model, self.size = model, size
        self.rows = 0
        self._covered = model.covered_size(size)
        self._steps = {layer.name: _Step(module, layer, height) for module, layer, height in self._windows()}
        self._filled: dict[str, int] = {}
        sizes = ([path_size(path, n) for n in self._covered] for path in model.paths)
        allocate = allocate or (lambda name, shape: torch.empty(shape))
        self.scores = [
            allocate(name, (1, model.spec.num_classes, *shape))
            for name, shape in zip(self._names(), sizes, strict=True)
        ]

    @property
    def bytes_per_row(self) -> int:
        """Memory that a row of the image takes while it is computed, at most: a layer's input, its copy, and output."""
        most, width = 0.0, self._covered[1]
        rows = 1.0
        for step in self._steps.values():
            convolutions = [each for each in step.module.modules() if isinstance(each, nn.Conv2d)]
            taken = rows * width
            rows, width = rows / step.layer.stride, step.layer.output_size(width)
            for convolution in convolutions:
                given = rows * width * convolution.out_channels
                most = max(most, 2 * taken * convolution.in_channels + given)
                taken = rows * width
        return int(most * self.model.mean.element_size())

    def _names(self) -> list[str]:
        return ["score_fr", *(f"score_{fusion.tap}" for fusion in self.model.fusions[:-1])]

    def _windows(self) -> Iterator[tuple[nn.Module, Layer, int]]:
        """The layers that see several rows, with the height of what they see."""
        height = self._covered[0]
        for layer in self.model.paths[0]:
            home = self.model if layer.name in ("fc6", "fc7") else self.model.backbone
            yield home.get_submodule(layer.name), layer, height
            height = layer.output_size(height)

    @torch.inference_mode()
    def push(self, rows: Tensor) -> None:
        """Take the next (1, C, h, W) rows of the image, in the values of its file, on the model's device.

        Raises:
            InputError: for rows of another width, or more of them than are left.
        """
        (height, width), left = rows.shape[-2:], self.size[0] - self.rows
        if width != self.size[1] or height > left:
            raise InputError(f"rows are {height}x{width}; expected at most {left}x{self.size[1]} (HxW)")
        self.rows += height
        x = self.model.normalise(rows)
        beyond = (self._covered[1] - width, self._covered[0] - self.size[0] if self.rows == self.size[0] else 0)
        if any(beyond):
            x = F.pad(x, (0, beyond[0], 0, beyond[1]))
        with self.model.in_precision(x.device.type):
            self._through(x)

    def _through(self, x: Tensor | None) -> None:
        model = self.model
        for name, layer in model.backbone.named_children():
            x = self._steps[name](x) if name in self._steps else None if x is None else layer(x)
            if name == model.backbone.taps[-1]:
                break
            self._keep(f"score_{name}", name, x)
        x = self._steps["fc6"](x)
        x = self._steps["fc7"](None if x is None else F.relu(x, inplace=True))
        if x is not None:
            self._write("score_fr", model.score_fr(F.relu(x, inplace=True)))

    def _keep(self, name: str, tap: str, x: Tensor | None) -> None:
        fusion = next((fusion for fusion in self.model.fusions if fusion.tap == tap), None)
        if fusion is not None and x is not None:
            self._write(name, self.model.score_tap(fusion, x))

    def _write(self, name: str, x: Tensor) -> None:
        first = self._filled.get(name, 0)
        self._filled[name] = first + x.shape[-2]
        self.scores[self._names().index(name)][..., first : self._filled[name], :] = x

    def logits(self, start: int, stop: int) -> Tensor:
        """(1, num_classes, stop - start, W) float32 logits of rows of the image, once all rows have been taken."""
        with torch.inference_mode():
            return self.model.combine_part(self.scores, (start, 0), (stop - start, self.size[1]))

    def state(self) -> dict[str, Any]:
        """What, beside the scores, it takes to go on later: plain values and tensors."""
        return {
            "rows": self.rows,
            "filled": dict(self._filled),
            "steps": {name: step.state() for name, step in self._steps.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, of a stream of the same model and size."""
        self.rows, self._filled = int(state["rows"]), dict(state["filled"])
        for name, step in self._steps.items():
            step.restore(state["steps"][name], self.model.mean.device)


def _padded_along_rows(module: nn.Module, padding: int) -> Any:
    """A layer with the same weights that pads its first and last columns alone."""
    if isinstance(module, LowRankConv2d):
        return nn.Sequential(_padded_along_rows(module.L, padding), module.U)
    changed: Any = copy.copy(module)
    changed.padding = (0, padding)
    return changed


class _Step:
    """A convolution or pooling over rows that come by and by; along the columns it is as it was.

    Args:
        module: the layer.
        layer: its geometry.
        height: of all that it will see.
    """

    def __init__(self, module: nn.Module, layer: Layer, height: int) -> None:
        self.module = _padded_along_rows(module, layer.padding)
        self.layer, self.height, self.total = layer, height, layer.output_size(height)
        self.fill = -torch.inf if isinstance(module, nn.MaxPool2d) else 0.0
        self.held: Tensor | None = None  # rows from `first` on
        self.first, self.taken, self.done = -layer.padding, 0, 0

    def __call__(self, x: Tensor | None) -> Tensor | None:
        """The rows that can be computed with the next (1, C, h, W) rows; None where there is none."""
        if x is None:
            return None
        layer = self.layer
        self.taken += x.shape[-2]
        if self.held is None and layer.padding:
            x = F.pad(x, (0, 0, layer.padding, 0), value=self.fill)
        elif self.held is not None and self.held.shape[-2]:
            x = torch.cat([self.held, x], dim=2)
        ended = self.taken == self.height
        end = self.first + x.shape[-2]
        ready = self.total if ended else min((end + layer.padding - layer.extent) // layer.stride + 1, self.total)
        if ended and (missing := layer.seen(0, self.total)[1] - end) > 0:
            x = F.pad(x, (0, 0, 0, missing), value=self.fill)
        if ready <= self.done:
            self.held = x
            return None
        start, stop = (row - self.first for row in layer.seen(self.done, ready))
        out = self.module(x[..., start:stop, :])
        self._hold(x, ready)
        return out

    def _hold(self, x: Tensor, done: int) -> None:
        """Keep the rows that later ones see, and no more memory than they take."""
        again = self.layer.seen(done, done + 1)[0]
        kept = x[..., max(again - self.first, 0) :, :]
        self.first, self.done = self.first + x.shape[-2] - kept.shape[-2], done
        self.held = kept.clone(memory_format=torch.preserve_format)

    def state(self) -> dict[str, Any]:
        return {"held": None if self.held is None else self.held.cpu(), "counts": [self.first, self.taken, self.done]}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.held = None if state["held"] is None else state["held"].to(device)
        self.first, self.taken, self.done = state["counts"]
