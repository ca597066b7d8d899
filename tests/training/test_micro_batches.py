"""A batch in micro-batches trains as in one piece: samples, loss, resumed runs, and steps that are not finite."""

import json
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.data.bgc import count_micro_batches
from fcnseg.data.transforms import street_pipeline
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import LastCheckpoint
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.nonfinite import NonFiniteGuard
from tests.commands.processes import SETTINGS
from tests.data.refusals import complaint
from tests.training.recorded import Record, Stopped
from tests.training.test_nonfinite import Strange

SIZE = (32, 48)
EPOCHS, STEPS = 2, 3
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def train(
    folder: Path, at_once: int | None, name: str = "fcn32s_vgg16", resume: Path | None = None,
    stop_after: int | None = None, callbacks: tuple[pl.Callback, ...] = (), loss: CrossEntropy | None = None,
    **options: Any,
) -> tuple[SegmentationModule, pl.Trainer]:  # fmt: skip
    """Two epochs of three steps on batches of six real and four synthetic scenes; `last.ckpt` after every step."""
    folder.mkdir(exist_ok=True)
    pl.seed_everything(5, verbose=False)
    domains = {look: CityScenes(9, seed=1, look=look, size=SIZE) for look in ("real", "synthetic")}
    data = SegmentationData(
        domains, domains["real"], size=SIZE, ratio={"real": 6, "synthetic": 4}, augment=street_pipeline(SIZE),
        batch_size=10, device_batch_size=at_once, steps_per_epoch=STEPS, num_workers=0, allow_overlap=True,
    )  # fmt: skip
    model = fcnseg.create_model(name, num_classes=11, width=0.05, dropout=0.5)
    keep = LastCheckpoint(dirpath=folder, filename="last", every_n_train_steps=1, enable_version_counter=False)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, limit_val_batches=0, num_sanity_val_steps=0, logger=False,
        callbacks=[keep, Record(folder, stop_after), *callbacks], enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **options,
    )  # fmt: skip
    domain_weights = {"real": 0.6, "synthetic": 0.4}
    loss = loss or CrossEntropy(domain_weights=domain_weights, domains=tuple(domains))
    module = SegmentationModule(model, loss, partial(torch.optim.SGD, lr=0.01, momentum=0.9))
    trainer.fit(module, data, ckpt_path=resume and resume / "last.ckpt", weights_only=True)
    return module, trainer


def stopped(folder: Path, at_once: int | None, after: int, **options: Any) -> Path:
    with pytest.raises(Stopped):
        train(folder, at_once, stop_after=after, **options)
    return folder


def seen(folder: Path) -> list[list[Any]]:
    """The samples that each micro-batch showed."""
    return [json.loads(line)[2] for line in (folder / "rank0").read_text().splitlines()]


def steps(folder: Path, count: int) -> list[list[Any]]:
    """The samples of each step, in an order of their own, of `count` micro-batches each."""
    parts = seen(folder)
    assert len(parts) % count == 0
    return [sorted(chain(*parts[i : i + count])) for i in range(0, len(parts), count)]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("batch", "processes", "at_once", "expected"),
    [(32, 2, 4, 4), (10, 1, 4, 3), (10, 2, 5, 1), (10, 2, 100, 1), (10, 1, None, 1), (7, 2, 2, 2), (6, 2, 1, 3)],
)
def test_as_many_as_the_limit_asks_for(batch: int, processes: int, at_once: int | None, expected: int) -> None:
    assert count_micro_batches(batch, processes, at_once) == expected


def test_settings_that_do_not_fit_are_refused() -> None:
    assert complaint(lambda: count_micro_batches(5, 2, 1)) == (
        "data.device_batch_size=1: a batch of 5 leaves one of 2 processes without a sample in the last of 3 "
        "micro-batches; expected a multiple of 2 as data.batch_size, or 2 and more at once"
    )
    scenes = CityScenes(12, 0, "real", SIZE)
    data = SegmentationData({"s": scenes}, scenes, size=SIZE, device_batch_size=4, allow_overlap=True)

    def trainer(accumulate: int = 1, limit: float | int = 1.0) -> SimpleNamespace:
        return SimpleNamespace(
            world_size=1, accumulate_grad_batches=accumulate, limit_train_batches=limit, fast_dev_run=False,
            val_check_interval=1.0,
        )  # fmt: skip

    assert complaint(lambda: data.divide_batches(trainer(accumulate=2))) == (
        "trainer.accumulate_grad_batches=2: follows from data.device_batch_size=4, and is 3; give one or the other"
    )
    data.divide_batches(trainer(accumulate=3))  # no contradiction
    assert "limit_train_batches=0.5" in complaint(lambda: data.divide_batches(trainer(limit=0.5)))
    limited = trainer(limit=2)
    data.divide_batches(limited)
    data.divide_batches(limited)
    assert (limited.limit_train_batches, limited.accumulate_grad_batches) == (6, 3), "two batches of three parts each"
    assert "device_batch_size=0" in complaint(
        lambda: SegmentationData({"s": scenes}, scenes, size=SIZE, device_batch_size=0, allow_overlap=True)
    )


