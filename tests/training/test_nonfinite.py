"""Steps whose loss or gradients are not finite: training stops before they do harm, or passes over them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.models import create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import AtomicCheckpointIO
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.nonfinite import NonFiniteGuard
from tests.data.refusals import complaint


class Strange(CrossEntropy):
    """Nan in one batch, by the loss itself or by its gradients alone."""

    def __init__(self, batch: int, what: str) -> None:
        super().__init__()
        self.batch, self.what, self.count = batch, what, -1

    def per_sample(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.count += 1
        if self.count == self.batch:
            if self.what == "loss":
                logits = logits * torch.nan
            else:
                logits.register_hook(lambda gradient: gradient * torch.nan)
        return super().per_sample(logits, mask)


class Weights(pl.Callback):
    """What the module and its optimiser hold after each batch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        moments = trainer.optimizers[0].state_dict()["state"]
        state = {f"{i} {key}": value for i, each in moments.items() for key, value in each.items()}
        self.states.append({key: value.clone() for key, value in (pl_module.state_dict() | state).items()})


def fit(folder: Path, loss: CrossEntropy, action: str = "stop", accumulate: int = 1, **options: Any) -> list[dict]:
    torch.manual_seed(0)
    scenes = CityScenes(8, 0, "real", (32, 48))
    data = SegmentationData({"scenes": scenes}, scenes, size=(32, 48), batch_size=2, allow_overlap=True)
    model = create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05)
    module = SegmentationModule(model, loss, partial(torch.optim.AdamW, lr=1e-3))
    weights = Weights()
    guard = NonFiniteGuard(action, folder / "nonfinite", **options)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[guard, weights], logger=False, enable_checkpointing=False,
        limit_val_batches=0, accumulate_grad_batches=accumulate, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    return weights.states


@pytest.mark.parametrize("what", ["loss", "gradients"])
def test_training_stops_at_the_step_and_keeps_its_batch(tmp_path: Path, what: str) -> None:
    line = complaint(lambda: fit(tmp_path, Strange(2, what)))
    assert line.startswith(f"step 2: non-finite {what} of real-0-")
    assert f"(kept in {tmp_path}/nonfinite)" in line
    with np.load(tmp_path / "nonfinite" / "step_2.npz") as kept:
        assert kept["image"].shape == (2, 3, 32, 48)
        assert kept["image"].dtype == np.uint8
        for number, name in enumerate(kept["name"]):
            assert name in line
            index = next(i for i in range(8) if CityScenes(8, 0, "real", (32, 48))[i][2] == name)
            np.testing.assert_array_equal(
                kept["image"][number].transpose(1, 2, 0), CityScenes(8, 0, "real", (32, 48))[index][0]
            )


@pytest.mark.parametrize("what", ["loss", "gradients"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_passed_over_changes_nothing(tmp_path: Path, what: str, accumulate: int, capsys) -> None:
    states = fit(tmp_path, Strange(2, what), "skip", accumulate)
    last = {1: 1, 2: 1}[accumulate]  # the batch after whose step nothing happened, until the next step
    after = {1: 2, 2: 3}[accumulate]
    for name, value in states[last].items():
        assert torch.equal(states[after][name], value), name
    assert all(value.isfinite().all() for value in states[-1].values())
    if accumulate == 1:
        assert any(not torch.equal(states[-1][name], value) for name, value in states[after].items()), "it goes on"
    assert f"skipped     step {after}: non-finite {what} of real-0-" in capsys.readouterr().out


def test_too_many_in_a_row_stop_it(tmp_path: Path) -> None:
    class Always(Strange):
        def per_sample(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return super().per_sample(logits, mask) * torch.nan

    assert "as in the 2 steps before it" in complaint(lambda: fit(tmp_path, Always(0, "loss"), "skip", most=2))


def test_a_sound_training_is_the_same_with_either(tmp_path: Path) -> None:
    stop, skip = (fit(tmp_path, CrossEntropy(), action)[-1] for action in ("stop", "skip"))
    assert all(torch.equal(skip[name], value) for name, value in stop.items())
    assert not (tmp_path / "nonfinite").exists()
    assert complaint(lambda: NonFiniteGuard("ignore")) == "on_nonfinite='ignore': expected stop or skip"


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(2)}}, path)
    with pytest.raises(InputError, match=r"last.ckpt: not written, since w is not finite"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.tensor([1.0, torch.nan])}}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [1, 1]


def test_a_rate_that_is_far_too_high_ends_in_one_line(fcnseg, tmp_path: Path, capsys) -> None:
    small = ("model=fcn32s_vgg16", "model.width=0.05", "data.train.real.length=8", "data.train.synthetic.length=8")
    quick = (
        "data.val.length=2",
        "data.size=[32,48]",
        "data.batch_size=4",
        "data.num_workers=0",
        "trainer.max_epochs=5",
    )
    options = ("callbacks.progress=null", "trainer.accelerator=cpu", "scheduler=constant", "hydra.run.dir=run")
    assert fcnseg("train", *small, *quick, *options, "optimizer.lr=1e30") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("fcnseg: step ")
    assert "non-finite" in line
    assert "on_nonfinite=skip goes on" in line
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())
