"""Choosing the device that a network runs on, and a precision that it is fast in."""

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


def fast_precision(device: torch.device | None = None) -> str:
    """ "bf16-mixed" where a device multiplies bfloat16 itself; "32-true" elsewhere.

    Emulated bfloat16 is slower than float32, so an older processor computes in float32.

    Args:
        device: the first GPU, or else the CPU, by default.
    """
    if (device or default_device()).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))
    return "bf16-mixed" if native else "32-true"
