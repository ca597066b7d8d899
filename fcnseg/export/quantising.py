"""Fewer bits after training: int8 by NNCF and onnxruntime, calibrated on images, and 16 bits of ONNX files."""

from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.inference.exported.network import IMAGES, need


def half_onnx(path: Path) -> None:
    """Weights and what is computed in float16; input and output stay float32, and so does what needs its range."""
    onnx, tools = need("onnx"), need("onnxruntime.transformers.float16")
    content = tools.convert_float_to_float16(onnx.load(path), keep_io_types=True, disable_shape_infer=True)
    onnx.save(content, path)


def int8_onnx(path: Path, images: Iterator[np.ndarray]) -> None:
    """Convolutions with 8-bit weights for each channel, and 8-bit activations between the extremes that were seen.

    Weights use 7 of their bits, without which processors that lack VNNI overflow. Scores stay in float32.
    """
    tools, onnx = need("onnxruntime.quantization"), need("onnx")

    class Reader(tools.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({IMAGES: image} for image in images), None)

    prepared = path.with_name("prepared.onnx")
    tools.shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    scores = [node.name for node in nodes if node.op_type == "Conv" and "score_" in node.input[1]]
    tools.quantize_static(
        prepared,
        path,
        Reader(),
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MaxPool", "Relu"],
        nodes_to_exclude=scores,
        per_channel=True,
        reduce_range=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
    )
    prepared.unlink()


def int8_openvino(model: Any, calibration: Callable[[], Iterator[np.ndarray]]) -> Any:
    """Post-training quantisation of NNCF, with its slower bias correction, by what the layers before have become.

    The fast one, layer by layer, loses a point of mean IoU more on CamVid.
    """
    with redirect_stdout(StringIO()):
        nncf = need("nncf")
        images = list(calibration())
        return nncf.quantize(model, nncf.Dataset(images), subset_size=len(images), fast_bias_correction=False)
