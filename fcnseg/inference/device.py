"""Choosing the device that a network runs on."""

import torch

from fcnseg.errors import InputError


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
