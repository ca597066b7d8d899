"""The precision of training: what float32 means on a GPU, and which precisions scores would not be right in."""

import torch

from fcnseg.errors import InputError


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


def use_tf32(allowed: bool) -> None:
    """Let float32 convolutions and products on GPUs take TF32's 10 bits of mantissa, or all 23; of the whole process.

    torch's own choice is TF32 for convolutions alone, which are nearly all that an FCN computes.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(allowed)
