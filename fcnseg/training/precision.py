"""Choosing a training precision that the hardware is fast in."""

import torch

from fcnseg.errors import InputError


def fast_precision() -> str:
    """ "bf16-mixed" where the first GPU, or else the CPU, multiplies bfloat16 itself; "32-true" elsewhere.

    Emulated bfloat16 is slower than float32, so an older processor trains in float32.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))
    return "bf16-mixed" if native else "32-true"


def check_precision(precision: str | int) -> None:
    """Refuse precisions that keep the weights in half of the bits: scores would not be those of `fcnseg evaluate`.

    Raises:
        InputError: for one of these.
    """
    if str(precision) in ("bf16-true", "16-true"):
        raise InputError(
            f"trainer.precision={precision}: keeps the weights themselves in 16 bits, in which validation would not "
            "be in float32; expected 32-true, bf16-mixed, 16-mixed, 64-true or auto"
        )
