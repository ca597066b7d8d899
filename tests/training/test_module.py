"""The Lightning module: what it logs is what independent code computes."""

import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torchmetrics.classification import MulticlassJaccardIndex

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.data.transforms import street_pipeline
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate
from fcnseg.models.backbones import BACKBONES
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import LastCheckpoint
from fcnseg.training.losses import CrossEntropy

RATIO = {"real": 3, "synthetic": 1}


def trainer(**options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


@pytest.fixture
def data():
    scenes = CityScenes(6, seed=1, look="real", size=(40, 56))
    return SegmentationData({"real": scenes}, scenes, size=(32, 48), batch_size=3, num_workers=0, cache="ram")


@pytest.fixture
def model(data):
    torch.manual_seed(0)
    return fcnseg.create_model("fcn8s_vgg16_bn", num_classes=11, width=0.05, input_size=data.size)


def test_validation_is_in_float32_whatever_the_training_precision(data, model):
    torch.nn.init.normal_(model.score_fr.weight)
    logged = [
        trainer(precision=precision).validate(SegmentationModule(model), data, verbose=False)[0]
        for precision in ("32-true", "bf16-mixed")
    ]
    assert logged[0] == logged[1]


def test_the_logged_mean_iou_is_torchmetrics_own(data, model):
    torch.nn.init.normal_(model.score_fr.weight)
    logged = trainer().validate(SegmentationModule(model), data, verbose=False)[0]["val/mean_iou"]
    predictor = fcnseg.Predictor(model, device="cpu")
    samples = [data.val[i] for i in range(6)]
    index = MulticlassJaccardIndex(11, average="macro")
    masks = torch.tensor(np.stack([predictor(image).mask for image, _, _ in samples]))
    labels = torch.tensor(np.stack([mask for _, mask, _ in samples]))
    assert logged == pytest.approx(float(index(masks, labels)), abs=1e-6)


def test_the_validation_loss_is_a_mean_per_image_whatever_is_minimised(data, model):
    torch.nn.init.normal_(model.score_fr.weight)
    logged = [
        trainer().validate(SegmentationModule(model, CrossEntropy(reduction=reduction)), data, verbose=False)[0]
        for reduction in ("mean", "sum")
    ]
    assert logged[0]["val/loss"] == logged[1]["val/loss"]
    assert 0.1 < logged[0]["val/loss"] < 100, "of one pixel, not of 2240"


class Unlabelled(CityScenes):
    """Scenes of which the first `count` have a label, without telling so."""

    count = 0

    def __getitem__(self, index):
        image, mask, name = super().__getitem__(index)
        return image, mask if index < self.count else np.full_like(mask, 255), name


def test_a_validation_set_without_any_labelled_pixel_is_refused(model):
    data = SegmentationData({}, Unlabelled(3, size=(32, 48)), size=(32, 48), num_workers=0)
    with pytest.raises(InputError, match="validation: no image has a labelled pixel, so there is nothing to score"):
        trainer().validate(SegmentationModule(model), data, verbose=False)
    with pytest.raises(InputError, match="validation: no image has a labelled pixel"):
        evaluate(model, data.validation_loader())


def test_images_without_a_label_do_not_lower_the_validation_loss(data, model):
    torch.nn.init.normal_(model.score_fr.weight)
    partly = Unlabelled(6, seed=1, look="real", size=(40, 56))
    partly.count = 2
    whole = SegmentationData({}, CityScenes(2, seed=1, look="real", size=(40, 56)), size=(32, 48), num_workers=0)
    logged = [
        trainer().validate(SegmentationModule(model), validated, verbose=False)[0]["val/loss"]
        for validated in (whole, SegmentationData({}, partly, size=(32, 48), num_workers=0))
    ]
    assert logged[0] == pytest.approx(logged[1], rel=1e-6)


class Masks(pl.Callback):
    """Keeps what dropout does to ones in every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(torch.nn.functional.dropout(torch.ones(64)))


def test_dropout_goes_on_after_a_checkpoint_as_without_the_interruption(data, model, tmp_path):
    def masks(epochs, checkpoint=None):
        pl.seed_everything(5, verbose=False)
        kept = Masks()
        fit = trainer(max_epochs=epochs, callbacks=[kept], limit_val_batches=0)
        fit.fit(SegmentationModule(model), data, ckpt_path=checkpoint)
        fit.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return kept.seen

    masks(epochs=1)
    rest = masks(3, tmp_path / "1.ckpt")
    whole = masks(epochs=3)
    assert len(whole) == 6
    assert torch.equal(torch.stack(rest), torch.stack(whole[2:]))
    assert len({tuple(mask.tolist()) for mask in whole}) == 6, "every step drops others"


class KeepAll(LastCheckpoint):
    """Keeps a copy of everything that it saves, with what was seen until then."""

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        trainer.save_checkpoint(Path(filepath).with_name(f"{trainer.global_step}.ckpt"))


class Seen(pl.Callback):
    """Notes the images of every batch that was trained on, and the steps after which there was a validation."""

    def __init__(self):
        self.images, self.validated = [], []

    def on_validation_end(self, trainer, pl_module):
        self.validated.append(trainer.global_step)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images.append(batch["image"].sum(dim=(1, 2, 3)).tolist())


@pytest.mark.parametrize(
    ("workers", "accumulate", "options", "expected"),
    [
        (0, 1, {}, [3, 5, 6, 9, 10, 12, 15]),  # every third step, and after the fifth that ends an epoch
        (2, 1, {}, [3, 5, 6, 9, 10, 12, 15]),
        (0, 2, {}, [3, 6, 9]),  # the last step of an epoch has a single batch
        (0, 1, {"limit_train_batches": 4}, [3, 4, 6, 8, 9, 12]),
        (2, 2, {"limit_train_batches": 4, "max_epochs": 5}, [2, 3, 4, 6, 8, 9, 10]),
    ],
)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_any_checkpoint_leads_to_the_weights_of_the_uninterrupted_run(tmp_path, workers, accumulate, options, expected):
    """Also one of a run that had been resumed itself; with dropout, batch normalisation, momentum and a schedule.

    Of runs with worker processes, which take their time to begin, every other one.
    """
    scenes = CityScenes(10, seed=1, look="real", size=(32, 48))

    def train(folder, checkpoint=None):
        data = SegmentationData(
            {"real": scenes}, scenes, size=(32, 48), augment=street_pipeline((32, 48)), batch_size=2,
            num_workers=workers,
        )  # fmt: skip
        pl.seed_everything(5, verbose=False)
        model = fcnseg.create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05, dropout=0.5)
        module = SegmentationModule(
            model,
            optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            scheduler=lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps),
        )
        seen = Seen()
        keep = KeepAll(dirpath=tmp_path / folder, filename="last", every_n_train_steps=3, enable_version_counter=False)
        fit = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1,
            num_sanity_val_steps=0, accumulate_grad_batches=accumulate, use_distributed_sampler=False,
            callbacks=[keep, seen], **{"max_epochs": 3} | options,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*dataloader is not resumable")
            fit.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        return {name: value.clone() for name, value in module.state_dict().items()}, seen

    whole, seen = train("whole")
    kept = sorted(int(path.stem) for path in (tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert kept == expected
    for step in kept[: -1 : 2 if workers else 1]:
        rest, left = train(f"from{step}", tmp_path / "whole" / f"{step}.ckpt")
        assert left.images == seen.images[-len(left.images) :]
        assert left.validated == [at for at in seen.validated if at > step]
        assert all(torch.equal(rest[name], value) for name, value in whole.items()), step
    assert sorted(int(path.stem) for path in (tmp_path / f"from{kept[0]}").glob("[0-9]*.ckpt")) == kept[1:]
    again, _ = train("again", tmp_path / f"from{kept[0]}" / f"{kept[2]}.ckpt")
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.parametrize("weights", [None, {"synthetic": 0.9, "real": 0.2}])
def test_domains_are_logged_and_weighed_by_their_names(weights):
    torch.manual_seed(0)
    model = fcnseg.create_model("fcn8s_vgg16_bn", num_classes=11, width=0.05, dropout=0)
    looks = {look: CityScenes(4, seed=1, look=look, size=(32, 48)) for look in ("real", "synthetic")}
    data = SegmentationData(looks, looks["real"], size=(32, 48), batch_size=4, num_workers=0, ratio=RATIO)
    module = SegmentationModule(
        model, CrossEntropy(domain_weights=weights, domains=list(looks)), partial(torch.optim.SGD, lr=0.5)
    )
    torch.nn.init.normal_(model.score_fr.weight)
    batch = next(iter(data.train_dataloader()))
    before = deepcopy(module)
    logits = before.train()(batch["image"])
    real, synthetic = (
        torch.nn.functional.cross_entropy(logits[part], batch["mask"][part].long(), ignore_index=255)
        for part in (slice(0, 3), slice(3, 4))
    )
    both = torch.nn.functional.cross_entropy(logits, batch["mask"].long(), ignore_index=255)
    minimised = both if weights is None else 0.2 * real + 0.9 * synthetic
    minimised.backward()

    fit = trainer(max_steps=1, limit_val_batches=0)
    fit.fit(module, data)
    logged = {name: float(value) for name, value in fit.logged_metrics.items()}
    expected = {"train/loss_real": real, "train/loss_synthetic": synthetic, "train/loss": minimised}
    assert logged == pytest.approx({name: float(value.detach()) for name, value in expected.items()}, rel=1e-5)
    step = before.model.score_fr.weight - 0.5 * before.model.score_fr.weight.grad
    torch.testing.assert_close(module.model.score_fr.weight, step, rtol=1e-5, atol=1e-6)


def test_the_checkpoint_loads_without_executing_code_and_predicts_the_same(data, model, tmp_path):
    module = SegmentationModule(model)
    fit = trainer(max_steps=2)
    fit.fit(module, data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hyper_parameters"]["spec"] == model.spec.to_dict()
    image = data.val[0][0]
    again = fcnseg.Predictor.from_pretrained(tmp_path / "a.ckpt", device="cpu")(image).mask
    np.testing.assert_array_equal(again, fcnseg.Predictor(model, device="cpu")(image).mask)


@pytest.mark.parametrize("name", [f"fcn8s_{backbone}" for backbone in BACKBONES])
def test_every_backbone_learns_from_its_initialisation(name):
    """With every score at zero the loss starts at ln 11; a few steps on four scenes must lower it by a third."""
    torch.manual_seed(0)
    scenes = [CityScenes(4, seed=1, look="real", size=(64, 96))[i] for i in range(4)]
    images = torch.stack([torch.tensor(image).permute(2, 0, 1) for image, _, _ in scenes])
    masks = torch.stack([torch.tensor(mask).long() for _, mask, _ in scenes])
    module = SegmentationModule(fcnseg.create_model(name, num_classes=11, width=0.25, dropout=0))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        loss = module.loss(module(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(np.log(11), rel=1e-5)
    assert losses[-1] < losses[0] * 2 / 3, losses
