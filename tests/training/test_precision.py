"""Training precisions that are refused."""

import pytest

from fcnseg.errors import InputError
from fcnseg.training.precision import check_precision


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_refused(precision):
    with pytest.raises(
        InputError, match=f"trainer.precision={precision}: keeps the weights .*; expected 32-true, bf16"
    ):
        check_precision(precision)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true", 32])
def test_others_are_not(precision):
    assert check_precision(precision) is None
