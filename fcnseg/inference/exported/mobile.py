"""ExecuTorch's .pte and LiteRT's .tflite, both of one image of one size."""

from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from fcnseg.cores import available_cores
from fcnseg.inference.exported.network import KEY, Exported, need, to_numpy

EXTRA = f"{KEY}.json"
"""The metadata's name in the archive behind a .tflite."""


class ExecuTorchNetwork(Exported):
    """A .pte file."""

    def _open(self) -> str | None:
        runtime = need("executorch.runtime", self.path)
        self._program: Any = runtime.Runtime.get().load_program(self.path)
        if KEY not in self._program.method_names:
            return None
        self._forward = self._program.load_method("forward")
        return str(self._program.load_method(KEY).execute(())[0])

    def run(self, images: Tensor) -> Tensor:
        # What comes out lies in the program's own memory, which the next image takes.
        return torch.cat([self._forward.execute((image,))[0].clone() for image in images.split(1)])


class LiteRtNetwork(Exported):
    """A .tflite file."""

    def _open(self) -> str | None:
        interpreter = need("ai_edge_litert.interpreter", self.path).Interpreter
        self._interpreter: Any = interpreter(str(self.path), num_threads=available_cores())
        self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = (
            [each["index"] for each in details]
            for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        )
        try:
            with ZipFile(self.path) as archive:
                return archive.read(EXTRA).decode()
        except (BadZipFile, KeyError):
            return None

    def run(self, images: Tensor) -> Tensor:
        return torch.cat([self._one(image) for image in images.split(1)])

    def _one(self, image: Tensor) -> Tensor:
        self._interpreter.set_tensor(self._input, to_numpy(image))
        self._interpreter.invoke()
        return torch.from_numpy(self._interpreter.get_tensor(self._output))