class Logged(pl.Callback):
    """What is logged after each micro-batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_the_same_samples_are_divided_by_domain_too_and_give_the_same_losses(tmp_path: Path) -> None:
    whole, parts = Logged(), Logged()
    train(tmp_path / "whole", None, callbacks=(whole,))
    _, trainer = train(tmp_path / "parts", 4, callbacks=(parts,))
    assert trainer.global_step == EPOCHS * STEPS
    for one, three in zip(whole.seen, parts.seen[2::3], strict=True):
        assert one == pytest.approx(three, rel=1e-5)
        assert set(one) == {"train/loss", "train/loss_real", "train/loss_synthetic"}
    assert parts.seen[3] == parts.seen[4] == parts.seen[2], "a loss is told once all of its parts are there"
    assert steps(tmp_path / "parts", 3) == steps(tmp_path / "whole", 1)
    for part in seen(tmp_path / "parts"):
        assert len(part) in (3, 4)
        assert sum(domain == 0 for domain, _ in part) == 2, "six real ones in three parts"


@pytest.mark.parametrize(("before", "after"), [(4, 4), (4, 2), (None, 4)])
def test_a_stopped_run_goes_on_with_another_limit(tmp_path: Path, before: int | None, after: int | None) -> None:
    """In the midst of the second epoch, with dropout: the samples that are left, and the weights of one that was not.

    With the same limit to the last bit, batch normalisation's moments among them.
    """
    name = "fcn32s_vgg16_bn" if before == after else "fcn32s_vgg16"
    train(tmp_path / "whole", before, name)
    halfway = stopped(tmp_path / "stopped", before, 5, name=name)  # after the step that follows the checkpoint's
    assert (done := torch.load(halfway / "last.ckpt", weights_only=True)["global_step"]) == 4
    _, trainer = train(tmp_path / "rest", after, name, resume=halfway)
    counts = [count_micro_batches(10, 1, limit) for limit in (before, after)]
    assert trainer.global_step == EPOCHS * STEPS
    assert steps(tmp_path / "rest", counts[1]) == steps(tmp_path / "whole", counts[0])[done:]
    for name, value in state(tmp_path / "whole").items():
        if before == after:
            assert torch.equal(state(tmp_path / "rest")[name], value), name
        else:
            torch.testing.assert_close(state(tmp_path / "rest")[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("action", ["skip", "stop"])
def test_one_strange_micro_batch_is_a_strange_step(tmp_path: Path, action: str) -> None:
    """The second one of the third step: none of its parts changes weights, momentum or moments, and all are kept."""
    loss = Strange(2 * 3 + 1, "loss")
    guard = NonFiniteGuard(action, tmp_path / "nonfinite")
    whole = partial(train, tmp_path / "run", 4, "fcn32s_vgg16_bn", callbacks=(guard,), loss=loss, max_steps=3)
    if action == "stop":
        assert complaint(whole).startswith("step 2: non-finite loss of ")
    else:
        train(tmp_path / "before", 4, "fcn32s_vgg16_bn", loss=CrossEntropy(), max_steps=2)
        module, _ = whole()
        for name, value in state(tmp_path / "before").items():
            assert torch.equal(module.state_dict()[name], value), name
    with np.load(tmp_path / "nonfinite" / "step_2.npz") as kept:
        assert sum(len(kept[f"image_{part}"]) for part in range(3)) == 10


@pytest.mark.slow
def test_a_run_tells_what_follows_from_its_batch(fcnseg, camvid, tmp_path, capsys) -> None:
    batch = ("data.batch_size=4", "data.device_batch_size=1", "lr_rule=linear", "lr_reference_batch=2")
    settings = ("train", "data=camvid", f"data.root={camvid}", *SETTINGS, "optimizer.lr=1e-3", "trainer.max_steps=2")
    assert fcnseg(*settings, *batch, "data.steps_per_epoch=2", "hydra.run.dir=run") == 0
    told = capsys.readouterr().out
    assert "micro-batch 4 of up to 1 for each process make a batch of 4\n" in told
    assert "rate        0.002 for batches of 4, by lr_rule=linear from 0.001 for 2\n" in told
    assert json.loads((tmp_path / "run" / "run.json").read_text())["sessions"][0]["learning_rate"] == 0.002
    assert sum(json.loads((tmp_path / "run" / "metrics.json").read_text())["images_seen"].values()) == 8
    groups = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert groups["param_groups"][0]["lr"] == 0.002
    assert fcnseg(*settings, *batch, "data.steps_per_epoch=2", "hydra.run.dir=run", "resume=auto") == 0
    assert "finished" in capsys.readouterr().out
    for wrong, line in (
        ("trainer.accumulate_grad_batches=2", "follows from data.device_batch_size=1, and is 4"),
        ("loss.reduction=sum", "lr_rule=linear: a summed loss grows with the batch by itself; expected lr_rule=none"),
        ("lr_rule=cubic", "lr_rule=cubic: expected one of none, linear, sqrt"),
        ("lr_reference_batch=0", "lr_reference_batch=0: expected a whole number from 1 on"),
    ):
        assert fcnseg(*settings, *batch, wrong, "hydra.run.dir=other") == 2
        assert line in capsys.readouterr().err
