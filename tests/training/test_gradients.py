"""The gradients of domains: against torch's own, domain by domain, and without a trace in the training."""

import csv
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import CSVLogger

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.data.transforms import street_pipeline
from fcnseg.errors import InputError
from fcnseg.training import SegmentationModule
from fcnseg.training.gradients import GradientMonitor
from fcnseg.training.losses import CrossEntropy


class RandomStates(pl.Callback):
    """Notes the random state before every batch, after the callbacks ahead of it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append(torch.get_rng_state().numpy().tobytes())


LOOKS = {look: CityScenes(12, seed=1, look=look, size=(32, 48)) for look in ("real", "synthetic")}


def fit(folder: Path, monitor: GradientMonitor, *, dropout: float = 0.5, domains: tuple[str, ...] = tuple(LOOKS)):
    """Six steps of two batches; returns what it began with and led to, logged gradients, and random states."""
    data = SegmentationData(
        {name: LOOKS[name] for name in domains}, LOOKS["real"], size=(32, 48), augment=street_pipeline((32, 48)),
        batch_size=4, steps_per_epoch=6, num_workers=0,
    )  # fmt: skip
    pl.seed_everything(3, verbose=False)
    model = fcnseg.create_model("fcn8s_vgg16_bn", num_classes=11, width=0.05, dropout=dropout)
    torch.nn.init.normal_(model.score_fr.weight)
    module = SegmentationModule(model, CrossEntropy(domains=domains), partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    start = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = pl.Trainer(
        accelerator="cpu", logger=CSVLogger(folder, "", ""), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, use_distributed_sampler=False, max_epochs=2, accumulate_grad_batches=2,
        limit_val_batches=0, log_every_n_steps=100, callbacks=[monitor, states := RandomStates()],
    )  # fmt: skip
    trainer.fit(module, data)
    rows = []
    if (folder / "metrics.csv").exists():
        with (folder / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("gradient/norm_real")]
    return start, module, data, rows, states.seen


def test_norms_and_cosines_are_those_of_each_domains_own_loss(tmp_path: Path) -> None:
    start, module, data, rows, _ = fit(tmp_path, GradientMonitor(every_n_steps=2), dropout=0)
    assert [int(row["step"]) for row in rows] == [0, 2, 4]
    module.load_state_dict(start)
    batch = next(iter(data.batches()))
    samples = [data_sample(data, draw) for draw in batch]
    images, masks = (torch.stack([sample[i] for sample in samples]) for i in (0, 1))
    logits = module.train()(images)
    vectors = []
    for part in (slice(0, 2), slice(2, 4)):
        module.zero_grad()
        F.cross_entropy(logits[part], masks[part].long(), ignore_index=255).backward(retain_graph=True)
        vectors.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    first = {name: float(value) for name, value in rows[0].items() if name.startswith("gradient/")}
    expected = {
        "gradient/norm_real": float(vectors[0].norm()),
        "gradient/norm_synthetic": float(vectors[1].norm()),
        "gradient/cosine_real_synthetic": float(F.cosine_similarity(*vectors, dim=0)),
    }
    assert first == pytest.approx(expected, rel=1e-4)
    assert 0.01 < abs(first["gradient/cosine_real_synthetic"]) < 0.99


def data_sample(data: SegmentationData, draw) -> tuple[torch.Tensor, torch.Tensor]:
    sample = data.train_dataloader().dataset[draw]
    return sample["image"], sample["mask"]


def test_training_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    """With dropout, momentum, accumulated gradients, and batch normalisation's statistics."""
    start, without, _, none, states = fit(tmp_path / "without", GradientMonitor())
    _, measured, _, rows, states_measured = fit(tmp_path / "measured", GradientMonitor(every_n_steps=1))
    assert not none
    assert len(rows) == 6
    assert states_measured == states
    after = measured.state_dict()
    assert any("running_var" in name for name in after)
    for name, value in without.state_dict().items():
        assert torch.equal(after[name], value), name
    assert any(not torch.equal(start[name], value) for name, value in after.items())


def test_a_single_domain_and_wrong_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compares domains; expected a loss and data of two or more"):
        fit(tmp_path, GradientMonitor(every_n_steps=1), domains=("real",))
    for wrong in (0, -1, 2.5, "often"):
        with pytest.raises(InputError, match=r"every_n_steps=.*: expected a whole number from 1 on, or null"):
            GradientMonitor(wrong)  # type: ignore[arg-type]
