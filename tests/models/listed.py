"""The models that tests of the whole zoo go through."""

from fcnseg.models import list_models
from fcnseg.models.names import parse_name

FINER = ("alexnet", "caffenet_stem4", "resnet18", "vgg16_bn")
"""Trunks, with the stem, whose FCN-4s and 2s stand for those of all: each differs from an 8s by a skip or two."""


def models_to_test() -> list[str]:
    """Every listed one down to stride 8, and the finer ones over `FINER`."""
    return [name for name in list_models() if parse_name(name).stride >= 8 or name.partition("_")[2] in FINER]
