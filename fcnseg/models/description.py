"""What network a file of other programs' weights belongs to, by its layers' names and shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fcnseg.errors import InputError
from fcnseg.labels import VOC21
from fcnseg.models.backbones import scaled
from fcnseg.models.build import build
from fcnseg.models.fcn import FCN
from fcnseg.models.sources import Source, read_source
from fcnseg.models.spec import ModelSpec, read_spec
from fcnseg.models.weights import is_score, load_source


def describe_weights(path: str | Path) -> dict[str, Any]:
    """`create_model` arguments for the FCN whose weights a .caffemodel or a file of pytorch-fcn holds.

    They are read off the layers' names and shapes: an FCN over VGG-16, VGG-19 or CaffeNet with the reference's
    padding; `label_space` is PASCAL VOC's where there are 21 classes.

    Raises:
        InputError: when the file is missing, damaged, or no such FCN.
    """
    return _describe(read_source(path), path)


def build_from(path: Path) -> FCN:
    """The FCN that a .caffemodel or a file of pytorch-fcn holds, with its weights; the file is read once.

    Raises:
        InputError: as `describe_weights` and `load_weights`.
    """
    source = read_source(path)
    spec = read_spec(_describe(source, path), str(path))
    _require_weights(spec, source)
    model = build(spec)
    load_source(model, source, scores="auto", prepare=True, verbose=True)
    return model


def _require_weights(spec: ModelSpec, source: Source) -> None:
    """Refuse a source whose first layers are of a network far larger than the source, before that takes memory.

    Raises:
        InputError: naming it and both numbers.
    """
    with torch.device("meta"):
        wanted = sum(values.numel() for values in build(spec).parameters())
    held = sum(values.numel() for values in source.tensors.values())
    if wanted > 2 * held:
        raise InputError(f"{source.name}: holds {held} weights; {spec.name} as wide as its layers has {wanted}")


def _describe(source: Source, path: str | Path) -> dict[str, Any]:
    layers = source.layers()
    score = next((layer for layer in layers if layer.startswith("score_fr")), None)
    first = next((layer for layer in ("conv1_1", "conv1") if layer in layers), None)
    if source.format not in ("caffe", "pytorch-fcn") or score is None or first is None:
        what = "no score layers" if not any(map(is_score, layers)) else "no FCN of Caffe's or pytorch-fcn's"
        raise InputError(f"{path}: holds {what}; create a model to load it into: create_model(NAME, weights=PATH, ...)")
    kernels = [source.tensors.get(f"{layer}.weight") for layer in (score, first)]
    if any(kernel is None or kernel.dim() != 4 for kernel in kernels):
        raise InputError(f"{path}: {score} and {first} hold no kernels of four axes; expected convolutions")
    (classes, *_), (filters, channels, *_) = (kernel.shape for kernel in kernels if kernel is not None)
    described = {
        "name": _model_name(layers, Path(path).name),
        "num_classes": classes,
        "padding": "caffe",
        "label_space": VOC21.to_dict() if classes == VOC21.num_classes else None,
    }
    if channels != 3:
        described["in_channels"] = channels
    full = 64 if first == "conv1_1" else 96
    if filters != full:
        described["width"] = filters / full
    biases = source.tensors.get("fc6.bias")
    if biases is not None and biases.numel() != scaled(4096, filters / full):
        described["fc_channels"] = biases.numel()
    return described


def _model_name(layers: Sequence[str], file: str) -> str:
    if "conv1_1" not in layers:
        return "fcn32s_caffenet"
    stride = next((2**i for i in range(1, 5) if f"score_pool{i}" in layers), 32)
    at_once = {"scale_pool3", "scale_pool4"} & set(layers) or "atonce" in file.replace("-", "")
    trunk = "vgg19" if "conv3_4" in layers else "vgg16"
    return f"fcn{stride}s_{trunk}" + ("_atonce" if stride in (16, 8) and at_once else "")
