"""What a layer gives for an image, and what it looks for: activations and filters of any layer by its name."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import IMAGE, Grid
from fcnseg.models import FCN
from fcnseg.models.tracing import evaluating

_TRUNK = "backbone."


@dataclass(frozen=True)
class Site:
    """Where a layer's map is taken.

    Attributes:
        module: that gives it.
        sees: the map is what the module is given, not what it gives.
    """

    module: nn.Module
    sees: bool = False


def _modules(model: FCN) -> dict[str, nn.Module]:
    """By the names that `fcnseg geometry` has for them, the trunk's without "backbone."."""
    named = {name.removeprefix(_TRUNK): module for name, module in model.named_modules()}
    return {name: module for name, module in named.items() if name not in ("", "backbone", "dropout")}


def _sites(model: FCN) -> dict[str, Site]:
    sites = {name: Site(module) for name, module in _modules(model).items()}
    scored = {str(fusion.tap): Site(model.get_submodule(f"score_{fusion.tap}"), True) for fusion in model.fusions[:-1]}
    taps = {model.backbone.taps[-1]: Site(model.fc6, True)} | scored
    return sites | {"fc7": Site(model.score_fr, True)} | {name: taps[name] for name in taps if name not in sites}


def layer_names(model: FCN) -> list[str]:
    """The layers of a network that compute something, in its order, and its taps; blocks of a trunk have names too."""
    return [name for name, site in _sites(model).items() if site.sees or not any(True for _ in site.module.children())]


def find_layer(model: FCN, name: str) -> Site:
    """Where the map of a layer is taken: after the layer itself, but fc7's after its ReLU, as it is scored.

    Raises:
        InputError: for another name, with close ones and all.
    """
    sites = _sites(model)
    if name in sites:
        return sites[name]
    near = get_close_matches(str(name), sites, n=3)
    hint = f"did you mean {', '.join(near)}? It has" if near else "it has"
    raise InputError(f"layer={name}: no layer of {model.spec.name}; {hint} {', '.join(layer_names(model))}")


def scored_layers(model: FCN) -> list[str]:
    """The layers whose maps are scored, coarse to fine: fc7, and the taps of the skips."""
    return ["fc7", *(str(fusion.tap) for fusion in model.fusions[:-1])]


def layer_grid(model: FCN, name: str) -> Grid:
    """Where a layer's samples lie on the image.

    Layers that keep their grid, such as a ReLU, have that of the convolution or pooling before them; a block of layers
    that of its last.
    """
    names, grids = list(_sites(model)), model.grids()
    end = max(i for i, each in enumerate(names) if each == name or each.startswith(f"{name}."))
    if (tap := name.removeprefix("score_")) in model.backbone.taps:
        return grids[tap]
    return next((grids[each] for each in names[end::-1] if each in grids), IMAGE)


def activations(model: FCN, images: Tensor, layer: str) -> np.ndarray:
    """(channels, h, w) float32: what a layer gives for an image, before a ReLU that follows; fc7's after it.

    Args:
        images: (1, C, H, W) normalised floats.
        layer: one of `layer_names`, or a block of layers, such as "body.layer2" of timm's.

    Raises:
        InputError: for another name, or a layer that gives no feature map.
    """
    site, found = find_layer(model, layer), []

    def keep(_: nn.Module, given: Any, out: Any = None) -> None:
        value = given[0] if site.sees else out
        found.append(value.clone() if isinstance(value, Tensor) else None)  # what follows may write over it

    hook = site.module.register_forward_pre_hook if site.sees else site.module.register_forward_hook
    handle = hook(keep)
    try:
        with torch.no_grad(), evaluating(model):
            model(images)
    finally:
        handle.remove()
    if not found or found[-1] is None or found[-1].dim() != 4:
        raise InputError(
            f"layer={layer}: gives no feature map of an image; expected one of {', '.join(layer_names(model))}"
        )
    return found[-1][0].float().cpu().numpy()


def has_filters(model: FCN, layer: str) -> bool:
    """Whether a layer is a convolution."""
    find_layer(model, layer)
    return isinstance(_modules(model).get(layer), nn.Conv2d)


def filters(model: FCN, layer: str) -> np.ndarray:
    """(outputs, inputs, k, k) float32 weights of a convolution.

    Those of the first layer have their colours in the order of an RGB image, whatever the network's: they are turned
    round where `spec.channel_order` is "bgr".

    Raises:
        InputError: for another name, or a layer without such weights.
    """
    find_layer(model, layer)
    convolution = _modules(model).get(layer)
    if not isinstance(convolution, nn.Conv2d):
        known = [name for name in layer_names(model) if has_filters(model, name)]
        raise InputError(f"layer={layer}: has no filters; expected one of {', '.join(known)}")
    weight = convolution.weight
    if layer == first_layer(model) and model.spec.channel_order == "bgr":
        weight = weight.flip(1)
    return weight.detach().float().cpu().numpy()


def first_layer(model: FCN) -> str:
    """The convolution that sees the image."""
    return next(name for name in layer_names(model) if has_filters(model, name))
