"""The preparation of images by a name, beside weights in any file."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.models import create_model, load_weights
from fcnseg.models.spec import CAFFE_PREPARATION, IMAGENET_MEAN, IMAGENET_STD
from tests.models.foreign import blobs, reference_net, saved, written


def small(**options: Any):
    return create_model(**({"name": "fcn32s_vgg16", "num_classes": 3, "width": 0.125} | options))


@pytest.fixture
def trunk(tmp_path: Path) -> Path:
    """VGG-16's convolutions by the names of Caffe's layers, and nothing else."""
    torch.manual_seed(0)
    return saved(tmp_path / "trunk.pth", dict(small().backbone.state_dict()))


def test_names_stand_for_what_the_formats_tell(trunk: Path) -> None:
    spec = small(preparation="caffe").spec
    assert (spec.channel_order, spec.mean, spec.std) == tuple(vars(CAFFE_PREPARATION).values())
    assert small(preparation="caffe", weights=trunk).spec == spec
    spec = small(preparation="imagenet").spec
    assert (spec.channel_order, spec.mean, spec.std) == ("rgb", IMAGENET_MEAN, IMAGENET_STD)
    assert small(weights=trunk).spec == spec, "without a name, where the file does not tell"


def test_filters_are_taken_as_they_are(trunk: Path, tmp_path: Path) -> None:
    """Also from a file that calls its layers as torchvision, whose own are over red, green, blue."""
    weights = torch.load(trunk, weights_only=True)
    renamed = saved(
        tmp_path / "renamed.pth",
        {f"features.{number}.{kind}": weights[f"{layer}.{kind}"] for number, layer, kind in numbered(weights)},
    )
    for path in (trunk, renamed):
        model = small(preparation="caffe", weights=path)
        assert torch.equal(model.backbone.conv1_1.weight, weights["conv1_1.weight"])
    turned = small(channel_order="bgr", weights=renamed)
    assert torch.equal(turned.backbone.conv1_1.weight, weights["conv1_1.weight"].flip(1))


def numbered(weights: dict[str, torch.Tensor]) -> list[tuple[int, str, str]]:
    """torchvision's number of each layer: a ReLU follows a convolution, and a pooling a block."""
    layers = list(dict.fromkeys(name.partition(".")[0] for name in weights))
    places = [2 * i + int(layer[4]) - 1 for i, layer in enumerate(layers)]
    return [(place, layer, kind) for place, layer in zip(places, layers, strict=True) for kind in ("weight", "bias")]


def test_images_of_more_channels_have_the_averages_and_their_own_order(trunk: Path) -> None:
    model = small(preparation="caffe", weights=trunk, in_channels=4)
    assert (model.spec.channel_order, model.spec.std) == ("rgb", (1.0,) * 4)
    assert model.spec.mean == pytest.approx((sum(CAFFE_PREPARATION.mean) / 3,) * 4)
    theirs = torch.load(trunk, weights_only=True)["conv1_1.weight"]
    torch.testing.assert_close(model.backbone.conv1_1.weight[:, :3].detach(), theirs.flip(1) * 0.75)


def test_a_file_that_tells_another_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "fcn8s.caffemodel", blobs(reference_net()))
    told = small(name="fcn8s_vgg16", padding="caffe", preparation="caffe", weights=path).spec
    assert told == small(name="fcn8s_vgg16", padding="caffe", weights=path).spec
    expected = r"^preparation=imagenet: .*fcn8s.caffemodel was trained with channels in bgr order, mean \(104.0"
    with pytest.raises(InputError, match=expected):
        small(name="fcn8s_vgg16", padding="caffe", preparation="imagenet", weights=path)


def test_a_model_of_ours_that_has_it_already_goes_on(trunk: Path, tmp_path: Path) -> None:
    """As the next stage of a training with the same settings; with other channels too."""
    for channels in (3, 1):
        small(preparation="caffe", weights=trunk, in_channels=channels).save_pretrained(tmp_path / "before")
        model = small(preparation="caffe", weights=tmp_path / "before", in_channels=channels)
        assert model.spec == small(preparation="caffe", in_channels=channels).spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preparation": "berkeley"}, "preparation='berkeley': expected one of imagenet, caffe"),
        ({"preparation": ["caffe"]}, r"preparation=\['caffe'\]: expected one of imagenet, caffe"),
        ({"std": [1, 1, 1]}, r"preparation=caffe: says std as well, which is \[1, 1, 1\]; expected one"),
        ({"channel_order": "bgr"}, "preparation=caffe: says channel_order as well, which is bgr; expected one"),
        ({"image_type": "uint16"}, "preparation=caffe: .* the images are uint16; expected mean and std"),
        ({"scaling": "log"}, "preparation=caffe: .* the images are scaled by log; expected mean and std"),
    ],
)
def test_what_does_not_go_with_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**({"preparation": "caffe"} | options))


def test_weights_are_told_of_it_afterwards(trunk: Path) -> None:
    model = small()
    report = load_weights(model, trunk, preparation="caffe", verbose=False)
    assert report.preparation.startswith("channels in bgr order")
    assert model.spec == small(preparation="caffe").spec
