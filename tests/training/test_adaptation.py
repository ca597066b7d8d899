"""Methods of adaptation against versions that go pixel by pixel, and in training: on any number of processes."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import fcnseg
from fcnseg.data import CityScenes, SegmentationData, Targets, WithoutLabels
from fcnseg.data.dataset import Sample, Wrapper
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models import FCN
from fcnseg.training import SegmentationModule
from fcnseg.training.adaptation import Adaptation, ClassMix, MinimumEntropy

CLASSES = 11


def network() -> FCN:
    torch.manual_seed(0)
    return fcnseg.create_model("fcn32s_alexnet", num_classes=CLASSES, width=0.05)


def batch_of(seed: int, labelled: bool = True) -> dict[str, torch.Tensor]:
    """Three samples, the second and third of which have targets, one of them with padding."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, CLASSES, (3, 1, 1), generator=random).expand(3, 64, 64).clone()
    masks[:, 10:40] = torch.randint(0, CLASSES, (3, 30, 1), generator=random)
    masks[1:, :5] = IGNORE_INDEX
    if not labelled:
        masks[1:] = IGNORE_INDEX
    known = torch.zeros(2, 64, 64, dtype=torch.uint8)
    known[1, 50:] = IGNORE_INDEX
    return {
        "image": torch.randint(0, 256, (3, 3, 64, 64), generator=random).to(torch.uint8),
        "mask": masks,
        "target": torch.randint(0, 256, (2, 3, 64, 64), generator=random).to(torch.uint8),
        "target_mask": known,
        "target_of": torch.tensor([1, 2]),
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_mixed_images_pixel_by_pixel(labelled: bool) -> None:
    student, batch = network(), batch_of(0, labelled)
    with torch.no_grad():
        for parameter in student.parameters():  # scores begin at 0, where no class is likelier than another
            parameter.normal_(0, 0.1)
    usual = float(student.eval().logits(batch["target"]).softmax(1).max(1).values.median().detach())
    method = ClassMix(confidence=usual)
    method.begin(student)
    result = method.prepare(batch, seeds=[5, 6, 7])
    assert torch.equal(result["image"][0], batch["image"][0])
    assert torch.equal(result["mask"][0], batch["mask"][0])
    assert (result["pixel_weight"][0] == 1).all()
    for i, place in enumerate((1, 2)):
        image, target = batch["image"][place], batch["target"][i]
        probabilities = method.teacher.logits(target[None])[0].softmax(0).detach()
        own = batch["mask"][place] if labelled else method.teacher.logits(image[None])[0].argmax(0)
        inside = batch["target_mask"][i] != IGNORE_INDEX
        share = (probabilities.max(0).values[inside] >= usual).float().mean()
        assert 0 < share < 1
        taken: dict[int, bool] = {}  # whether each class of the sample is on top
        for y in range(64):
            for x in range(64):
                label, found = int(own[y, x]), result["image"][place, :, y, x]
                on_top = bool((found == image[:, y, x]).all()) and not bool((found == target[:, y, x]).all())
                assert taken.setdefault(label, on_top) == on_top
                assert torch.equal(found, (image if on_top else target)[:, y, x])
                below = int(probabilities[:, y, x].argmax()) if inside[y, x] else IGNORE_INDEX
                assert result["mask"][place, y, x] == (label if on_top else below)
                assert result["pixel_weight"][place, y, x] == pytest.approx(1.0 if on_top else float(share), abs=1e-3)
        assert not taken.pop(IGNORE_INDEX, False)
        assert sum(taken.values()) == math.ceil(len(taken) / 2)


def test_which_classes_depends_on_the_samples_own_seed() -> None:
    method, batch = ClassMix(), batch_of(1)
    method.begin(network())
    one, same, other = (method.prepare(batch, seeds)["mask"] for seeds in ([0, 1, 2], [9, 1, 2], [0, 1, 4]))
    assert torch.equal(one, same)
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[2], other[2])


def test_the_teacher_is_a_mean_of_all_weights_at_first_and_then_of_the_last_ones() -> None:
    student, method = network(), ClassMix(decay=0.75)
    method.begin(student)
    first = next(student.parameters())
    history = []
    for step in range(1, 7):
        with torch.no_grad():
            first.fill_(float(step))
        method.after_step(student, step)
        history.append(float(next(method.teacher.parameters()).mean()))
    assert history[:4] == pytest.approx([1, 1.5, 2, 2.5])  # means of 1 to n
    assert history[4] == pytest.approx(0.75 * 2.5 + 0.25 * 5)
    assert not any(parameter.requires_grad for parameter in method.parameters())


