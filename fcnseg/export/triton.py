"""A model repository for NVIDIA's Triton Inference Server, around an ONNX file."""

from pathlib import Path
from typing import Any

from fcnseg.inference.exported.network import need

TYPES = {1: "TYPE_FP32", 7: "TYPE_INT64"}
"""ONNX's numbers of element types, as Triton calls them."""


def config_text(model: Path, name: str) -> str:
    """The config.pbtxt of an ONNX file, from its own signature; its first axis is that of the batch.

    Sizes are open, so that requests are put together by Triton only where they are equal.
    """
    graph = need("onnx").load(model, load_external_data=False).graph
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', "max_batch_size: 16", "dynamic_batching { }"]
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            lines.append(f"{kind} [ {{ {_signature(value)} }} ]")
    return "\n".join(lines) + "\n"


def _signature(value: Any) -> str:
    tensor = value.type.tensor_type
    sizes = ", ".join(str(axis.dim_value or -1) for axis in tensor.shape.dim[1:])
    return f'name: "{value.name}" data_type: {TYPES[tensor.elem_type]} dims: [ {sizes} ]'
