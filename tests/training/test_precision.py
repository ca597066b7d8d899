"""Training precisions that are refused, and doubles that stay doubles."""

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.training.precision import check_precision
from tests.commands.processes import SETTINGS, state


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_refused(precision):
    with pytest.raises(
        InputError, match=f"trainer.precision={precision}: keeps the weights .*; expected 32-true, bf16"
    ):
        check_precision(precision)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true", 32])
def test_others_are_not(precision):
    assert check_precision(precision) is None


@pytest.mark.slow
def test_doubles_are_not_rounded_where_a_run_goes_on(fcnseg, tmp_path):
    train = ["train", *SETTINGS, "trainer.precision=64-true", "callbacks.last.every_n_train_steps=1"]
    train += ["data.train.real.length=8", "data.train.synthetic.length=8", "data.val.length=1"]
    assert fcnseg(*train, "trainer.max_steps=3", "hydra.run.dir=whole") == 0
    assert fcnseg(*train, "trainer.max_steps=1", "hydra.run.dir=begun") == 0
    resume = ["hydra.run.dir=again", "resume=begun/checkpoints/last.ckpt"]
    assert fcnseg(*train, "trainer.max_steps=3", *resume) == 0
    whole, again = state(tmp_path / "whole"), state(tmp_path / "again")
    assert whole["model.fc7.weight"].dtype == torch.float64
    assert all(torch.equal(again[name], value) for name, value in whole.items())
