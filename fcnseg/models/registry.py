"""`create_model`: a model by its name, with random weights or trained ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcnseg.errors import InputError
from fcnseg.models.build import build
from fcnseg.models.fcn import FCN
from fcnseg.models.sources import DEMO
from fcnseg.models.spec import ModelSpec, find_preparation
from fcnseg.models.weights import load_weights


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    padding: str = "same",
    weights: str | Path | None = None,
    width: float = 1.0,
    fc_channels: int | None = None,
    fc6_rank: int | None = None,
    dropout: float = 0.5,
    preparation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str = "rgb",
    image_type: str = "uint8",
    scaling: str | None = None,
    clip: float | None = None,
    input_size: Sequence[int] | None = None,
    resize: str = "keep",
    label_space: Mapping[str, Any] | None = None,
) -> FCN:
    """Build an FCN by name.

    Args:
        name: `fcn{32,16,8,4,2}s_{backbone}[_{variant}]`, see `list_models()`. Variants: `atonce` scales the skips as
            the reference's at-once network; `stem2` and `stem4` stride the first layers 2 or 4 times further.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        padding: "same", or "caffe" for the reference's geometry.
        weights: None: He initialisation, to train from scratch; "imagenet"; "demo", for "fcn8s_vgg16_bn" with the
            demo's width; or whatever else `load_weights` takes, such as a .caffemodel, a .pth, a checkpoint or a
            folder. Prints what became of each tensor.
        width: factor on the channel counts of backbone, fc6 and fc7; 0.25 trains on a laptop.
        fc_channels: channels of fc6 and fc7, which the width then says nothing of; 4096 by default over our own
            trunks. Of trained weights with more, the first are taken, see `load_weights`.
        fc6_rank: fc6 as a convolution to so many channels and one of kernel 1 to `fc_channels`, to train it so;
            `factorise` makes that of a trained fc6.
        dropout: probability after fc6 and fc7.
        preparation: how images are prepared, by its name, in place of mean, std and channel order: "caffe" for networks
            that went through Caffe (BGR minus ImageNet's mean), whatever files their weights are in now; "imagenet".
        mean, std: per channel, in image values; by default those that the weights were trained with, where that is
            known, or ImageNet's for three channels and their averages otherwise.
        channel_order: "rgb", or "bgr" where the network sees blue first, as Caffe's do.
        image_type, scaling: the values that images come in, see `ModelSpec`; datasets know them.
        clip: greatest absolute value of a normalised image, see `ModelSpec`.
        input_size: (height, width) that images are resized to before the model; None keeps their size.
        resize: how they come to it, "keep" or "stretch", see `ModelSpec`; data tell it, as they tell the size.
        label_space: `LabelSpace.to_dict()`, kept with the weights.

    Returns:
        The model: (N, in_channels, H, W) floats to (N, num_classes, H, W) logits, for any H and W.

    Raises:
        InputError: for an unknown name (with the nearest ones), a value out of range, or weights that do not fit.
    """
    if weights == "demo":  # a narrow network: take its width, and how it sees images, where nothing else is said
        demo = json.loads((DEMO / "config.json").read_text())["architecture"]
        width = demo["width"] if width == 1 else width
        if input_size is None:
            input_size, resize = demo["input_size"], demo.get("resize", "stretch")
        label_space = label_space or (demo["label_space"] if num_classes == demo["num_classes"] else None)
    spec: dict[str, Any] = {
        "name": name,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "padding": padding,
        "width": width,
        "fc_channels": fc_channels,
        "fc6_rank": fc6_rank,
        "dropout": dropout,
        "mean": mean,
        "std": std,
        "channel_order": channel_order,
        "image_type": image_type,
        "scaling": scaling,
        "clip": clip,
        "input_size": input_size,
        "resize": resize,
        "label_space": label_space,
    }
    if preparation is not None:
        spec |= _by_name(preparation, spec)
    model = build(ModelSpec(**spec))
    if weights is not None:
        load_weights(model, weights, prepare=mean is None and std is None, preparation=preparation)
        model.provenance["weights_source"] = Path(weights).name
    return model


def _by_name(preparation: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec a preparation's name stands for.

    Raises:
        InputError: for an unknown name, where the spec says a part of it too, and for other than 8-bit images.
    """
    named = find_preparation(preparation)
    said = [key for key, unsaid in (("mean", None), ("std", None), ("channel_order", "rgb")) if spec[key] != unsaid]
    if said:
        raise InputError(f"preparation={preparation}: says {said[0]} as well, which is {spec[said[0]]}; expected one")
    if spec["image_type"] != "uint8" or spec["scaling"] is not None:
        kind = spec["image_type"] if spec["scaling"] is None else f"scaled by {spec['scaling']}"
        raise InputError(f"preparation={preparation}: is for 0 to 255, the images are {kind}; expected mean and std")
    return vars(named.for_channels(spec["in_channels"]))
