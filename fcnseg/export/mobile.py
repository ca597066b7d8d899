"""Files for phones and edge devices, of one image of one size: ExecuTorch's and LiteRT's (formerly TensorFlow Lite)."""

import copy
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.functional import max_pool2d, pad

from fcnseg.export.graph import Graph
from fcnseg.inference.exported.mobile import EXTRA
from fcnseg.inference.exported.network import KEY, need


class PaddedPool(nn.Module):
    """A pooling whose size rounds up, as a longer padding and one that rounds down: converters forget the former.

    Args:
        pool: nn.MaxPool2d with ceil_mode.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = pool.kernel_size, pool.stride, pool.padding
        down, right = (pool.stride, pool.stride) if isinstance(pool.stride, int) else pool.stride
        self.more = (0, right - 1, 0, down - 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h', w')."""
        padded = pad(features, self.more, value=float("-inf"))
        return max_pool2d(padded, self.kernel, self.stride, self.padding)


def plainly_laid_out(graph: Graph) -> Graph:
    """A copy as both converters take it: contiguous weights, and no pooling that rounds up."""
    graph = copy.deepcopy(graph)
    for module in graph.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d) and child.ceil_mode:
                setattr(module, name, PaddedPool(child))
    return graph.to(memory_format=torch.contiguous_format)


def write_executorch(program: ExportedProgram, path: Path, facts: str) -> None:
    """With XNNPACK's kernels, and the metadata as a method of its own."""
    exir = need("executorch.exir")
    partitioner = need("executorch.backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner()
    lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner], constant_methods={KEY: facts})
    path.write_bytes(lowered.to_executorch().buffer)


def write_litert(graph: nn.Module, images: Tensor, path: Path, facts: str) -> None:
    """Through litert-torch, with the metadata as an associated file: a ZIP archive behind the model.

    Args:
        graph: what is exported.
        images: an example of what goes in.
        path: .tflite.
        facts: the metadata.
    """
    litert = need("litert_torch")
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        litert.convert(graph, (images,)).export(str(made))
        path.write_bytes(made.read_bytes())
    with ZipFile(path, "a") as archive:
        archive.writestr(EXTRA, facts)
