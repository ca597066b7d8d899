"""Programs of torch.export, and what AOTInductor has compiled of them: both .pt2."""

from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from fcnseg.inference.exported.network import KEY, Exported

EXTRA = f"{KEY}.json"
"""The metadata's name within the file."""


class ProgramNetwork(Exported):
    """A .pt2 file."""

    def _open(self) -> str | None:
        with ZipFile(self.path) as archive:
            names = archive.namelist()
        if any("/data/aotinductor/" in f"/{name}" for name in names):
            package: Any = torch._inductor.aoti_load_package(str(self.path))
            self._program: Any = package
            return package.get_metadata().get(KEY)
        extra = {EXTRA: ""}
        self._program = torch.export.load(self.path, extra_files=extra).module().to(self.device)
        return extra[EXTRA] or None

    def run(self, images: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return self._program(images.clone().to(self.device))
