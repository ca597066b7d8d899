"""Writing checkpoints so that a full disk or a killed job cannot damage one."""

import io
from typing import Any

import torch
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fcnseg.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its target and then renames it.

    Lightning's own writer collects the file in the system's temporary folder and moves it; where that is
    another disk the move is a copy, and a full disk leaves half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store, which has transactions of its own
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # in memory first: torch's file writer reports a full disk as an internal error
        torch.save(checkpoint, content)
        with replacing(str(path)) as temporary:
            temporary.write_bytes(content.getbuffer())
