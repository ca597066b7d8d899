"""Where weights come from: torchvision and its cache, our own files, and files that are refused without harm."""

import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model
from fcnseg.models.description import describe_weights
from fcnseg.models.spec import IMAGENET_MEAN, IMAGENET_STD
from fcnseg.models.weights import load_weights
from tests.models.foreign import (
    VGG16,
    WIDTH,
    assert_refused,
    assert_same,
    fcn,
    features,
    loaded,
    reference_net,
    saved,
    state,
)

VGG19 = [[8, 8], [16, 16], [32] * 4, [64] * 4, [64] * 4]


# torchvision


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of downloads, empty, with no way to download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "builder", "file"),
    [
        ("vgg16", torchvision.models.vgg16, "vgg16-397923af.pth"),
        ("alexnet", torchvision.models.alexnet, "alexnet-owt-7be5be79.pth"),
    ],
)
def test_the_middle_of_fc7_is_the_classifier(
    name: str, builder: Callable[..., nn.Module], file: str, cache: Path
) -> None:
    """At full width: on its training size, a classifier looks where the FCN's middle sample does."""
    torch.manual_seed(1)
    classifier = builder(init_weights=False).eval() if name == "vgg16" else builder().eval()
    torch.save(classifier.state_dict(), cache / file)
    model = create_model(f"fcn32s_{name}", num_classes=2).eval()
    report = load_weights(model, "imagenet", verbose=False)

    seen: dict[str, Tensor] = {}
    model.fc7.register_forward_hook(lambda *call: seen.update(fc7=call[-1].clone()))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = classifier.classifier[:6](torch.flatten(classifier.avgpool(classifier.features(images)), 1))
        model(images)
    assert seen["fc7"].shape == (1, 4096, 7, 7)
    assert expected.std() > 0
    found = F.relu(seen["fc7"][:, :, 3, 3])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))

    assert report.format == "torchvision"
    assert report.source == str(cache / file)
    assert report.reshaped == (
        f"fc6.weight (4096, {25088 if name == 'vgg16' else 9216}) -> {tuple(model.fc6.weight.shape)}",
        "fc7.weight (4096, 4096) -> (4096, 4096, 1, 1)",
    )
    assert report.dropped == tuple(
        f"classifier.6.{k}: fcn32s_{name} has no such layer" for k in ("weight (1000, 4096)", "bias (1000,)")
    )
    assert report.missing == ("score_fr.weight (2, 4096, 1, 1)", "score_fr.bias (2,)")
    assert model.spec.mean == IMAGENET_MEAN
    assert model.spec.std == IMAGENET_STD


@pytest.mark.parametrize(
    ("name", "blocks", "file"),
    [
        ("fcn16s_vgg16_bn", (VGG16, True), "vgg16_bn-6c64b313.pth"),
        ("fcn32s_vgg19", (VGG19, False), "vgg19-dcbb9e9d.pth"),
        ("fcn8s_vgg16_stem2", (VGG16, False), "vgg16-397923af.pth"),
        ("fcn8s_vgg16_atonce", (VGG16, False), "vgg16-397923af.pth"),
    ],
)
def test_trunks_of_torchvision(name: str, blocks: tuple[list[list[int]], bool], file: str, cache: Path) -> None:
    trunk = features(*blocks)
    tensors = {f"features.{k}": v for k, v in trunk.state_dict().items() if "num_batches" not in k}  # as old files
    torch.save(tensors, cache / file)
    model = fcn(name, padding="same")
    report = load_weights(model, "imagenet", verbose=False)
    assert len(report.copied) == len(tensors)
    assert not report.dropped
    assert all(entry.startswith(("fc6", "fc7", "score_")) for entry in report.missing)
    images = torch.randn(1, 3, 64, 96)
    if "stem" not in name:
        with torch.inference_mode():
            found = model.backbone(images)[model.backbone.taps[-1]]
            torch.testing.assert_close(found, trunk(images))
    # In a safetensors file features.10 stands before features.2.
    shuffled = dict(sorted(tensors.items()))
    again, _ = loaded(shuffled, name, padding="same")
    assert_same(state(again.backbone), state(model.backbone))


def test_torchvision_into_a_network_that_sees_blue_first() -> None:
    tensors = {f"features.{k}": v for k, v in features(VGG16).state_dict().items()}
    model, report = loaded(tensors, channel_order="bgr")
    first = model.backbone.get_submodule("conv1_1").weight
    torch.testing.assert_close(first, tensors["features.0.weight"].flip(1))
    assert report.adapted == ("backbone.conv1_1.weight (8, 3, 3, 3) -> (8, 3, 3, 3): filters in BGR order",)
    assert model.spec.channel_order == "bgr"


