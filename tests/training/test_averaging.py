"""The average of the weights: against a loop over them, in checkpoints, in validation, and over interruptions."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model, load_checkpoint
from fcnseg.training import SegmentationModule
from fcnseg.training.averaging import CURRENT, WeightAverage
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining, LastCheckpoint
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.strategies import FullySharded

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Be aware that when using")

DECAY = 0.8
SCENES = CityScenes(12, 0, "real", (32, 48))


class Weights(pl.Callback):
    """What the weights were before training and after each step of the optimiser."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.note(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == len(self.states):
            self.note(pl_module)

    def note(self, module: pl.LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in module.state_dict().items()})


class Interruption(pl.Callback):
    """Ends a training in the midst of its second epoch, after a checkpoint and a step that is in none."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 6:
            raise KeyboardInterrupt


def fit(
    folder: Path, *callbacks: pl.Callback, resume: str | None = None, writer: type = AtomicCheckpointIO, **options: Any
) -> tuple[pl.Trainer, SegmentationModule, SegmentationData]:
    pl.seed_everything(3, verbose=False)
    data = SegmentationData({"scenes": SCENES}, SCENES, size=(32, 48), batch_size=3, allow_overlap=True)
    model = create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05, dropout=0.5)
    module = SegmentationModule(model, optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    keepers = [
        ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False),
        LastCheckpoint(dirpath=folder, filename="last", every_n_train_steps=1, enable_version_counter=False),
    ]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[*callbacks, *keepers], logger=False, plugins=[writer()],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume and folder / resume, weights_only=True)
    return trainer, module, data


@torch.no_grad()
def val_loss(model: FCN, data: SegmentationData) -> float:
    """The mean over the images, which are of the model's size here."""
    losses = [
        CrossEntropy()(model.logits(image[None]), mask[None].long())
        for batch in data.validation_loader()
        for image, mask in zip(batch["image"], batch["mask"], strict=True)
    ]
    return float(torch.stack(losses).mean())


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("accumulate", "warmup"), [(1, True), (2, False)])
def test_it_is_the_moving_average_of_the_weights_after_each_step(tmp_path: Path, accumulate: int, warmup: bool) -> None:
    weights = Weights()
    fit(tmp_path, WeightAverage(DECAY, warmup), weights, accumulate_grad_batches=accumulate)
    assert len(weights.states) == 1 + 8 // accumulate
    saved = checkpoint(tmp_path / "last.ckpt")
    counts = [name for name, value in saved["state_dict"].items() if not value.is_floating_point()]
    assert counts
    assert any(name.endswith("running_var") for name in saved["state_dict"])
    for name, average in saved["state_dict"].items():
        expected = weights.states[0][name].double()
        for n, state in enumerate(weights.states[1:]):
            decay = min(DECAY, (1 + n) / (10 + n)) if warmup else DECAY
            expected = decay * expected + (1 - decay) * state[name]
        expected = weights.states[-1][name].double() if name in counts else expected
        torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(saved[CURRENT][name], weights.states[-1][name])


def test_training_is_as_without_it(tmp_path: Path) -> None:
    fit(tmp_path / "with", WeightAverage(DECAY))
    fit(tmp_path / "without", WeightAverage())
    averaged, plain = (checkpoint(tmp_path / name / "last.ckpt") for name in ("with", "without"))
    assert CURRENT not in plain
    assert all(torch.equal(value, plain["state_dict"][name]) for name, value in averaged[CURRENT].items())
    assert not all(torch.equal(value, plain["state_dict"][name]) for name, value in averaged["state_dict"].items())


def test_validation_and_checkpoints_have_the_average(tmp_path: Path) -> None:
    trainer, module, data = fit(tmp_path, WeightAverage(DECAY))
    logged = float(trainer.callback_metrics["val/loss"])
    last, best = load_checkpoint(tmp_path / "last.ckpt"), load_checkpoint(tmp_path / "best.ckpt")
    assert val_loss(last, data) == pytest.approx(logged, rel=1e-5)
    assert val_loss(best, data) == pytest.approx(float(trainer.checkpoint_callbacks[0].best_model_score), rel=1e-5)
    assert all(torch.equal(value, last.state_dict()[name]) for name, value in module.model.state_dict().items())
    trained = checkpoint(tmp_path / "last.ckpt")[CURRENT]
    last.load_state_dict({name.removeprefix("model."): value for name, value in trained.items()})
    assert val_loss(last, data) != pytest.approx(logged, rel=1e-3)


@pytest.mark.parametrize("writer", [AtomicCheckpointIO, BesideTraining])
def test_a_run_that_goes_on_is_the_uninterrupted_one_to_the_last_bit(tmp_path: Path, writer: Callable[[], Any]) -> None:
    fit(tmp_path / "whole", WeightAverage(DECAY), writer=writer)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path / "parts", WeightAverage(DECAY), Interruption(), writer=writer)
    os.rename(tmp_path / "parts" / "last.ckpt", tmp_path / "parts" / "stopped.ckpt")
    assert checkpoint(tmp_path / "parts" / "stopped.ckpt")["global_step"] == 6
    fit(tmp_path / "parts", WeightAverage(DECAY), resume="stopped.ckpt", writer=writer)
    whole, parts = (checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    for key in ("state_dict", CURRENT):
        assert all(torch.equal(value, parts[key][name]) for name, value in whole[key].items())


def test_a_run_goes_on_without_it_from_the_weights_that_were_trained(tmp_path: Path) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path / "parts", WeightAverage(DECAY), Interruption())
    os.rename(tmp_path / "parts" / "last.ckpt", tmp_path / "parts" / "stopped.ckpt")
    fit(tmp_path / "parts", WeightAverage(), resume="stopped.ckpt")
    fit(tmp_path / "whole", WeightAverage())
    whole, parts = (checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.parametrize("decay", [1, -0.1, "much"])
def test_other_decays_are_refused(decay: Any) -> None:
    with pytest.raises(InputError, match=r"callbacks\.ema\.decay=.*expected a number from 0 on and below 1, or null"):
        WeightAverage(decay)


def test_shares_of_weights_are_refused() -> None:
    model = SegmentationModule(create_model("fcn32s_vgg16_bn", num_classes=3, width=0.05))
    trainer = pl.Trainer(accelerator="cpu", strategy=FullySharded(process_group_backend="gloo"), logger=False)
    with pytest.raises(InputError, match="does not go with trainer=fsdp"):
        WeightAverage(DECAY).on_fit_start(trainer, model)
