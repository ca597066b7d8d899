"""The table of layers: against the shapes that the network really makes, torch's own counter, and published figures."""

import json
import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model, summarise

SIZES = [(1, 1), (33, 47), (64, 96)]
MODELS = [
    ("fcn8s_vgg16", "caffe"),
    ("fcn8s_vgg16", "same"),
    ("fcn4s_alexnet", "same"),
    ("fcn2s_vgg16", "caffe"),
    ("fcn8s_caffenet_stem4", "same"),
    ("fcn8s_resnet18", "same"),
    ("fcn16s_convnext_tiny", "same"),
]


def on_paper(name: str, padding: str = "same", **values) -> FCN:
    with torch.device("meta"):
        return create_model(name, padding=padding, **({"num_classes": 5} | values)).eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "padding"), MODELS)
def test_sizes_and_channels_are_those_of_the_run(name: str, padding: str, size: tuple[int, int]) -> None:
    model = on_paper(name, padding)
    shapes = {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            # A squeeze-and-excitation gate or the like never shows up in these networks: every layer is in the table.
            module.register_forward_hook(lambda m, i, out, layer=layer: shapes.update({layer: tuple(out.shape[1:])}))
    model(torch.empty(1, 3, *size, device="meta"))
    rows = {row.layer.name: (row.channels, *row.size) for row in summarise(model, size).rows}
    ran = {layer.removeprefix("backbone."): shape for layer, shape in shapes.items()}
    assert {layer: rows[layer] for layer in ran} == ran
    assert list(rows)[-1].startswith("upscore")
    assert len(rows) == len(summarise(model, size).rows), "no two layers have the same name"


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn4s_caffenet", "fcn16s_resnet18", "fcn2s_densenet121"])
def test_multiply_adds_are_half_of_torchs_floating_point_operations(name: str, size: tuple[int, int]) -> None:
    model = on_paper(name)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *size, device="meta"))
    convolutions = sum(row.multiply_adds for row in summarise(model, size).rows if not row.layer.transposed)
    assert convolutions == counter.get_total_flops() / 2


@pytest.mark.parametrize(("name", "billions"), [("convnext_tiny", 4.5), ("resnet50", 4.1), ("densenet121", 2.8)])
def test_trunks_cost_what_is_published(name: str, billions: float) -> None:
    """At 224x224: ConvNeXt's paper, table 1; torchvision's GFLOPS of the others, whose last layers count little."""
    rows = [row for row in summarise(on_paper(f"fcn32s_{name}")).rows if row.layer.name.startswith("body.")]
    assert sum(row.multiply_adds for row in rows) / 1e9 == pytest.approx(billions, abs=0.06)


def test_parameters_are_all_there() -> None:
    model = on_paper("fcn8s_vgg16")
    summary = summarise(model)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.parameters == sum(row.parameters for row in summary.rows)  # no normalisation layers here


@pytest.mark.parametrize(
    ("name", "crops"),
    [
        ("fcn32s_vgg16", [("upscore", 19)]),
        ("fcn8s_vgg16", [("score_pool4", 5), ("score_pool3", 9), ("upscore8", 31)]),
        ("fcn32s_caffenet", [("upscore", 18)]),
    ],
)
def test_crops_are_the_references_and_are_the_difference_of_two_offsets(name: str, crops: list) -> None:
    summary = summarise(on_paper(name, "caffe"))
    assert [(layer, pixels) for layer, pixels, _ in summary.crops] == crops
    for _, pixels, why in summary.crops:
        cut, kept = map(float, re.findall(r", (-?[\d.]+)(?=,|$)", why))
        assert cut - kept == pixels


def test_json_has_everything() -> None:
    content = json.loads(json.dumps(summarise(on_paper("fcn8s_alexnet"), (1, 30)).to_dict()))
    assert content["input_size"] == [1, 30]
    assert content["padded_size"] == [35, 35]
    pool1 = next(layer for layer in content["layers"] if layer["layer"] == "pool1")
    assert pool1 == {
        "layer": "pool1", "kernel": 3, "stride": 2, "padding": 0, "channels": 64, "size": [4, 4],
        "scale": "1/8", "offset": -0.875, "receptive_field": 19, "parameters": 0, "multiply_adds": 0,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["fcn8s_caffenet", "fcn32s_resnet18"])
def test_a_network_of_another_precision_has_the_same_layers(name: str, dtype: torch.dtype) -> None:
    assert summarise(on_paper(name).to(dtype)) == summarise(on_paper(name))


def test_sizes_that_are_none() -> None:
    with pytest.raises(InputError, match=r"input_size=\[0, 5\]: expected a height and a width"):
        summarise(on_paper("fcn8s_alexnet"), (0, 5))
