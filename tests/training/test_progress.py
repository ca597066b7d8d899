"""The progress bar: what it shows, and how often it makes the device finish what it computes."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.models import create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.progress import ProgressBar

SCALARS = torch.ops.aten._local_scalar_dense.default


class Readings(TorchDispatchMode):
    """Counts the values that go from tensors to Python, for each of which a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is SCALARS
        return func(*args, **(kwargs or {}))


def readings(steps: int, bar: ProgressBar) -> int:
    """Of a training of so many steps, with several domains, and without validation."""
    scenes = {look: CityScenes(4, look=look, size=(24, 32)) for look in ("real", "synthetic")}
    data = SegmentationData(scenes, scenes["real"], size=(24, 32), batch_size=2, steps_per_epoch=steps, num_workers=0)
    module = SegmentationModule(create_model("fcn32s_alexnet", num_classes=11, width=0.05), optimizer=torch.optim.SGD)
    module.loss.domains = tuple(scenes)
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[bar], use_distributed_sampler=False, **options)
    with Readings() as found:
        trainer.fit(module, data)
    assert trainer.global_step == steps
    assert bar._shown["train/loss"] == pytest.approx(float(trainer.callback_metrics["train/loss"]))
    return found.count


@pytest.mark.parametrize(("epochs", "shown"), [(12, "Epoch 1/12"), (-1, "Epoch 1"), (1, "Epoch 1/1")])
def test_epochs_are_counted_from_one(epochs: int, shown: str) -> None:
    bar = ProgressBar()
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, max_steps=9, logger=False, enable_checkpointing=False)
    bar.setup(trainer, None, "fit")  # type: ignore[arg-type]
    assert bar._get_train_description(0).strip() == shown


@pytest.mark.filterwarnings("ignore")
def test_no_step_is_waited_for() -> None:
    few, many = (readings(steps, ProgressBar(seconds=1e9)) for steps in (4, 24))
    assert few == many
    assert readings(24, ProgressBar(seconds=0)) >= many + 20, "else nothing would be counted"
