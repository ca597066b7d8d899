"""Trained weights into a model, from wherever they come, with a report of what became of each tensor."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.models.build import build
from fcnseg.models.caffemodel import read_caffemodel
from fcnseg.models.fcn import FCN
from fcnseg.models.low_rank import factorise
from fcnseg.models.sources import Source, from_blobs, read_imagenet, read_source
from fcnseg.models.spec import ModelSpec, Preparation, find_preparation
from fcnseg.models.surgery import (
    SCORES,
    adapt_first,
    adapt_scores,
    as_convolution,
    checked,
    fewer_units,
    upsampling_difference,
    without_leading_ones,
)

_KINDS = ("copied", "reshaped", "adapted", "dropped", "missing")
_SHOWN = 8  # entries of a kind in a report's summary
_TOLERANCE = 1e-4  # between a source's fixed layers and ours


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a source and of the model. `str()` of it is a summary of a few lines.

    Attributes:
        source: the file or what stands for it.
        format: "caffe", "pytorch-fcn", "torchvision", "timm" or "fcnseg".
        copied: the model's tensors that were taken as they are; fixed layers that are equal to the model's.
        reshaped: those of fully connected layers that became convolutions.
        adapted: those made to fit: another number of channels or classes, with what was done.
        dropped: the source's tensors that have no place in the model, with the reason.
        missing: the model's tensors that the source lacks; they stay as they were.
        preparation: the preparation of images that the model took over; "" where it kept its own.
    """

    source: str
    format: str
    copied: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    preparation: str = ""

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.format}): " + ", ".join(f"{len(getattr(self, k))} {k}" for k in _KINDS)]
        for kind in _KINDS[1:]:
            entries = getattr(self, kind)
            lines += [f"  {kind}: {entry}" for entry in entries[:_SHOWN]]
            if len(entries) > _SHOWN:
                lines.append(f"  {kind}: and {len(entries) - _SHOWN} more")
        return "\n".join(lines + ([f"  preparation: {self.preparation}"] if self.preparation else []))


def load_weights(
    model: FCN,
    source: str | Path | Mapping[str, Tensor],
    *,
    scores: str = "auto",
    prepare: bool = True,
    preparation: str | None = None,
    verbose: bool = True,
) -> LoadReport:
    """Load trained weights into `model`: all that fit, or none.

    Nothing in a file is executed. Tensors are cast to the model's type. Fully connected layers become convolutions.
    A first convolution over 3 channels is adapted to the model's number of channels so that an image whose channels
    are all equal gives what it gives as a grey image of 3 channels. Upsampling in an FCN is bilinear and fixed: a
    source's is compared with it.

    Args:
        model: of the same width as the source; its trunk's layers are the source's. Where it was given fewer
            `fc_channels` than the source's fc6 has, the first units are taken; with `fc6_rank`, a whole fc6 is
            factorised.
        source: "imagenet" for torchvision's or timm's weights; "demo" for the package's; a .caffemodel; a .pth of
            pytorch-fcn, of a torchvision classifier or of a model of ours, a Lightning checkpoint, .safetensors or
            a folder with `model.safetensors`; or such a state dict.
        scores: "auto" takes score layers over the same number of classes and starts others at zero again,
            "expand" takes as many classes as both have, "reset" starts them all at zero.
        prepare: take over the preparation of images that the weights were trained with, where it is known: from
            Caffe's and pytorch-fcn's weights (BGR with a mean and no scale) and our checkpoints. Networks of other
            than 3 channels take those means' average.
        preparation: its name, "caffe" or "imagenet", where the source does not tell it.
        verbose: print the report, in the first process of a distributed run.

    Raises:
        InputError: when the file is missing, damaged or of another network, a tensor does not fit or is not finite, or
            the source tells another preparation than the named one.
    """
    imagenet = isinstance(source, str) and source == "imagenet"
    read = read_imagenet(model.spec.name, model.spec.in_channels) if imagenet else read_source(source)
    if preparation is not None:
        read = _prepared(read, find_preparation(preparation), preparation, imagenet)
    return load_source(model, read, scores, prepare, verbose)


