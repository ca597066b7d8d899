"""Temperatures that are known beforehand, and calibration errors by brute force."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax, softmax

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation.calibration import (
    BINS,
    calibrate,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    save_reliability,
)
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models import resample


def calibrated(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax is the very distribution that the labels are drawn from."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(count, 5))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    labels = (random.random((count, 1)) > chances).sum(axis=1).clip(max=4)
    return torch.from_numpy(logits).float(), torch.from_numpy(labels).to(torch.uint8)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_is_found_again(temperature):
    logits, labels = calibrated(200_000)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.02)


def test_likelihood_is_that_of_scipy():
    logits, labels = calibrated(1000)
    expected = -log_softmax(logits.double().numpy() / 1.7, axis=1)[np.arange(1000), labels].mean()
    assert negative_log_likelihood(logits, labels, 1.7) == pytest.approx(expected, rel=1e-9)


def brute_force(logits: np.ndarray, labels: np.ndarray) -> float:
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        inside = (confidence >= number / 15) & ((confidence < (number + 1) / 15) | (number == 14))
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_calibration_error_is_that_of_brute_force(temperature):
    logits, labels = calibrated(150_000)  # more than are computed at once
    bins = reliability(temperature * logits, labels)
    expected = brute_force(temperature * logits.double().numpy(), labels.numpy())
    assert bins.expected_calibration_error == pytest.approx(expected, abs=1e-6)
    assert sum(bins.pixels) == 150_000
    assert reliability(temperature * logits, labels, temperature).expected_calibration_error < 0.01


class Oversure(torch.nn.Module):
    """Stands for a network whose logits are known: those of the true distribution times 3, at half the labels' size."""

    def __init__(self, fields: list[torch.Tensor]) -> None:
        super().__init__()
        self.fields, self.device = fields, torch.device("cpu")

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([3 * self.fields[int(image.flatten()[0])] for image in images])


def field(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(5, 40, 50) logits, and an (80, 100) mask drawn from what they become at its size; a fifth of it is ignored."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(2 * random.normal(size=(1, 5, 40, 50))).float()
    chances = resample(logits, (80, 100))[0].softmax(dim=0).cumsum(dim=0).numpy()
    mask = (random.random((80, 100)) > chances).sum(axis=0).clip(max=4).astype(np.uint8)
    mask[random.random((80, 100)) < 0.2] = IGNORE_INDEX
    return logits[0], torch.from_numpy(mask)


@pytest.fixture(scope="module")
def oversure() -> tuple[Oversure, list[dict]]:
    fields, masks = zip(*map(field, range(8)), strict=True)
    images = torch.arange(8)[:, None, None, None]
    loader = [{"image": images[i : i + 3], "mask": list(masks[i : i + 3]), "name": []} for i in (0, 3, 6)]
    return Oversure(list(fields)), loader


def test_calibration_of_an_oversure_network(oversure):
    found = calibrate(*oversure)
    labelled = [int((mask != IGNORE_INDEX).sum()) for batch in oversure[1] for mask in batch["mask"]]
    assert (found.fitted_pixels, found.reported_pixels) == (sum(labelled[::2]), sum(labelled[1::2]))
    assert found.temperature == pytest.approx(3, rel=0.03)
    assert found.ece_after < found.ece_before / 5
    assert found.nll_after < found.nll_before
    before, after = found.bins
    assert (before.expected_calibration_error, after.expected_calibration_error) == (found.ece_before, found.ece_after)


def test_a_drawn_part_tells_the_same_and_the_same_again(oversure):
    part = calibrate(*oversure, pixels_per_image=1000)
    assert (part.fitted_pixels, part.reported_pixels) == (4000, 4000)
    assert part.temperature == pytest.approx(3, rel=0.1)
    assert calibrate(*oversure, pixels_per_image=1000).to_dict() == part.to_dict()
    assert calibrate(*oversure, pixels_per_image=1000, seed=1).temperature != part.temperature


def test_report_and_fit_are_of_other_images(oversure):
    """With the labels of every second image made certain, the report changes and the temperature stays."""
    model, loader = oversure
    number, changed = 0, []
    for batch in loader:
        masks = []
        for mask in batch["mask"]:
            masks.append(torch.where(mask == IGNORE_INDEX, mask, 0) if number % 2 else mask)
            number += 1
        changed.append(batch | {"mask": masks})
    found, expected = calibrate(model, changed), calibrate(model, loader)
    assert found.temperature == expected.temperature
    assert found.nll_after != expected.nll_after


def test_a_single_image_is_too_few(oversure):
    model, loader = oversure
    batch = {name: values[:1] for name, values in loader[0].items()}
    with pytest.raises(InputError, match="two images"):
        calibrate(model, [batch])


def test_a_networks_mode_is_kept_and_predictions_are_the_evaluators():
    scenes = CityScenes(4, seed=1, look="real", size=(40, 56))
    data = SegmentationData({"real": scenes}, scenes, size=(30, 42), num_workers=0)
    torch.manual_seed(1)
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=11, width=0.1, input_size=data.size).train()
    torch.nn.init.normal_(model.score_fr.weight)
    found = calibrate(model, data.validation_loader())
    assert model.training
    right = sum(n * a for n, a in zip(found.bins[0].pixels, found.bins[0].accuracy, strict=True) if n)
    matrices = fcnseg.evaluation.evaluate(model, data.validation_loader()).per_image[1::2]
    assert round(right) == sum(int(np.trace(matrix)) for matrix in matrices)


def test_it_is_told_in_json_and_drawn(oversure, tmp_path):
    found = calibrate(*oversure)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["temperature"] == found.temperature
    assert len(again["bins_after"]["accuracy"]) == BINS
    save_reliability(found, tmp_path / "reliability.png")
    with Image.open(tmp_path / "reliability.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # both curves
