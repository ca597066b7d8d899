"""The Lightning module: what it logs is what independent code computes."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torchmetrics.classification import MulticlassJaccardIndex

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.models.backbones import BACKBONES
from fcnseg.training import SegmentationModule
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.precision import fast_precision


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


class Masks(pl.Callback):
    """Keeps what dropout does to ones in the last step of every epoch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_last_batch:
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
    assert len(rest) == 2
    assert torch.equal(torch.stack(rest), torch.stack(whole[1:]))
    assert not torch.equal(whole[1], whole[2]), "every epoch drops others"


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


def test_fast_precision_is_one_that_lightning_knows():
    assert trainer(precision=fast_precision()).precision in ("bf16-mixed", "32-true")
