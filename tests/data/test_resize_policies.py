"""How images come to a network's input: aspect ratios kept, images stretched, or left alone, from batch to mask.

Scores are compared through a network that reads the class of a pixel off its colour: it is right wherever it is asked
about the pixel that the label speaks of.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Trainer
from torch import Tensor

from fcnseg import Predictor, create_model, from_pretrained
from fcnseg.data.datamodule import SegmentationData
from fcnseg.data.transforms import resize_pipeline, street_pipeline
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate
from fcnseg.evaluation.calibration import calibrate
from fcnseg.geometry import shown_size
from fcnseg.labels import STREET11
from fcnseg.models import ModelSpec, segmented
from fcnseg.training import SegmentationModule

FRAME = (24, 36)
SIZES = ((48, 48), (24, 72), (48, 16), (48, 72))
"""Of images that fit into `FRAME` by halving."""

SHOWN = ((24, 24), (12, 36), (24, 8), (24, 36))
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging")


class Blocks:
    """Blocks of 8x8 pixels of one class each, whose images are 20 times the class plus 20 everywhere."""

    label_space = STREET11

    def __init__(self, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        height, width = self.sizes[index]
        classes = np.random.default_rng(index).integers(0, 11, (-(-height // 8), -(-width // 8)))
        mask = np.kron(classes, np.ones((8, 8)))[:height, :width].astype(np.uint8)
        return np.stack([20 * mask + 20] * 3, axis=2), mask, f"blocks{index}"


def read_off(images: Tensor) -> Tensor:
    """(N, 3, h, w) images of `Blocks` to (N, 11, h, w) scores: 100 for the class whose colour is nearest, 0 else."""
    colours = 20.0 * torch.arange(11).view(1, 11, 1, 1) + 20
    nearest = (images[:, :1].float() - colours).abs().argmin(dim=1)
    return 100.0 * torch.nn.functional.one_hot(nearest, 11).permute(0, 3, 1, 2)


class ByColour:
    """What evaluation and prediction ask of a network."""

    device = torch.device("cpu")

    def __init__(self, resize: str = "keep") -> None:
        self.spec = ModelSpec("fcn32s_vgg16", 11, input_size=FRAME, resize=resize, label_space=STREET11.to_dict())

    def logits(self, images: Tensor) -> Tensor:
        return read_off(images)

    def segment_each(self, images: Tensor, sizes: Any, shown: Any = None) -> list[Tensor]:
        return segmented(self.logits(images), sizes, shown)

    def tiling(self) -> None:
        return None


def data(resize: str = "keep", size: tuple[int, int] | None = FRAME, **options: Any) -> SegmentationData:
    options = {"batch_size": len(SIZES), "num_workers": 0, **options}
    return SegmentationData({"blocks": Blocks()}, Blocks(), size=size, resize=resize, **options)


# Sizes


side = st.integers(1, 3000)


@settings(max_examples=300, deadline=None)
@given(height=side, width=side, rows=side, columns=side)
def test_the_size_that_is_shown_is_the_largest_of_the_ratio_within_the_frame(
    height: int, width: int, rows: int, columns: int
) -> None:
    factor = min(Fraction(rows, height), Fraction(columns, width))
    for found, length, most in zip(
        shown_size((height, width), (rows, columns), "keep"), (height, width), (rows, columns), strict=True
    ):
        assert 1 <= found <= most
        assert abs(found - length * factor) <= Fraction(1, 2) or found == 1
    assert shown_size((height, width), (rows, columns), "stretch") == (rows, columns)
    assert shown_size((height, width), (rows, columns), "native") == (height, width)
    assert shown_size((height, width), None, "keep") == (height, width)


@pytest.mark.parametrize(
    ("size", "frame"),
    [((360, 480), (180, 240)), ((720, 960), (360, 480)), ((1024, 2048), (512, 1024)), ((180, 240), (90, 120))],
)
def test_of_equal_ratios_nothing_is_padded(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert shown_size(size, frame, "keep") == frame


def test_synthia_and_cityscapes_lose_their_distortion() -> None:
    """SYNTHIA-RAND-CITYSCAPES at 512x1024 was scaled by 0.67 and 0.80."""
    height, width = shown_size((760, 1280), (512, 1024), "keep")
    assert (height, width) == (512, 862)
    assert height / 760 == pytest.approx(width / 1280, rel=1e-3)


# Batches


def blockwise(image: np.ndarray, shown: tuple[int, int]) -> np.ndarray:
    """An image shrunk by whole numbers."""
    high, wide = image.shape[0] // shown[0], image.shape[1] // shown[1]
    return image.reshape(shown[0], high, shown[1], wide, 3).mean(axis=(1, 3))


def test_training_and_validation_are_shown_the_same_pixels_and_masks_ignore_the_padding() -> None:
    (validated,) = data().val_dataloader()
    (trained,) = data().train_dataloader()
    assert validated["shown"] == list(SHOWN)
    assert validated["image"].shape == trained["image"].shape == (4, 3, *FRAME)
    for image, mask in zip(trained["image"], trained["mask"], strict=True):
        (index,) = (i for i in range(4) if torch.equal(image, validated["image"][i]))
        pixels, label, _ = Blocks()[index]
        height, width = SHOWN[index]
        inside = image[:, :height, :width].permute(1, 2, 0).numpy()
        assert np.array_equal(inside, blockwise(pixels, (height, width)))
        assert (image[:, height:] == image[:, height - 1 : height]).all()
        assert (image[:, :, width:] == image[:, :, width - 1 : width]).all()
        assert np.array_equal(mask[:height, :width], (inside[..., 0] - 20) // 20)
        assert (mask[height:] == 255).all()
        assert (mask[:, width:] == 255).all()
        assert torch.equal(validated["mask"][index], torch.from_numpy(label))


@pytest.mark.parametrize("resize", ["keep", "stretch"])
def test_a_disc_stays_round_in_the_street_pipeline_if_the_ratio_is_kept(resize: str) -> None:
    rows, columns = np.mgrid[:60, :120]
    mask = ((rows - 30) ** 2 + (columns - 60) ** 2 < 25**2).astype(np.uint8)
    image = np.stack([200 * mask] * 3, axis=2)
    augment = street_pipeline((64, 64), scale=(0.5, 1.0), colour=0, resize=resize)
    for seed in range(10):
        found = augment(image, mask, seed)[1] == 1
        height, width = found.any(axis=1).sum(), found.any(axis=0).sum()
        assert width == pytest.approx(height if resize == "keep" else height / 2, abs=1.1)


def test_images_of_the_frames_ratio_are_augmented_alike_whether_kept_or_stretched() -> None:
    image, mask = np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8), np.zeros((72, 96), np.uint8)
    for seed in range(20):
        kept, stretched = (
            street_pipeline((36, 48), resize=resize)(image, mask, seed) for resize in ("keep", "stretch")
        )
        assert np.array_equal(kept[0], stretched[0])
        assert np.array_equal(kept[1], stretched[1])


# Native size


def test_whole_images_of_any_size_are_padded_to_the_largest_of_the_batch() -> None:
    (batch,) = data(size=None).train_dataloader()
    assert batch["image"].shape == (4, 3, 48, 72)
    found = set()
    for image, mask in zip(batch["image"], batch["mask"], strict=True):
        (index,) = (i for i, (_, label, _) in enumerate(map(Blocks().__getitem__, range(4))) if fits(label, mask))
        (height, width), (pixels, label, _) = SIZES[index], Blocks()[index]
        found.add(index)
        assert np.array_equal(image[:, :height, :width].permute(1, 2, 0), pixels)
        assert np.array_equal(mask[:height, :width], label)
        assert (mask == 255).sum() == mask.numel() - height * width
        assert (image[:, height:] == image[:, height - 1 : height]).all()
        assert (image[:, :, width:] == image[:, :, width - 1 : width]).all()
    assert found == {0, 1, 2, 3}


def fits(label: np.ndarray, mask: Tensor) -> bool:
    return ((mask != 255).any(dim=1).sum(), (mask != 255).any(dim=0).sum()) == label.shape


@pytest.mark.parametrize(("resize", "size"), [("keep", None), ("native", FRAME)])
def test_native_images_are_validated_one_by_one_in_their_own_size(resize: str, size: tuple[int, int] | None) -> None:
    made = data(resize, size)
    assert made.input_size is None
    for index, batch in enumerate(made.val_dataloader()):
        assert batch["index"] == [index]
        assert np.array_equal(batch["image"][0].permute(1, 2, 0), Blocks()[index][0])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_crops_at_native_size_are_of_the_images_own_pixels(scale: tuple[float, float]) -> None:
    """Red and green tell row and column, so that a crop says where it comes from and at which scale."""
    rows, columns = np.mgrid[:200, :150].astype(np.uint8)
    image, mask = np.stack([rows, columns, rows], axis=2), (rows // 20).astype(np.uint8)
    augment = street_pipeline((40, 30), scale=scale, flip=0, colour=0, resize="native")
    places = set()
    for seed in range(30):
        crop, label = augment(image, mask, seed)
        assert crop.shape == (40, 30, 3)
        top, left = crop[0, 0, :2]
        places.add((int(top), int(left)))
        if scale == (1.0, 1.0):
            assert np.array_equal(crop, image[top : top + 40, left : left + 30])
            assert np.array_equal(label, mask[top : top + 40, left : left + 30])
        down, across = (np.polyfit(range(n), values, 1)[0] for n, values in ((40, crop[:, 0, 0]), (30, crop[0, :, 1])))
        assert down == pytest.approx(across, rel=0.07)
        assert 1 / scale[1] - 0.03 <= down <= 1 / scale[0] + 0.03
    assert len(places) > 20


def test_without_a_size_the_street_pipeline_crops_nothing() -> None:
    image, mask, _ = Blocks()[1]
    same = street_pipeline(None, scale=(1, 1), flip=0, colour=0)(image, mask, 0)
    assert np.array_equal(same[0], image)
    assert np.array_equal(same[1], mask)
    assert street_pipeline(None, scale=(0.5, 0.5))(image, mask, 0)[0].shape == (12, 36, 3)
    assert resize_pipeline(None)(image, mask, 0)[0].shape == image.shape


# Scores


@pytest.mark.parametrize("resize", ["keep", "stretch", "native"])
def test_evaluation_calibration_and_prediction_ask_about_the_right_pixels(resize: str) -> None:
    made, network = data(resize), ByColour("stretch" if resize == "stretch" else "keep")
    found = evaluate(network, made.validation_loader())  # type: ignore[arg-type]
    assert found.confusion.trace() == found.confusion.sum() == sum(height * width for height, width in SIZES)
    assert calibrate(network, made.validation_loader()).nll_before < 1e-3  # type: ignore[arg-type]
    predictor = Predictor(network, scale="native" if resize == "native" else "training")  # type: ignore[arg-type]
    masks = [segmentation.mask for segmentation in predictor.stream([Blocks()[i][0] for i in range(4)])]
    assert all(np.array_equal(mask, Blocks()[i][1]) for i, mask in enumerate(masks))
    (one,) = predictor([Blocks()[2][0]], probabilities=True)
    assert one.probabilities.shape == (11, *SIZES[2])
    assert np.array_equal(one.probabilities.argmax(axis=0), one.mask)


@pytest.mark.parametrize("resize", ["keep", "native"])
def test_training_validates_the_right_pixels(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("fcn32s_alexnet", num_classes=11, width=0.05)
    module = SegmentationModule(model)
    monkeypatch.setattr(model, "logits", read_off)
    (logged,) = Trainer(**QUIET, enable_progress_bar=False).validate(module, data(resize), verbose=False)
    assert logged["val/pixel_accuracy"] == 1
    assert logged["val/loss"] < 1e-6


def test_a_network_trains_on_whole_images_and_is_scored_alike_afterwards(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = data(size=None, batch_size=2)
    facts = {"num_classes": 11, "width": 0.05, "input_size": made.input_size, "label_space": STREET11.to_dict()}
    module = SegmentationModule(create_model("fcn8s_vgg16_bn", **facts))
    options = {"max_epochs": 2, "enable_progress_bar": False, "use_distributed_sampler": False, "log_every_n_steps": 1}
    trainer = Trainer(**QUIET, **options)
    trainer.fit(module, made)
    module.model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert again.spec.input_size is None
    assert module.last_evaluation is not None
    matrices = evaluate(again, made.validation_loader()).per_image
    assert np.array_equal(matrices, module.last_evaluation.per_image)


# Models


def spy(predictor: Predictor) -> list[Tensor]:
    """The images that the network is going to be given."""
    seen: list[Tensor] = []
    logits = predictor.model.logits

    def noting(images: Tensor) -> Tensor:
        seen.append(images)
        return logits(images)

    predictor.model.logits = noting  # type: ignore[method-assign]
    return seen


def test_a_model_keeps_how_its_images_were_resized_and_old_ones_stretch(tmp_path: Path) -> None:
    model = create_model("fcn32s_alexnet", num_classes=11, width=0.05, input_size=FRAME).eval()
    torch.nn.init.normal_(model.score_fr.weight)
    model.save_pretrained(tmp_path)
    kept, file = from_pretrained(tmp_path), tmp_path / "config.json"
    assert kept.spec.resize == model.spec.resize == "keep"
    assert "aspect ratio kept" in (tmp_path / "README.md").read_text()
    config: dict[str, Any] = json.loads(file.read_text())
    del config["architecture"]["resize"]  # as they were written before
    file.write_text(json.dumps(config))
    old = from_pretrained(tmp_path)
    assert old.spec.resize == "stretch"
    assert from_pretrained("demo").spec.resize == "stretch"
    image = np.random.default_rng(0).integers(0, 256, (96, 72, 3), np.uint8)
    for network, (height, width) in ((old, FRAME), (kept, (24, 18))):
        predictor = Predictor(network, device="cpu")
        seen = spy(predictor)
        assert predictor(image).mask.shape == (96, 72)
        assert seen[0].shape[-2:] == FRAME
        inside = seen[0][0, :, :height, :width].permute(1, 2, 0).numpy()
        assert np.abs(inside - blockwise(image, (height, width))).max() <= 0.5


def test_other_names_are_refused() -> None:
    with pytest.raises(InputError, match="resize=squash: expected one of keep, stretch, native"):
        street_pipeline(FRAME, resize="squash")
    with pytest.raises(InputError, match="resize=native: expected one of keep, stretch"):
        create_model("fcn32s_alexnet", num_classes=2, width=0.05, resize="native")
