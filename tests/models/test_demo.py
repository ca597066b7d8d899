"""The small model that comes with the package: it loads, starts others, and scores what its card says."""

from dataclasses import replace

import pytest
import torch

from fcnseg.data import CityScenes
from fcnseg.inference import Predictor
from fcnseg.labels import STREET11, LabelSpace
from fcnseg.models import create_model
from fcnseg.models.loading import from_pretrained
from fcnseg.models.sources import DEMO


def test_the_demo_model_comes_with_the_package() -> None:
    model = from_pretrained("demo")
    assert LabelSpace(**model.spec.label_space) == STREET11
    assert model.provenance["metrics"]["mean_iou"] > 0.6
    assert (DEMO / "model.safetensors").stat().st_size <= 5_000_000


def test_the_demo_weights_start_a_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    demo = from_pretrained("demo")
    model = create_model("fcn8s_vgg16_bn", num_classes=11, weights="demo").eval()
    assert model.spec == replace(demo.spec, dropout=model.spec.dropout)
    image = torch.randn(1, 3, 40, 50)
    with torch.inference_mode():
        assert torch.equal(model(image), demo(image))
    other = create_model("fcn8s_vgg16_bn", num_classes=3, in_channels=1, weights="demo")
    assert (other.spec.width, other.spec.label_space) == (demo.spec.width, None)
    assert "starts at zero again" in capsys.readouterr().out


def test_the_demo_model_scores_what_its_card_says() -> None:
    """On the first scenes of those that it was scored on; the card's value is of a hundred."""
    predictor, scenes = Predictor.from_pretrained("demo"), CityScenes(8, seed=1, look="real", size=(180, 240))
    right = [(predictor(image).mask == mask)[mask < 11].mean() for image, mask, _ in (scenes[i] for i in range(8))]
    expected = predictor.model.provenance["metrics"]["pixel_accuracy"]
    assert sum(right) / len(right) == pytest.approx(expected, abs=0.05)