def test_entropy_pixel_by_pixel() -> None:
    logits, mask = torch.randn(3, CLASSES, 6, 7), torch.full((3, 6, 7), IGNORE_INDEX)
    mask[1, 0, 0] = 4  # a label: this sample is none of those without
    expected = [
        -sum(float(p * p.log()) for p in logits[n, :, y, x].double().softmax(0)) / math.log(CLASSES)
        for n in (0, 2) for y in range(6) for x in range(7)
    ]  # fmt: skip
    found = MinimumEntropy(weight=0.5).loss(logits, {"mask": mask})
    assert float(found) == pytest.approx(0.5 * np.mean(expected), rel=1e-5)
    assert float(MinimumEntropy().loss(logits[1:2], {"mask": mask[1:2]})) == 0


# In training


def data(pairs: bool = True) -> SegmentationData:
    scenes = [CityScenes(8, seed=seed, look=look, size=(64, 64)) for seed, look in ((0, "synthetic"), (1, "photo"))]
    made = scenes[0] if pairs else WithoutLabels(scenes[1])
    return SegmentationData(
        {"scenes": scenes[0], "adapted": made}, CityScenes(2, seed=2, look="photo", size=(64, 64)), size=(64, 64),
        batch_size=4, steps_per_epoch=3, num_workers=0, allow_overlap=True,
        targets=Targets(WithoutLabels(scenes[1]), ["adapted"]) if pairs else None,
    )  # fmt: skip


def trained(method: Adaptation | None, tmp_path, steps: int = 6, resume: str | None = None, **options) -> pl.Trainer:
    pl.seed_everything(0, verbose=False)
    module = SegmentationModule(network(), adaptation=method)
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False} | options
    trainer = pl.Trainer(
        max_steps=steps, default_root_dir=tmp_path, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0, **settings,
    )  # fmt: skip
    trainer.fit(module, data(not isinstance(method, MinimumEntropy)), ckpt_path=resume, weights_only=False)
    return trainer


def weights(trainer: pl.Trainer) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trainer.lightning_module.state_dict().values()])


@pytest.mark.parametrize("method", [ClassMix, MinimumEntropy])
def test_a_run_that_was_interrupted_is_the_one_that_was_not(method: type[Adaptation], tmp_path) -> None:
    whole = weights(trained(method(), tmp_path))
    trained(method(), tmp_path, steps=3).save_checkpoint(tmp_path / "half.ckpt")
    assert torch.equal(weights(trained(method(), tmp_path, resume=str(tmp_path / "half.ckpt"))), whole)
    assert not torch.equal(weights(trained(None, tmp_path))[:100], whole[:100])


def test_targets_are_drawn_by_the_sample_alone() -> None:
    alone = {name: image for batch in loaded(data()) for name, image in batch}
    shared = {name: image for rank in (0, 1) for batch in loaded(data(), 2, rank) for name, image in batch}
    assert alone.keys() == shared.keys()
    assert all(torch.equal(alone[name], shared[name]) for name in alone)


def loaded(made: SegmentationData, processes: int = 1, rank: int = 0) -> list[list[tuple[str, torch.Tensor]]]:
    """(name and step, target) of each sample that has one."""
    made._processes = lambda: (processes, rank)  # type: ignore[method-assign]
    made.setup("fit")
    return [
        [(f"{step} {batch['name'][at]}", image) for at, image in zip(batch["target_of"], batch["target"], strict=True)]
        for step, batch in enumerate(made.train_dataloader())
        if "target" in batch
    ]  # fmt: skip


# What does not fit


@pytest.mark.parametrize(("option", "value"), [("decay", 1), ("decay", -0.1), ("confidence", 1.5), ("confidence", "x")])
def test_values_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{option}={value!r}: expected a number from 0 "):
        ClassMix(**{option: value})


def test_targets_that_cannot_be_read_are_skipped_where_images_are(tmp_path) -> None:
    """Each time the next one stands for it, and is noted."""
    made = data()
    made.targets = Targets(Damaged(made.train["scenes"]), ["adapted"])
    with pytest.raises(InputError, match="scene 3: damaged"):
        loaded(made)
    made.on_error, made.trainer = "skip", pl.Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    made._batches_done = lambda: 0  # type: ignore[method-assign]
    assert sum(map(len, loaded(made))) == 6
    assert "scene 3: damaged" in (tmp_path / "damaged.txt").read_text()


class Damaged(Wrapper):
    """A dataset one of whose samples cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise InputError("scene 3: damaged")
        return self.dataset[index]


def test_gradients_of_several_batches_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"adaptation: does not go with gradients of 2 batches"):
        trained(MinimumEntropy(), tmp_path, accumulate_grad_batches=2)


def test_targets_that_do_not_fit_are_refused() -> None:
    scenes = CityScenes(2, seed=0, size=(64, 64))
    options = {"batch_size": 2, "num_workers": 0, "allow_overlap": True}
    with pytest.raises(InputError, match="targets: no domain 'other'; expected some of scenes"):
        SegmentationData({"scenes": scenes}, scenes, size=(64, 64), targets=Targets(scenes, ["other"]), **options)
    with pytest.raises(InputError, match="targets: need images of one size"):
        SegmentationData({"scenes": scenes}, scenes, size=None, targets=Targets(scenes, ["scenes"]), **options)