def _prepared(source: Source, preparation: Preparation, name: str, imagenet: bool) -> Source:
    """The source, told how the images were prepared that it was trained on.

    Raises:
        InputError: where it is known to have been trained on others.
    """
    known = find_preparation("imagenet") if imagenet and source.preparation is None else source.preparation
    if known is None:
        return replace(source, preparation=preparation)
    if not known.is_close(preparation.for_channels(len(known.mean))):
        raise InputError(f"preparation={name}: {source.name} was trained with {known}; expected none beside it")
    return source


def load_caffe_weights(
    model: FCN,
    source: str | Path | Mapping[str, Sequence[np.ndarray]],
    *,
    scores: str = "auto",
    prepare: bool = True,
    verbose: bool = True,
) -> LoadReport:
    """`load_weights` for a .caffemodel of any suffix, or {layer name: [weight, bias]} of arrays in Caffe's order.

    Raises:
        InputError: as `load_weights`.
    """
    if isinstance(source, Mapping):
        read = from_blobs("caffe blobs", source)
    else:
        read = from_blobs(str(source), read_caffemodel(source))
    return load_source(model, read, scores, prepare, verbose)


def load_source(model: FCN, source: Source, scores: str, prepare: bool, verbose: bool) -> LoadReport:
    """`load_weights` of what has been read."""
    if scores not in SCORES:
        raise InputError(f"scores={scores!r}: expected one of {', '.join(SCORES)}")
    if model.spec.fc6_rank is not None and "fc6.L.weight" not in source.tensors:
        return _load_whole(model, source, scores, prepare, verbose)
    if model.spec.fc6_rank is None and "fc6.L.weight" in source.tensors:
        rank = len(source.tensors["fc6.L.weight"])
        raise InputError(f"{source.name}: its fc6 is of rank {rank}; expected a model with fc6_rank={rank}")
    state = model.state_dict()
    names = _names(source, state, model.spec.name)
    _check_trunk(source, names, state, model.spec.name)
    source, notes = _with_fewer_units(source, names, model.spec)
    fits = {target: _fit(target, source, names, state, scores, model.spec) for target in state}
    preparation = _preparation_to_adopt(source, names, state) if prepare else None
    fits |= {name: replace(fits[name], kind="adapted", note=note) for name, note in notes.items()}
    report = _report(model, source, names, fits, preparation)
    with torch.no_grad():
        for target, fit in fits.items():
            if fit.values is not None:
                state[target].copy_(fit.values)
    if preparation is not None:
        model.prepare(replace(model.spec, **vars(preparation)))
    if verbose and all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK")):
        print(report)
    return report


def _load_whole(model: FCN, source: Source, scores: str, prepare: bool, verbose: bool) -> LoadReport:
    """Weights with a whole fc6, or none, for a network whose fc6 has a rank: through the same network with a whole one.

    The report is on that.
    """
    whole = build(replace(model.spec, fc6_rank=None))
    whole.load_state_dict(_but_fc6(model), strict=False)
    report = load_source(whole, source, scores, prepare, verbose)
    if any(note.startswith("fc6.weight") for note in report.missing):
        model.load_state_dict(_but_fc6(whole), strict=False)
    else:
        model.load_state_dict(factorise(whole, model.spec.fc6_rank or 1, verbose=verbose).state_dict())
    model.prepare(replace(whole.spec, fc6_rank=model.spec.fc6_rank))
    return report


def _but_fc6(model: FCN) -> dict[str, Tensor]:
    return {name: values for name, values in model.state_dict().items() if not name.startswith("fc6.")}


