"""Choosing a training precision that the hardware is fast in."""

import torch


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
