"""The network as one graph, from images in the values of their files to logits or masks, of any number and size."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fcnseg.inference.exported.network import IMAGES
from fcnseg.models import FCN, likeliest

EXAMPLE = (2, 150, 90)
"""Images, rows and columns that the graph is traced with: of more than one coarsest sample each."""


class Graph(nn.Module):
    """What is exported.

    Args:
        model: in evaluation mode.
        normalise: whether it takes images in the values of their files; else normalised ones.
        argmax: whether it gives masks; else logits.
    """

    def __init__(self, model: FCN, normalise: bool, argmax: bool) -> None:
        super().__init__()
        self.model, self.normalise, self.argmax = model, normalise, argmax

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 images to (N, num_classes, H, W) float32 logits or (N, H, W) int64 masks."""
        logits = self.model(self.model.normalise(images) if self.normalise else images)
        return likeliest(logits) if self.argmax else logits


def traced(graph: Graph, size: tuple[int, int] | None = None, number: int | None = None) -> ExportedProgram:
    """The program of images of any height and width, or of one `size` = (height, width); of any number, or of one."""
    images = example(graph, size or EXAMPLE[1:], number or EXAMPLE[0])
    anything = ({} if number else {0: Dim.DYNAMIC}) | ({} if size else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC})
    with torch.no_grad():
        return torch.export.export(graph, (images,), dynamic_shapes={IMAGES: anything} if anything else None)


def example(graph: Graph, size: tuple[int, int], number: int = 1) -> Tensor:
    """(number, C, H, W) images for a graph."""
    return torch.zeros(number, graph.model.spec.in_channels, *size, device=graph.model.device)


def round_down(content: Any) -> None:
    """Write poolings whose size rounds up as poolings of longer padding whose size rounds down, in place.

    They are the same, but runtimes differ in what they make of a single window that reaches beyond its samples.

    Args:
        content: onnx.ModelProto.
    """
    for node in content.graph.node:
        known = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "MaxPool" or "ceil_mode" not in known or not known["ceil_mode"].i:
            continue
        known["ceil_mode"].i = 0
        strides = known["strides"].ints
        pads = known["pads"] if "pads" in known else node.attribute.add(name="pads", type=known["strides"].type)
        begins, ends = pads.ints[: len(strides)], pads.ints[len(strides) :]
        longer = [end + stride - 1 for end, stride in zip(ends or [0] * len(strides), strides, strict=True)]
        pads.ints[:] = [*(begins or [0] * len(strides)), *longer]
