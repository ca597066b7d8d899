"""A model with nothing of a new one's, its files, and what the tests of saving and loading check of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from fcnseg.errors import InputError
from fcnseg.labels import STREET11
from fcnseg.models import FCN, create_model
from fcnseg.models.loading import from_pretrained

PROVENANCE = {
    "training_data": {"train": {"real": "367 images", "synthetic": "2000 images"}, "ratio": [6, 4]},
    "metrics": {
        "mean_iou": 0.4375,
        "mean_accuracy": None,
        "step": 1200,
        "classes": {"sky": {"iou": 0.9375, "accuracy": 0.96875, "pixels": 12}, "pole": {"iou": None}},
    },
    "weights_source": "vgg16.caffemodel",
}


def trained(name: str = "fcn8s_vgg16_bn", **options: Any) -> FCN:
    """No score, bias or running mean is what a new model has, so that a lost tensor shows."""
    torch.manual_seed(0)
    arguments = {"num_classes": 11, "width": 0.05, "input_size": (32, 48), "label_space": STREET11.to_dict()}
    model = create_model(name, **(arguments | options)).eval()
    for key, values in model.state_dict().items():
        if key.endswith(("bias", "running_mean")) or key.startswith("score_"):
            nn.init.normal_(values)
    model.provenance = json.loads(json.dumps(PROVENANCE))
    return model


def logits(model: FCN) -> torch.Tensor:
    channels = model.spec.in_channels
    images = torch.arange(channels * 45 * 50, dtype=torch.float32).reshape(1, channels, 45, 50) % 251
    with torch.inference_mode():
        return model(model.normalise(images))


def assert_equal(found: FCN, expected: FCN) -> None:
    assert found.spec == expected.spec
    assert not found.training
    assert logits(expected).std() > 0
    torch.testing.assert_close(logits(found), logits(expected), rtol=0, atol=0)


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def assert_refused(source: Path | str, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        from_pretrained(source)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def checkpoint(model: FCN, **spec: Any) -> dict[str, Any]:
    """What Lightning saves of a module that holds the network as `self.model`, with other things beside it."""
    return {
        "epoch": 7,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()} | {"loss.weight": torch.ones(3)},
        "hyper_parameters": {"spec": model.spec.to_dict() | spec, "lr": 0.1},
    }


def front_matter(card: str) -> tuple[dict, str]:
    _, matter, text = card.split("---\n", 2)
    return yaml.safe_load(matter), text
