"""Small networks of every kind of head, with scores that are not zero."""

import torch
from torch import nn

from fcnseg.models import FCN, create_model

HEADS = [
    *((f"fcn{stride}s_vgg16", padding) for stride in (32, 16, 8, 4, 2) for padding in ("same", "caffe")),
    ("fcn8s_alexnet", "same"),
    ("fcn8s_alexnet", "caffe"),
    ("fcn4s_caffenet", "caffe"),
    ("fcn8s_vgg16_atonce", "same"),
    ("fcn8s_resnet18", "same"),
]
"""Names and paddings."""


def scored(name: str, padding: str = "same", **values) -> FCN:
    """With random scores and biases, whose zeros would hide everything behind them."""
    torch.manual_seed(3)
    width = {} if "resnet" in name or "mobilenet" in name else {"width": 0.05}
    model = create_model(name, padding=padding, **({"num_classes": 3} | width | values)).eval()
    for layer_name, layer in model.named_children():
        if layer_name.startswith("score_"):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.normal_(layer.bias)
    return model


def averaging(model: FCN) -> FCN:
    """The network with averages for maxima, equal positive weights and no biases: linear on positive images."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.MaxPool2d):
                window = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
                setattr(parent, name, nn.AvgPool2d(*window))
            elif isinstance(layer, nn.LocalResponseNorm):
                setattr(parent, name, nn.Identity())
            elif isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)  # timm begins with zeros
    return model.double()
