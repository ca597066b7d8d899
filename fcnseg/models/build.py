"""From a spec to its network, with random weights: nothing is read, downloaded or printed."""

from fcnseg.errors import InputError
from fcnseg.models.backbones import BACKBONES, Backbone, create_backbone
from fcnseg.models.fcn import FCN
from fcnseg.models.names import SKIPS, STEMS, ModelName, parse_name
from fcnseg.models.spec import ModelSpec
from fcnseg.models.timm_backbones import TimmBackbone

AT_ONCE_SCALES = (0.01, 0.0001)
"""Factors on pool4 and pool3 in the reference's voc-fcn8s-atonce: they bring the skips of VGGs to one scale."""


def build(spec: ModelSpec) -> FCN:
    """The network that a spec describes, in training mode, from its random initialisation.

    Raises:
        InputError: for an unknown name, or what its backbone cannot be.
    """
    name = parse_name(spec.name)
    skips = SKIPS[name.stride]
    return FCN(_backbone(name, spec), skips, spec, AT_ONCE_SCALES[:skips] if name.variant == "atonce" else None)


def _backbone(name: ModelName, spec: ModelSpec) -> Backbone:
    finest = min(name.stride, 8)
    if name.backbone in BACKBONES:
        stem = STEMS.get(name.variant, 1)
        return create_backbone(name.backbone, spec.in_channels, spec.padding, spec.width, stem, finest)
    if spec.padding != "same" or spec.width != 1:
        raise InputError(f"{name}: padding={spec.padding}, width={spec.width}; timm's backbones take same and 1.0 only")
    return TimmBackbone(name.backbone, spec.in_channels, finest=finest)