def test_torchvision_with_other_channels_stays_rgb() -> None:
    tensors = {f"features.{k}": v for k, v in features(VGG16).state_dict().items()}
    model, report = loaded(tensors, in_channels=4)
    first = model.backbone.get_submodule("conv1_1").weight
    torch.testing.assert_close(first[:, :3], tensors["features.0.weight"] * 3 / 4)
    assert model.spec.mean == (sum(IMAGENET_MEAN) / 3,) * 4  # as a new model's
    assert not report.preparation


def test_classifiers_of_other_networks() -> None:
    vgg19 = {f"features.{k}": v for k, v in features(VGG19).state_dict().items()}
    vgg16 = {f"features.{k}": v for k, v in features(VGG16).state_dict().items()}
    assert_refused(fcn(), vgg19, "16 layers in features, the trunk of fcn8s_vgg16 has 13")
    assert_refused(
        fcn("fcn8s_vgg19"), vgg16, "features.17.weight (64, 32, 3, 3)", "backbone.conv3_4.weight (32, 32, 3, 3)"
    )
    assert_refused(fcn("fcn8s_vgg16_bn"), vgg16, "features.2.weight (8, 8, 3, 3)", "bn1_1")


def test_imagenet_without_a_network(cache: Path) -> None:
    message = ("weights=imagenet: vgg16-397923af.pth could not be downloaded", str(cache), "https://", "put it into")
    assert_refused(fcn(), "imagenet", *message)
    assert not list(cache.iterdir())


def test_imagenet_from_a_damaged_file(cache: Path) -> None:
    (cache / "vgg16-397923af.pth").write_bytes(b"half a file")
    assert_refused(fcn(), "imagenet", str(cache / "vgg16-397923af.pth"), "damaged", "delete it to download it again")


def test_imagenet_for_trunks_that_torchvision_has_not(cache: Path) -> None:
    assert_refused(fcn("fcn32s_caffenet"), "imagenet", "torchvision has none for fcn32s_caffenet", ".caffemodel")


# Our own


@pytest.fixture(scope="module")
def trained() -> FCN:
    torch.manual_seed(3)
    model = create_model("fcn16s_vgg16_bn", num_classes=4, width=WIDTH, mean=(9, 8, 7), std=(6, 5, 4)).eval()
    for values in model.state_dict().values():
        if values.is_floating_point():
            nn.init.uniform_(values, 0.01, 0.1)
    return model


def own_formats(trained: FCN, folder: Path) -> Iterator[Any]:
    plain = trained.state_dict()
    yield plain
    for key in ("state_dict", "model", "model_state_dict"):
        yield saved(folder / f"{key}.pt", {key: plain, "epoch": 3})
    yield saved(folder / "ddp.pt", {f"module.{k}": v for k, v in plain.items()})
    yield saved(folder / "compiled.pt", OrderedDict((f"module._orig_mod.{k}", v) for k, v in plain.items()))
    lightning = {f"model.{k}": v for k, v in plain.items()} | {"loss.weight": torch.ones(4)}
    yield saved(folder / "last.ckpt", {"state_dict": lightning, "hyper_parameters": {"lr": 0.1}})
    safetensors.torch.save_file(plain, folder / "model.safetensors")
    yield folder / "model.safetensors"
    yield str(folder)


def test_our_own_formats(trained: FCN, tmp_path: Path) -> None:
    for source in own_formats(trained, tmp_path):
        model, report = loaded(source, "fcn16s_vgg16_bn", num_classes=4, padding="same")
        assert_same(state(model), state(trained))
        assert report.format == "fcnseg"
        assert set(report.copied) == set(trained.state_dict())
        assert not (*report.reshaped, *report.adapted, *report.missing)
        assert report.dropped in ((), ("loss.weight: beside the network",), ("epoch: beside the network",))
        assert model.spec.mean == IMAGENET_MEAN  # a state dict does not tell


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_preparation_of_our_checkpoints(trained: FCN, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        safetensors.torch.save_file(state(trained), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"library": "fcnseg", "architecture": trained.spec.to_dict()}))
        path = tmp_path
    else:
        content = {"state_dict": state(trained), "hyper_parameters": {"spec": trained.spec.to_dict()}}
        path = saved(tmp_path / "last.ckpt", content)
    model, report = loaded(path, "fcn16s_vgg16_bn", num_classes=4, padding="same")
    assert (model.spec.mean, model.spec.std) == ((9.0, 8.0, 7.0), (6.0, 5.0, 4.0))
    assert model.mean.flatten().tolist() == [9, 8, 7]
    assert report.preparation == "channels in rgb order, mean (9.0, 8.0, 7.0), std (6.0, 5.0, 4.0)"
    grey, _ = loaded(path, "fcn16s_vgg16_bn", num_classes=4, padding="same", in_channels=1)
    assert (grey.spec.mean, grey.spec.std) == ((8.0,), (5.0,))


