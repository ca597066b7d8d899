"""Networks that were exported, in the runtimes that they were exported for."""

from pathlib import Path

from fcnseg.errors import InputError
from fcnseg.inference.exported.mobile import ExecuTorchNetwork, LiteRtNetwork
from fcnseg.inference.exported.network import Exported
from fcnseg.inference.exported.onnx import OnnxNetwork
from fcnseg.inference.exported.openvino import OpenVinoNetwork
from fcnseg.inference.exported.programs import ProgramNetwork

SUFFIXES: dict[str, type[Exported]] = {
    ".onnx": OnnxNetwork,
    ".xml": OpenVinoNetwork,
    ".pt2": ProgramNetwork,
    ".tflite": LiteRtNetwork,
    ".pte": ExecuTorchNetwork,
}
"""By the ending of a file, what runs it."""


def is_exported(path: str | Path) -> bool:
    """Whether a path is called as an exported network is."""
    return Path(path).suffix.lower() in SUFFIXES


def load_exported(path: str | Path, device: str | None = None) -> Exported:
    """Open what `fcnseg export` has written.

    Args:
        path: a .onnx, an OpenVINO .xml with its .bin beside it, a .pt2 of torch.export or AOTInductor, a LiteRT
            .tflite, or an ExecuTorch .pte.
        device: "cpu", "cuda", ...; the CPU by default, and for ONNX what its runtime offers first.

    Raises:
        InputError: when the file is missing, damaged, not from here, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return SUFFIXES[path.suffix.lower()](path, device)


__all__ = ["Exported", "is_exported", "load_exported"]
