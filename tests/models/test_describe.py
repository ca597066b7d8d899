"""What a file of weights says of the network that it belongs to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.labels import VOC21
from fcnseg.models import create_model, from_pretrained
from fcnseg.models.description import describe_weights
from fcnseg.models.weights import load_weights
from tests.models.foreign import VGG16, WIDTH, PytorchFCN8s, blobs, fcn, features, reference_net, saved, state, written


@pytest.fixture(scope="module")
def reference() -> PytorchFCN8s:
    return reference_net()


@pytest.mark.parametrize(
    ("without", "extra", "file", "name"),
    [
        ((), (), "fcn8s", "fcn8s_vgg16"),
        (("score_pool3",), (), "fcn16s", "fcn16s_vgg16"),
        (("score_pool3", "score_pool4"), (), "fcn32s-heavy", "fcn32s_vgg16"),
        ((), ("scale_pool3", "scale_pool4"), "pascal", "fcn8s_vgg16_atonce"),
        ((), (), "fcn8s-atonce_from_caffe", "fcn8s_vgg16_atonce"),
        ((), (), "fcn8s-at-once", "fcn8s_vgg16_atonce"),
    ],
)
def test_a_file_describes_its_network(
    reference: PytorchFCN8s, tmp_path: Path, without: tuple[str, ...], extra: tuple[str, ...], file: str, name: str
) -> None:
    layers = {k: v for k, v in blobs(reference).items() if k not in without}
    layers |= {k: [np.ones(1, np.float32)] for k in extra}
    written(tmp_path / f"{file}.caffemodel", layers)
    tensors = {
        f"{k}.{kind}": torch.from_numpy(v)
        for k, vs in layers.items()
        for kind, v in zip(("weight", "bias"), vs, strict=False)
    }
    saved(tmp_path / f"{file}.pth", tensors)
    for path in (tmp_path / f"{file}.caffemodel", tmp_path / f"{file}.pth"):
        described = describe_weights(path)
        assert described == {
            "name": name,
            "num_classes": 21,
            "padding": "caffe",
            "label_space": VOC21.to_dict(),
            "width": WIDTH,
        }
        model = create_model(described.pop("name"), **described)
        assert not load_weights(model, path, verbose=False).missing


def test_a_file_describes_caffenet(tmp_path: Path) -> None:
    """DIGITS' FCN-AlexNet; at full width, for which the first and last layers say enough."""
    layers = {
        "conv1": [np.ones((96, 3, 11, 11), np.float32), np.ones(96, np.float32)],
        "score_fr_5classes": [np.ones((5, 4096, 1, 1), np.float32), np.ones(5, np.float32)],
    }
    assert describe_weights(written(tmp_path / "snapshot.caffemodel", layers)) == {
        "name": "fcn32s_caffenet",
        "num_classes": 5,
        "padding": "caffe",
        "label_space": None,
    }


def test_vgg19_and_other_channels_are_described(reference: PytorchFCN8s, tmp_path: Path) -> None:
    tensors = state(reference) | {"conv3_4.weight": torch.ones(32, 32, 3, 3), "conv1_1.weight": torch.ones(64, 6, 3, 3)}
    described = describe_weights(saved(tmp_path / "colour-depth.pth", tensors))
    assert described["name"] == "fcn8s_vgg19"
    assert described["in_channels"] == 6
    assert "width" not in described


def test_files_without_scores_say_how_to_use_them(reference: PytorchFCN8s, tmp_path: Path) -> None:
    classifier = saved(tmp_path / "vgg16.pth", {f"features.{k}": v for k, v in features(VGG16).state_dict().items()})
    trunk = saved(tmp_path / "trunk.pth", {k: v for k, v in state(reference).items() if k.startswith("conv")})
    caffe = written(tmp_path / "VGG.caffemodel", {k: v for k, v in blobs(reference).items() if "sco" not in k})
    own = saved(tmp_path / "own.pth", fcn().state_dict())
    for path, what in ((classifier, "no score"), (trunk, "no score"), (caffe, "no score"), (own, "no FCN of Caffe's")):
        with pytest.raises(InputError, match=rf"holds {what}.*create_model\(NAME, weights=PATH") as caught:
            describe_weights(path)
        assert str(path) in str(caught.value)


def test_first_layers_of_a_far_larger_network_than_the_file_are_refused(tmp_path: Path) -> None:
    """Before that network takes memory: of 33 thousand million weights, and of 5."""
    tensors = {"conv1_1.weight": torch.zeros(1000, 3, 3, 3), "score_fr.weight": torch.zeros(2, 8, 1, 1)}
    with pytest.raises(
        InputError, match=r"wide\.pth: holds 27016 weights; fcn32s_vgg16 as wide as its layers has 3\d{10}"
    ):
        from_pretrained(saved(tmp_path / "wide.pth", tensors))
    tensors |= {"conv1_1.weight": torch.zeros(64, 3, 3, 3), "fc6.bias": torch.zeros(60_000)}
    with pytest.raises(InputError, match=r"holds 61744 weights; fcn32s_vgg16 as wide as its layers has 5\d{9}"):
        from_pretrained(saved(tmp_path / "wide.pth", tensors))


@pytest.mark.parametrize("name", ["fcn4s_vgg16", "fcn2s_vgg19"])
def test_a_file_describes_skips_beyond_the_references(tmp_path: Path, name: str) -> None:
    state = create_model(name, num_classes=4, padding="caffe", width=WIDTH).state_dict()
    path = saved(tmp_path / "fcn.pth", {key.removeprefix("backbone."): values for key, values in state.items()})
    assert describe_weights(path)["name"] == name