@pytest.mark.parametrize(
    "spec",
    [
        None,
        "fcn8s_vgg16",
        {"mean": [1, 2, 3]},
        {"channel_order": "bgr", "mean": [1], "std": [1]},
        {"channel_order": "grb", "mean": [1, 2, 3], "std": [1, 1, 1]},
        {"channel_order": "rgb", "mean": [1, 2, 3], "std": [1, 0, 1]},
        {"channel_order": "rgb", "mean": [1, 2, float("nan")], "std": [1, 1, 1]},
        {"channel_order": "rgb", "mean": "abc", "std": [1, 1, 1]},
        {"channel_order": "rgb", "mean": [1, 2, 3, 4], "std": [1, 1, 1]},
        {"channel_order": "rgb", "mean": [1, 2, 3, 4], "std": [1, 1, 1, 1]},
    ],
)
def test_unusable_preparation_is_left_out(trained: FCN, spec: Any) -> None:
    content = {"state_dict": state(trained), "hyper_parameters": {"spec": spec}}
    model, report = loaded(content, "fcn16s_vgg16_bn", num_classes=4, padding="same")
    assert not report.preparation
    assert model.spec.mean == IMAGENET_MEAN


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_cast(trained: FCN, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state(trained).items()}
    safetensors.torch.save_file(tensors, tmp_path / "half.safetensors")
    model, _ = loaded(tmp_path / "half.safetensors", "fcn16s_vgg16_bn", num_classes=4, padding="same")
    assert {v.dtype for v in state(model).values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(model.fc6.weight, trained.fc6.weight.to(dtype).float(), rtol=0, atol=0)


# What is refused


def test_a_network_of_another_kind(tmp_path: Path) -> None:
    resnet = saved(tmp_path / "resnet.pth", torchvision.models.resnet18().state_dict())
    assert_refused(fcn(), resnet, "only 0 of 13 layers", "(found conv1, bn1, layer1.0.conv1, ...)")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors", ".caffemodel", ".tar"])
@pytest.mark.parametrize("data", [b"", b"a text\nof two lines\n", b"PK\x03\x04 no archive", b"\x80\x02.", b"\xff" * 99])
def test_foreign_files(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(data)
    assert_refused(fcn(), path)
    with pytest.raises(InputError, match=r"^[^\n]*$"):
        describe_weights(path)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, fraction: float) -> None:
    small = {k: v for k, v in state(reference_net()).items() if k.startswith("conv")}
    saved(tmp_path / "cut.pth", small)
    safetensors.torch.save_file(small, tmp_path / "cut.safetensors")
    for path in (tmp_path / "cut.pth", tmp_path / "cut.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data[: int(fraction * len(data))])
        assert_refused(fcn(), path, "damaged")


@pytest.mark.parametrize(
    "value", [torch.ones(3), [1, 2], {}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": {"a": 1}}]
)
def test_files_without_weights(tmp_path: Path, value: object) -> None:
    assert_refused(fcn(), saved(tmp_path / "other.pth", value), "holds no weights; expected tensors by name")


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["model"] = value
    assert_refused(fcn(), saved(tmp_path / "itself.pth", value), "or damaged (it holds itself)")


def test_missing_files(tmp_path: Path) -> None:
    assert_refused(fcn(), tmp_path / "nowhere.pth", "no such file")
    assert_refused(fcn(), tmp_path / "nowhere.caffemodel")
    assert_refused(fcn(), tmp_path, "model.safetensors: no such file")


class Bomb:
    """Runs a shell command in whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("archive", [True, False], ids=["torch", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".caffemodel"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, archive: bool, suffix: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / f"malicious{suffix}"
    content = {"model_state_dict": state(reference_net()), "best_mean_iu": Bomb(marker)}
    if archive:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert_refused(fcn(), path)
    with pytest.raises(InputError):
        describe_weights(path)
    assert not marker.exists()
    armed = shutil.copy(path, tmp_path / "armed")  # torch reads a file by its suffix, too
    torch.load(armed, weights_only=False) if archive else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was armed


def test_code_in_the_cache_is_not_executed(cache: Path, tmp_path: Path) -> None:
    saved(cache / "vgg16-397923af.pth", {"features.0.weight": torch.ones(8, 3, 3, 3), "x": Bomb(tmp_path / "executed")})
    assert_refused(fcn(), "imagenet", "vgg16-397923af.pth")
    assert not (tmp_path / "executed").exists()
