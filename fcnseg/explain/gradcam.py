"""Grad-CAM for segmentation, by Captum (the extra `explain`)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.explain.activations import activations, find_layer
from fcnseg.models import FCN
from fcnseg.models.tracing import evaluating


def require_captum() -> Any:
    """Captum's class for Grad-CAM.

    Raises:
        InputError: where it is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise InputError("Grad-CAM needs captum; pip install 'fcnseg[explain]'") from None
    return LayerGradCam


def grad_cam(
    model: FCN, images: Tensor, class_index: int, layer: str = "fc7", where: np.ndarray | None = None
) -> np.ndarray:
    """Where a layer speaks for a class: (h, w) float32 of 0 and more on the layer's own samples.

    Channels of the layer, weighted by the mean gradient of the class's score by each, are added up, and what is below 0
    is cut off (Selvaraju et al., "Grad-CAM", ICCV 2017). The score of a segmentation is the sum of the class's logits
    over a set of pixels (Vinogradova, Dibrov and Myers, "Towards interpretable semantic segmentation via
    gradient-weighted class activation mapping", AAAI 2020). What reaches the logits past the layer, as all skips do
    past fc7, has no part in its map. Channels are those of `activations`: of a layer that a ReLU follows, before it.

    Args:
        images: (1, C, H, W) normalised floats.
        class_index: of the class.
        layer: see `fcnseg.explain.layer_names`; with "fc7" what the coarsest scores are made of.
        where: (H, W) bool, the set of pixels; all of them by default.

    Raises:
        InputError: for another layer, one that gives no feature map, a set that is empty, or where Captum is missing.
    """
    LayerGradCam, site = require_captum(), find_layer(model, layer)  # noqa: N806
    pixels = None if where is None else torch.from_numpy(where).to(images.device)
    if pixels is not None and not pixels.any():
        raise InputError("Grad-CAM over no pixel at all; expected one or more")

    def score(x: Tensor) -> Tensor:
        logits = model(x)[:, class_index]
        return logits.sum((1, 2)) if pixels is None else logits[:, pixels].sum(1)

    activations(model, images, layer)  # or the line that says why there are none
    with torch.enable_grad(), evaluating(model):
        cam, given = LayerGradCam(score, site.module), images.detach().clone().requires_grad_()
        found = cam.attribute(given, attribute_to_layer_input=site.sees, relu_attributions=True)
    return found[0, 0].detach().float().cpu().numpy()
