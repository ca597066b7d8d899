"""Networks and files of other programs for the tests of weights, in their true formats, and what all of those check."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.weights import LoadReport, load_weights

WIDTH = 0.125  # 8 to 64 channels, 512 in fc6
VGG16 = [[8, 8], [16, 16], [32, 32, 32], [64, 64, 64], [64, 64, 64]]


class PytorchFCN8s(nn.Module):
    """The FCN-8s of pytorch-fcn: its layers' names, its crops, its deconvolutions over all pairs of classes."""

    def __init__(self, classes: int, in_channels: int = 3) -> None:
        super().__init__()
        channels = in_channels
        for block, widths in enumerate(VGG16, start=1):
            for i, width in enumerate(widths, start=1):
                pad = 100 if block == i == 1 else 1
                self.add_module(f"conv{block}_{i}", nn.Conv2d(channels, width, 3, padding=pad))
                channels = width
        self.fc6, self.fc7 = nn.Conv2d(64, 512, 7), nn.Conv2d(512, 512, 1)
        self.score_fr = nn.Conv2d(512, classes, 1)
        self.score_pool3, self.score_pool4 = nn.Conv2d(32, classes, 1), nn.Conv2d(64, classes, 1)
        for name, size in (("upscore2", 4), ("upscore8", 16), ("upscore_pool4", 4)):
            deconvolution = nn.ConvTranspose2d(classes, classes, size, size // 2, bias=False)
            centre, x = (size - 1) / 2, torch.arange(size)
            ramp = 1 - (x - centre).abs() / (size / 2)
            deconvolution.weight.data = torch.eye(classes)[:, :, None, None] * torch.outer(ramp, ramp)
            self.add_module(name, deconvolution)

    def forward(self, images: Tensor) -> Tensor:
        x, pools = images, {}
        for block, widths in enumerate(VGG16, start=1):
            for i in range(1, len(widths) + 1):
                x = F.relu(self.get_submodule(f"conv{block}_{i}")(x))
            pools[block] = x = F.max_pool2d(x, 2, ceil_mode=True)
        x = self.get_submodule("upscore2")(self.score_fr(F.relu(self.fc7(F.relu(self.fc6(x))))))
        x = x + self.score_pool4(pools[4])[..., 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
        x = self.get_submodule("upscore_pool4")(x)
        x = x + self.score_pool3(pools[3])[..., 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
        x = self.get_submodule("upscore8")(x)
        return x[..., 31 : 31 + images.shape[2], 31 : 31 + images.shape[3]]


def reference_net(classes: int = 21) -> PytorchFCN8s:
    """With random weights whose scores are of size one, and biases."""
    torch.manual_seed(0)
    net = PytorchFCN8s(classes)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.normal_(layer.bias, std=0.1)
    return net.eval()


def fcn(name: str = "fcn8s_vgg16", **options: Any) -> FCN:
    return create_model(name, **{"num_classes": 21, "width": WIDTH, "padding": "caffe", **options}).eval()


def loaded(source: Any, name: str = "fcn8s_vgg16", **options: Any) -> tuple[FCN, LoadReport]:
    model = fcn(name, **options)
    return model, load_weights(model, source, verbose=False)


def blobs(net: nn.Module) -> dict[str, list[np.ndarray]]:
    """The layers of a network as Caffe's blobs."""
    layers = ((name, layer) for name, layer in net.named_children() if list(layer.parameters()))
    return {name: [p.detach().numpy() for p in layer.parameters()] for name, layer in layers}


def written(path: Path, layers: dict[str, list[np.ndarray]], old_format: bool = False) -> Path:
    """A .caffemodel; in the old format every blob has four dimensions."""
    net = NetParameter()
    for name, arrays in layers.items():
        layer = (net.layers if old_format else net.layer).add(name=name.encode())
        for array in arrays:
            blob = layer.blobs.add(data=[array.astype("<f4").tobytes()])
            if old_format:
                shape = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())
    return path


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=0, equal_nan=True)


def assert_refused(model: FCN, source: Any, *reasons: str, **options: Any) -> None:
    """One line with all the reasons, and a model that is as it was."""
    before, spec = state(model), model.spec
    with pytest.raises(InputError) as caught:
        load_weights(model, source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for reason in (*reasons, *([str(source)] if isinstance(source, Path) else [])):
        assert reason in message
    assert_same(state(model), before)
    assert model.spec is spec


def features(blocks: list[list[int]], batch_norm: bool = False) -> nn.Sequential:
    """The trunk of one of torchvision's VGGs, by its own builder, with statistics that are not a new model's."""
    cfg: list[str | int] = [item for block in blocks for item in (*block, "M")]
    layers = torchvision.models.vgg.make_layers(cfg, batch_norm=batch_norm)
    for name, values in layers.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            nn.init.uniform_(values, 0.1, 0.3)
    return layers.eval()
