"""OpenVINO's .xml and .bin."""

from typing import Any

from torch import Tensor, from_numpy

from fcnseg.inference.exported.network import KEY, Exported, need, parse_facts, to_numpy

PRECISIONS = {"bf16-mixed": "bf16", "16-mixed": "f16"}
"""What OpenVINO calls them; f32 for others, which a processor with AMX would not choose by itself."""


class OpenVinoNetwork(Exported):
    """A .xml with its .bin beside it."""

    def _open(self) -> str | None:
        openvino = need("openvino", self.path)
        core = openvino.Core()
        model = core.read_model(self.path)
        if not model.has_rt_info([KEY]):
            return None
        text = str(model.get_rt_info([KEY]).value)
        precision = PRECISIONS.get(str(parse_facts(self.path, text)["precision"]), "f32")
        self._compiled: Any = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return text

    def run(self, images: Tensor) -> Tensor:
        return from_numpy(self._compiled([to_numpy(images)])[0].copy())
