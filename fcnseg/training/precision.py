"""Refusing a training precision that scores would not be right in."""

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
