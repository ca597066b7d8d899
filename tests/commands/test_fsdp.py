"""Weights divided over processes (FSDP2): the same training, whose checkpoints any number of processes go on from."""

from pathlib import Path

import pytest
import torch

from fcnseg.models import from_pretrained
from fcnseg.models.sharded import is_sharded, read_checkpoint
from tests.commands.processes import SETTINGS, in_a_process

ONE = (
    "train", *SETTINGS, "model=fcn8s_vgg16", "model.width=0.2", "optimizer=sgd", "data.train.real.length=8",
    "data.train.synthetic.length=10", "data.val.length=3",
)  # fmt: skip
DIVIDED = (*ONE, "trainer=fsdp", "trainer.strategy.process_group_backend=gloo")


def ends(folder: Path, run: str, steps: int, *command: str) -> Path:
    """The last checkpoint of a training of so many steps."""
    process = in_a_process([*command, f"hydra.run.dir={run}", f"trainer.max_steps={steps}"], folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return folder / run / "checkpoints" / "last.ckpt"


def weights(path: Path) -> torch.Tensor:
    """All weights of a checkpoint, in a row."""
    return torch.cat([value.flatten() for value in read_checkpoint(path)["state_dict"].values()])


@pytest.mark.slow
def test_a_divided_network_learns_what_a_whole_one_does_on_any_number_of_processes(fcnseg, tmp_path):
    """Two processes, then three with one file, then one: each goes on from the other's checkpoint."""
    two = ends(tmp_path, "two", 2, *DIVIDED, "trainer.devices=2")
    assert is_sharded(two)
    network = from_pretrained(two)
    assert sum(value.numel() for value in network.state_dict().values()) == len(weights(two))
    assert fcnseg("export", f"checkpoint={two}", "format=checkpoint", "output=plain.ckpt") == 0
    assert torch.equal(weights(tmp_path / "plain.ckpt"), weights(two))

    whole = "trainer.strategy.sharded_checkpoints=false"
    three = ends(tmp_path, "three", 3, *DIVIDED, "trainer.devices=3", whole, f"resume={two}")
    assert three.is_file()
    one = ends(tmp_path, "one", 4, *ONE, f"resume={three}")
    alone = ends(tmp_path, "alone", 4, *ONE)
    assert float((weights(one) - weights(alone)).norm()) < 1e-4 * float((weights(alone) - weights(two)).norm())
