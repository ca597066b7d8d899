"""Weights divided over processes (FSDP2): the same training, whose checkpoints any number of processes go on from."""

from pathlib import Path

import pytest
import torch

from fcnseg.models import from_pretrained
from tests.commands.processes import SETTINGS, in_a_process, state

TRAIN = (
    "train", *SETTINGS, "model=fcn8s_vgg16", "model.width=0.2", "optimizer=sgd", "trainer=fsdp", "trainer.devices=2",
    "trainer.strategy.process_group_backend=gloo", "data.train.real.length=8", "data.train.synthetic.length=10",
    "data.val.length=3",
)  # fmt: skip


def ends(folder: Path, run: str, *more: str) -> torch.Tensor:
    """All weights at the end of a training, in a row."""
    process = in_a_process([*TRAIN, f"hydra.run.dir={run}", *more], folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return torch.cat([value.flatten() for value in state(folder / run).values()])


@pytest.mark.slow
def test_a_divided_network_learns_what_a_whole_one_does_and_goes_on_as_one(tmp_path):
    one = ("trainer.devices=1", "trainer.strategy=auto")
    begun = ends(tmp_path, "run", "trainer.max_steps=2")
    network = from_pretrained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert sum(value.numel() for value in network.state_dict().values()) == len(begun)
    together = ends(tmp_path, "on", *one, "trainer.max_steps=4", "resume=run/checkpoints/last.ckpt")
    alone = ends(tmp_path, "alone", *one, "trainer.max_steps=4")
    assert float((together - alone).norm()) < 1e-4 * float((alone - begun).norm())
