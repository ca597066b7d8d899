"""Models out of Lightning checkpoints, which are read without executing code from them."""

from pathlib import Path
from typing import Any

import torch

from fcnseg.errors import InputError
from fcnseg.models.fcn import FCN
from fcnseg.models.registry import create_model


def load_checkpoint(path: str | Path) -> FCN:
    """Rebuild the model that a training checkpoint holds, on the CPU, in evaluation mode.

    Raises:
        InputError: when the file is missing, damaged, or no fcnseg checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        spec = dict(content["hyper_parameters"]["spec"])
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    except Exception as error:  # a damaged file fails in torch's reader with almost any exception
        raise InputError(f"{path}: not an fcnseg checkpoint, or damaged") from error
    try:
        model = create_model(spec.pop("name"), **spec)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"{path}: its spec describes no model ({error})") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: weights do not fit {model.spec.name} ({reason})") from error
    return model.eval()


def default_device(name: str | None = None) -> torch.device:
    """The device of that name, or the first GPU, or else the CPU.

    Raises:
        InputError: for a device that torch does not know or that is not there.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not available here") from error
    return device
