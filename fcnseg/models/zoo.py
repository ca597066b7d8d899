"""The model zoo's catalogue: which published weights fit which network, with their scores and where they come from."""

import json
from dataclasses import dataclass, replace

from fcnseg.models.backbones import BACKBONES
from fcnseg.models.names import parse_name
from fcnseg.models.sources import DEMO

_BERKELEY = "http://dl.caffe.berkeleyvision.org"
_SEG11 = "mean IU on PASCAL VOC seg11valid"
_TOP1 = "top-1 accuracy on ImageNet, as a classifier"


@dataclass(frozen=True)
class Published:
    """Weights that someone has published.

    Attributes:
        weights: what `create_model(weights=...)` or `from_pretrained(...)` takes: a name, or a file to fetch first.
        score: as published, in percent; None where there is none for this network.
        measure: what the score is.
        source: where weights and score come from.
    """

    weights: str
    score: float | None
    measure: str
    source: str


# Scores: README of github.com/shelhamer/fcn.berkeleyvision.org.
_REFERENCE = {
    "fcn32s_vgg16": Published("fcn32s-heavy-pascal.caffemodel", 63.6, _SEG11, _BERKELEY),
    "fcn16s_vgg16": Published("fcn16s-heavy-pascal.caffemodel", 65.0, _SEG11, _BERKELEY),
    "fcn8s_vgg16": Published("fcn8s-heavy-pascal.caffemodel", 65.5, _SEG11, _BERKELEY),
    "fcn8s_vgg16_atonce": Published("fcn8s-atonce-pascal.caffemodel", 65.4, _SEG11, _BERKELEY),
    "fcn32s_caffenet": Published("fcn-alexnet-pascal.caffemodel", 48.0, _SEG11, _BERKELEY),
}

# Trunk, fc6 and fc7 only. Scores: torchvision's documentation of its weights, IMAGENET1K_V1.
_IMAGENET = {
    "vgg16": Published("imagenet", 71.592, _TOP1, "torchvision"),
    "vgg16_bn": Published("imagenet", 73.360, _TOP1, "torchvision"),
    "vgg19": Published("imagenet", 72.376, _TOP1, "torchvision"),
    "alexnet": Published("imagenet", 56.522, _TOP1, "torchvision"),
}


def published_weights(name: str) -> list[Published]:
    """The known weights of a model, whole networks first.

    Raises:
        InputError: for an unknown name.
    """
    parts = parse_name(name)
    found = [_REFERENCE[name]] if name in _REFERENCE else []
    if name == (demo := _demo())[0]:
        found.append(demo[1])
    if imagenet := _IMAGENET.get(parts.backbone):
        strided = parts.variant.startswith("stem")
        found.append(replace(imagenet, score=None) if strided else imagenet)
    elif parts.backbone not in BACKBONES:
        found.append(Published("imagenet", None, "timm's default weights of the trunk", "timm"))
    return found


def _demo() -> tuple[str, Published]:
    """The shipped model's name, and its weights with the score in its own config."""
    config = json.loads((DEMO / "config.json").read_text())
    score = 100 * float(config["metrics"]["mean_iou"])
    return config["architecture"]["name"], Published("demo", score, "mean IoU on the embedded scenes", "this package")