def _with_fewer_units(source: Source, names: Mapping[str, str], spec: ModelSpec) -> tuple[Source, dict[str, str]]:
    """The source with as many units in fc6 and fc7 as were asked for, where it has more; what was done, by tensor."""
    fewer = spec.fc_channels
    units = 0 if "fc6.bias" not in names else source.tensors[names["fc6.bias"]].numel()
    if fewer is None or units <= fewer:
        return source, {}
    cut = [name for name in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias", "score_fr.weight") if name in names]
    try:
        made = fewer_units({name: source.tensors[names[name]] for name in cut}, units, fewer)
    except RuntimeError as error:
        raise InputError(f"{source.name}: fc6 and fc7 are not of the {units} units of its fc6.bias") from error
    note = f"the first {fewer} of {units} units"
    tensors = source.tensors | {names[name]: values for name, values in made.items()}
    notes = {name: f"{name} {tuple(source.tensors[names[name]].shape)}: {note}" for name in cut if "score" not in name}
    return replace(source, tensors=tensors), notes


def _names(source: Source, state: Mapping[str, Tensor], model: str) -> dict[str, str]:
    """The source's name for each of the model's tensors that it has."""
    names = {}
    for own in source.tensors:
        target = own if own in state else f"backbone.{own}"
        if target in state:
            names[target] = own
    if source.format == "torchvision" and not any(target.startswith("backbone.") for target in names):
        pairs = _torchvision_layers(source, state, model)
    else:
        pairs = _renamed_scores(source, state, names)
    for own in source.tensors:
        layer, _, kind = own.rpartition(".")
        if layer in pairs and f"{pairs[layer]}.{kind}" in state:
            names[f"{pairs[layer]}.{kind}"] = own
    return names


def _torchvision_layers(source: Source, state: Mapping[str, Tensor], model: str) -> dict[str, str]:
    """The model's layer for each of a classifier's, by their order; the last, which scores ImageNet's, has none."""
    layers = source.layers()
    found = [layer for layer in layers if layer.startswith("features.")]
    trunk = list(dict.fromkeys(name.rpartition(".")[0] for name in state if name.startswith("backbone.")))
    if len(found) > len(trunk):
        raise InputError(
            f"{source.name}: {len(found)} layers in features, the trunk of {model} has {len(trunk)}; nothing was loaded"
        )
    classifier = [layer for layer in layers if layer.startswith("classifier.")]
    return dict(zip(found, trunk, strict=False)) | dict(zip(classifier, ("fc6", "fc7"), strict=False))


def _renamed_scores(source: Source, state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, str]:
    """Score layers that carry more than their name, such as DIGITS' score_fr_21classes, for the model's."""
    pairs = {}
    for target in state:
        layer, _, kind = target.rpartition(".")
        if is_score(target) and kind == "weight" and target not in names:
            for own in source.layers():
                values = source.tensors.get(f"{own}.weight")
                if own.startswith(layer) and values is not None and values.shape[1:] == state[target].shape[1:]:
                    pairs[own] = layer
    return pairs


def is_score(name: str) -> bool:
    return name.startswith("score_")


def _convolutions(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights of the trunk's convolutions, in order."""
    return [name for name, values in state.items() if name.startswith("backbone.") and values.dim() == 4]


def _check_trunk(source: Source, names: Mapping[str, str], state: Mapping[str, Tensor], model: str) -> None:
    trunk = _convolutions(state)
    count = sum(name in names for name in trunk)
    if 2 * count < len(trunk):
        layers = source.layers()
        found = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        raise InputError(
            f"{source.name}: only {count} of {len(trunk)} layers of {model}'s trunk are in it (found {found}); "
            "nothing was loaded"
        )


@dataclass(frozen=True)
class _Fit:
    """A tensor as the model takes it; None where it keeps its own. `kind` is the report's field."""

    values: Tensor | None
    kind: str
    note: str


def _fit(
    target: str, source: Source, names: Mapping[str, str], state: Mapping[str, Tensor], scores: str, spec: ModelSpec
) -> _Fit:
    """The source's values for one of the model's tensors."""
    like = state[target]
    if target not in names:
        if is_score(target) and scores == "reset":
            return _Fit(torch.zeros_like(like), "adapted", f"{target} {tuple(like.shape)}: starts at zero again")
        return _Fit(None, "missing", f"{target} {tuple(like.shape)}")
    own = names[target]
    values = source.tensors[own]
    change = f"{target} {tuple(values.shape)} -> {tuple(like.shape)}"
    try:
        values = without_leading_ones(values, like.dim())
        kind, note = "copied", ""
        if is_score(target):
            values, note = adapt_scores(values, like, _score_mode(target, source, names, state, scores))
        elif target == _convolutions(state)[0]:
            values, note = _fit_first(values, like, source, spec)
        elif target in ("fc6.weight", "fc7.weight") and values.shape != like.shape:
            values, kind = as_convolution(values, like), "reshaped"
        if values.shape != like.shape:
            raise ValueError("of another network or width")
        values = checked(values, like)
    except ValueError as error:
        raise InputError(
            f"{source.name}: {own} {tuple(source.tensors[own].shape)} does not become {target} {tuple(like.shape)} "
            f"of {spec.name}: {error}"
        ) from error
    if note:
        return _Fit(values, "adapted", f"{change}: {note}")
    return _Fit(values, kind, change if kind == "reshaped" else target)


def _score_mode(target: str, source: Source, names: Mapping[str, str], state: Mapping[str, Tensor], scores: str) -> str:
    """A score layer whose weight cannot be taken does not keep its bias either."""
    weight = target.rpartition(".")[0] + ".weight"
    fits = weight in names and source.tensors[names[weight]].shape[1:] == state[weight].shape[1:]
    return scores if fits else "reset"


def _fit_first(values: Tensor, like: Tensor, source: Source, spec: ModelSpec) -> tuple[Tensor, str]:
    """The first convolution for the model's channels and their order."""
    if values.dim() != 4 or values.shape[1] == like.shape[1]:
        if source.format == "torchvision" and spec.channel_order == "bgr" and source.preparation is None:
            return values.flip(1), "filters in BGR order"
        return values, ""
    if source.preparation is not None and source.preparation.channel_order == "bgr":
        values = values.flip(1)
    return adapt_first(values, like.shape[1]), "filters over 3 channels shared among the model's"


def _preparation_to_adopt(source: Source, names: Mapping[str, str], state: Mapping[str, Tensor]) -> Preparation | None:
    """The preparation that the source's first convolution asks for; None where it is not known."""
    first = _convolutions(state)[0]
    if source.preparation is None or first not in names:
        return None
    if source.tensors[names[first]].shape[1] != len(source.preparation.mean):
        return None
    return source.preparation.for_channels(state[first].shape[1])


def _report(
    model: FCN, source: Source, names: Mapping[str, str], fits: Mapping[str, _Fit], preparation: Preparation | None
) -> LoadReport:
    entries: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for target, fit in fits.items():
        if fit.values is not None or not target.endswith("num_batches_tracked"):  # a counter that old files lack
            entries[fit.kind].append(fit.note)
    used = set(names.values())
    for own, values in source.tensors.items():
        if own not in used:
            kind, note = _left(model, own, values)
            entries[kind].append(f"{own} {tuple(values.shape)}{note}")
    entries["dropped"] += [f"{name}: beside the network" for name in source.beside]
    text = "" if preparation is None else str(preparation)
    return LoadReport(
        source.name, source.format, preparation=text, **{kind: tuple(notes) for kind, notes in entries.items()}
    )


def _left(model: FCN, own: str, values: Tensor) -> tuple[str, str]:
    """What to say of a tensor that the model has no parameter for: the fixed layers are compared with the model's."""
    layer, _, kind = own.rpartition(".")
    scales = {f"scale_{fusion.tap}": fusion.scale for fusion in model.fusions}
    if kind != "weight" or not (layer.startswith("upscore") or layer in scales):
        return "dropped", f": {model.spec.name} has no such layer"
    if layer in scales:
        difference, fixed = float((values.float() - scales[layer]).abs().max()), f"factor {scales[layer]:g}"
    else:
        difference, fixed = upsampling_difference(values), "bilinear upsampling"
    if difference <= _TOLERANCE:
        return "copied", " (fixed, equal)"
    return "dropped", f": differs from the model's fixed {fixed} by up to {difference:.4g}"
