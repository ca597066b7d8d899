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


def devices_of(name: str | None, count: int | str) -> list[str]:
    """The devices that images are shared out to, one for each process.

    Args:
        name: as `default_device` takes it.
        count: of processes: on GPUs one for each of the first so many, on a processor as many as asked for, which share
            its cores. "all": of GPUs all, of other devices one.

    Raises:
        InputError: for another count, more than there are, or a single GPU's name beside it.
    """
    if count != "all" and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"devices={count}: expected all, or a number from 1 on")
    device = default_device(name)
    if count == 1:
        return [str(device)]
    if device.type == "cpu":
        return ["cpu"] * (1 if count == "all" else int(count))
    if device.index is not None:
        raise InputError(f"devices={count}: device={name} is a single one; expected device={device.type} or auto")
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if count != "all" and int(count) > there:
        raise InputError(f"devices={count}: there are {there} of device={device.type}")
    return [f"{device.type}:{number}" for number in range(there if count == "all" else int(count))]


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
