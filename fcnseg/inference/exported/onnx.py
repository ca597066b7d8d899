"""ONNX files, run by onnxruntime."""

from typing import Any

from torch import Tensor, from_numpy

from fcnseg.cores import available_cores
from fcnseg.inference.exported.network import IMAGES, KEY, Exported, need, to_numpy


class OnnxNetwork(Exported):
    """A .onnx file."""

    def _open(self) -> str | None:
        runtime = need("onnxruntime", self.path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        options.log_severity_level = 3
        known = runtime.get_available_providers()
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.device.type == "cuda" and "CUDAExecutionProvider" in known:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": self.device.index or 0}))
        self._session = runtime.InferenceSession(str(self.path), options, providers=providers)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        return None if text is None else str(text)

    def run(self, images: Tensor) -> Tensor:
        return from_numpy(self._session.run(None, {IMAGES: to_numpy(images)})[0])
