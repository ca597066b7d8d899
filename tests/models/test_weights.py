"""Weights of Caffe and pytorch-fcn in their true formats: the scores they give, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.models.spec import IMAGENET_MEAN
from fcnseg.models.weights import load_caffe_weights, load_weights
from tests.models.foreign import (
    PytorchFCN8s,
    assert_refused,
    assert_same,
    blobs,
    fcn,
    loaded,
    reference_net,
    saved,
    state,
    written,
)

BGR_MEAN = (104.00699, 116.66876, 122.67892)


@pytest.fixture(scope="module")
def reference() -> PytorchFCN8s:
    return reference_net()


# pytorch-fcn and Caffe


def test_pytorch_fcn_gives_its_scores(reference: PytorchFCN8s, tmp_path: Path) -> None:
    model, report = loaded(saved(tmp_path / "fcn8s_from_caffe.pth", reference.state_dict()))
    images = torch.randn(1, 3, 37, 52) * 50
    with torch.inference_mode():
        expected = reference(images)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert report.format == "pytorch-fcn"
    assert report.source == str(tmp_path / "fcn8s_from_caffe.pth")
    assert set(report.copied) == {
        *model.state_dict(),
        "upscore2.weight (21, 21, 4, 4) (fixed, equal)",
        "upscore_pool4.weight (21, 21, 4, 4) (fixed, equal)",
        "upscore8.weight (21, 21, 16, 16) (fixed, equal)",
    }
    assert not (*report.reshaped, *report.adapted, *report.dropped, *report.missing)


def test_training_checkpoint_of_pytorch_fcn(reference: PytorchFCN8s, tmp_path: Path) -> None:
    """It holds the best score as a number of numpy's beside the weights."""
    content = {
        "epoch": 3,
        "arch": "FCN8s",
        "optim_state_dict": {"state": {}, "param_groups": [{"lr": 1e-10}]},
        "model_state_dict": reference.state_dict(),
        "best_mean_iu": np.float64(0.63),
    }
    path = tmp_path / "model_best.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    model, report = loaded(path)
    assert report.format == "pytorch-fcn"
    torch.testing.assert_close(model.fc6.weight, reference.fc6.weight)


@pytest.mark.parametrize("old_format", [False, True], ids=["layer", "layers"])
def test_caffemodel(reference: PytorchFCN8s, tmp_path: Path, old_format: bool) -> None:
    path = written(tmp_path / "fcn8s.caffemodel", blobs(reference), old_format)
    model, report = loaded(path)
    expected, _ = loaded(reference.state_dict())
    assert_same(state(model), state(expected))
    assert report.format == "caffe"
    assert len(report.copied) == 2 * 18 + 3
    assert not (*report.reshaped, *report.adapted, *report.dropped, *report.missing)
    again = fcn()
    assert replace(load_caffe_weights(again, path, verbose=False), source="") == replace(report, source="")
    assert_same(state(again), state(model))


def test_a_classifier_of_caffe_becomes_convolutional(reference: PytorchFCN8s, tmp_path: Path) -> None:
    layers = {k: v for k, v in blobs(reference).items() if k.startswith("conv")}
    for name in ("fc6", "fc7"):
        weight, bias = blobs(reference)[name]
        layers[name] = [weight.reshape(512, -1), bias]
    layers["fc8"] = [np.ones((1000, 512), np.float32), np.ones(1000, np.float32)]
    fresh = fcn()
    for old_format in (False, True):
        model, report = loaded(written(tmp_path / "VGG_ILSVRC_16_layers.caffemodel", layers, old_format))
        for name in ("backbone.conv5_3.bias", "fc6.weight", "fc6.bias", "fc7.weight"):
            torch.testing.assert_close(state(model)[name], state(reference)[name.removeprefix("backbone.")])
        ones = "1, 1, " if old_format else ""
        assert report.reshaped == (
            f"fc6.weight ({ones}512, 3136) -> (512, 64, 7, 7)",
            f"fc7.weight ({ones}512, 512) -> (512, 512, 1, 1)",
        )
        assert report.dropped[0] == f"fc8.weight ({ones}1000, 512): fcn8s_vgg16 has no such layer"
        assert report.missing == tuple(f"{k} {tuple(v.shape)}" for k, v in state(fresh).items() if "score" in k)
        assert not report.adapted


def test_names_of_other_releases(reference: PytorchFCN8s) -> None:
    """Dashes, as some releases have them; DIGITS' score layer; layers of the first FCN releases that are no more."""
    layers = blobs(reference)
    layers["score_fr_21classes"] = layers.pop("score_fr")
    layers["score-pool4"] = layers.pop("score_pool4")
    layers["score59"] = layers["score-pool4"]
    layers["upsample"] = layers.pop("upscore2")
    model = fcn()
    report = load_caffe_weights(model, layers, verbose=False)
    torch.testing.assert_close(model.score_fr.weight, reference.score_fr.weight)
    torch.testing.assert_close(state(model)["score_pool4.bias"], reference.score_pool4.bias)
    assert [entry.partition(" ")[0] for entry in report.dropped] == [
        "score59.weight",
        "score59.bias",
        "upsample.weight",
    ]
    assert not report.missing
    assert report.source == "caffe blobs"


def test_a_score_layer_over_other_features_is_not_taken_for_ours(reference: PytorchFCN8s) -> None:
    layers = blobs(reference)
    del layers["score_fr"]
    layers["score_fr_coarse"] = [np.ones((21, 256, 1, 1), np.float32), np.ones(21, np.float32)]
    report = load_caffe_weights(fcn(), layers, verbose=False)
    assert report.missing == ("score_fr.weight (21, 512, 1, 1)", "score_fr.bias (21,)")
    assert [entry.partition(" ")[0] for entry in report.dropped] == ["score_fr_coarse.weight", "score_fr_coarse.bias"]


def test_trained_upsampling_is_reported(reference: PytorchFCN8s) -> None:
    tensors = state(reference)
    tensors["upscore8.weight"][3, 4, 7, 7] += 0.125
    tensors["upscore2.weight"][3, 3, 1, 1] += 0.00005
    _, report = loaded(tensors)
    assert report.dropped == (
        "upscore8.weight (21, 21, 16, 16): differs from the model's fixed bilinear upsampling by up to 0.125",
    )
    assert "upscore2.weight (21, 21, 4, 4) (fixed, equal)" in report.copied


def test_factors_of_the_at_once_network(reference: PytorchFCN8s) -> None:
    layers = blobs(reference)
    layers["scale_pool4"] = [np.full(64, 0.01, np.float32)]
    layers["scale_pool3"] = [np.full(1, 0.0001, np.float32)]
    model = fcn("fcn8s_vgg16_atonce")
    report = load_caffe_weights(model, layers, verbose=False)
    assert report.copied[-2:] == ("scale_pool4.weight (64,) (fixed, equal)", "scale_pool3.weight (1,) (fixed, equal)")
    report = load_caffe_weights(fcn(), layers, verbose=False)
    assert report.dropped == (
        "scale_pool4.weight (64,): differs from the model's fixed factor 1 by up to 0.99",
        "scale_pool3.weight (1,): differs from the model's fixed factor 1 by up to 0.9999",
    )


@pytest.mark.parametrize("name", ["fcn8s_vgg16_stem2", "fcn16s_vgg16", "fcn32s_vgg16"])
def test_other_strides_take_what_they_have(reference: PytorchFCN8s, name: str) -> None:
    model, report = loaded(reference.state_dict(), name)
    skips = {"fcn8": 0, "fcn16": 1, "fcn32": 2}[name.partition("s_")[0]]
    assert len(report.dropped) == 2 * skips
    assert not report.missing
    for target, values in state(model).items():
        torch.testing.assert_close(values, state(reference)[target.removeprefix("backbone.")])


def test_a_finer_network_starts_from_a_coarser_one(reference: PytorchFCN8s) -> None:
    tensors = {k: v for k, v in state(reference).items() if "pool" not in k}
    model = fcn()
    nn.init.ones_(model.get_submodule("score_pool4").weight)
    report = load_weights(model, tensors, verbose=False)
    assert report.missing == (
        "score_pool4.weight (21, 64, 1, 1)",
        "score_pool4.bias (21,)",
        "score_pool3.weight (21, 32, 1, 1)",
        "score_pool3.bias (21,)",
    )
    assert (state(model)["score_pool4.weight"] == 1).all()
    torch.testing.assert_close(model.score_fr.weight, reference.score_fr.weight)


# Preparation and channels


def test_images_are_prepared_as_for_caffe(reference: PytorchFCN8s) -> None:
    model, report = loaded(reference.state_dict(), mean=(1, 2, 3), std=(4, 5, 6))
    image = torch.randint(0, 256, (1, 3, 40, 33), dtype=torch.uint8)
    manual = image[0].permute(1, 2, 0).numpy()[:, :, ::-1].astype(np.float32) - np.array(BGR_MEAN, np.float32)
    prepared = torch.from_numpy(manual.transpose(2, 0, 1).copy())[None]
    torch.testing.assert_close(model.normalise(image), prepared)
    with torch.inference_mode():
        torch.testing.assert_close(model(model.normalise(image)), reference(prepared), rtol=1e-4, atol=1e-2)
    assert report.preparation == f"channels in bgr order, mean {BGR_MEAN}, std (1.0, 1.0, 1.0)"


def test_preparation_can_be_kept(reference: PytorchFCN8s) -> None:
    model = fcn(mean=(1, 2, 3))
    spec = model.spec
    report = load_weights(model, reference.state_dict(), prepare=False, verbose=False)
    assert model.spec is spec
    assert not report.preparation
    torch.testing.assert_close(model.backbone.get_submodule("conv1_1").weight, reference.conv1_1.weight)


def test_preparation_is_kept_without_the_first_convolution(reference: PytorchFCN8s) -> None:
    tensors = {k: v for k, v in state(reference).items() if not k.startswith("conv1_1")}
    model, report = loaded(tensors)
    assert model.spec.channel_order == "rgb"
    assert model.spec.mean == IMAGENET_MEAN
    assert report.missing == ("backbone.conv1_1.weight (8, 3, 3, 3)", "backbone.conv1_1.bias (8,)")


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_channels_see_grey_as_the_reference_does(reference: PytorchFCN8s, channels: int) -> None:
    model, report = loaded(reference.state_dict(), in_channels=channels)
    grey = torch.randint(0, 256, (1, 1, 35, 35)).float()
    mean = sum(BGR_MEAN) / 3
    assert model.spec.channel_order == "rgb"
    assert model.spec.mean == pytest.approx((mean,) * channels)
    assert model.spec.std == (1.0,) * channels
    with torch.inference_mode():
        expected = reference((grey - mean).expand(-1, 3, -1, -1))
        found = model(model.normalise(grey.expand(-1, channels, -1, -1)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert report.adapted[0].startswith(f"backbone.conv1_1.weight (8, 3, 3, 3) -> (8, {channels}, 3, 3): ")
    if channels >= 3:
        rgb = reference.conv1_1.weight.flip(1) * 3 / channels
        torch.testing.assert_close(model.backbone.get_submodule("conv1_1").weight[:, :3], rgb)


def test_a_source_over_as_many_channels_is_copied() -> None:
    source = PytorchFCN8s(21, in_channels=4)
    model, report = loaded(source.state_dict(), in_channels=4)
    torch.testing.assert_close(model.backbone.get_submodule("conv1_1").weight, source.conv1_1.weight)
    assert not report.adapted
    assert not report.preparation  # four means are not known
    assert_refused(fcn(in_channels=5), source.state_dict(), "conv1_1.weight (8, 4, 3, 3)", "(8, 5, 3, 3)")
    assert_refused(fcn(), source.state_dict(), "filters over 4 channels; only those over 3 fit")


# Score layers


@pytest.mark.parametrize(("scores", "kept"), [("auto", 0), ("expand", 11), ("reset", 0)])
def test_fewer_classes(reference: PytorchFCN8s, scores: str, kept: int) -> None:
    model = fcn(num_classes=11)
    report = load_weights(model, reference.state_dict(), scores=scores, verbose=False)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        for kind in ("weight", "bias"):
            values = state(model)[f"{name}.{kind}"]
            torch.testing.assert_close(values[:kept], state(reference)[f"{name}.{kind}"][:kept])
            assert not values[kept:].any()
    assert len(report.adapted) == 6
    assert "score_pool3.bias (21,) -> (11,): " + ("the first" if kept else "starts at zero again") in report.adapted[-1]


def test_more_classes(reference: PytorchFCN8s) -> None:
    model = fcn(num_classes=30)
    load_weights(model, reference.state_dict(), scores="expand", verbose=False)
    torch.testing.assert_close(model.score_fr.weight[:21], reference.score_fr.weight)
    torch.testing.assert_close(model.score_fr.bias[:21], reference.score_fr.bias)
    assert not model.score_fr.weight[21:].any()
    assert not model.score_fr.bias[21:].any()


def test_reset_holds_for_layers_that_the_source_lacks(reference: PytorchFCN8s) -> None:
    model = fcn()
    nn.init.ones_(model.get_submodule("score_pool3").weight)
    tensors = {k: v for k, v in state(reference).items() if not k.startswith("score_pool3")}
    load_weights(model, tensors, scores="reset", verbose=False)
    assert not any(values.any() for name, values in state(model).items() if "score" in name)


def test_scores_over_other_features_start_again_with_their_bias(reference: PytorchFCN8s) -> None:
    tensors = state(reference) | {"score_pool3.weight": torch.ones(21, 16, 1, 1)}
    model, report = loaded(tensors)
    assert not state(model)["score_pool3.weight"].any()
    assert not state(model)["score_pool3.bias"].any()
    assert [entry.partition(":")[0] for entry in report.adapted] == [
        "score_pool3.weight (21, 16, 1, 1) -> (21, 32, 1, 1)",
        "score_pool3.bias (21,) -> (21,)",
    ]


def test_unknown_mode_for_scores(reference: PytorchFCN8s) -> None:
    assert_refused(fcn(), reference.state_dict(), "scores='keep': expected one of auto, expand, reset", scores="keep")


# What does not fit


def test_another_width(reference: PytorchFCN8s) -> None:
    assert_refused(
        fcn(width=0.25),
        reference.state_dict(),
        "state dict: conv1_1.weight (8, 3, 3, 3) does not become backbone.conv1_1.weight (16, 3, 3, 3) of fcn8s_vgg16",
    )
    tensors = state(reference) | {"fc7.weight": torch.ones(512, 256, 1, 1)}
    assert_refused(fcn(), tensors, "fc7.weight (512, 256, 1, 1)", "(512, 512, 1, 1)")


def test_less_than_half_of_the_trunk(reference: PytorchFCN8s, tmp_path: Path) -> None:
    path = saved(tmp_path / "file.pth", {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": torch.ones(8)})
    message = "only 1 of 13 layers of fcn8s_vgg16's trunk are in it (found features.0); nothing was loaded"
    assert_refused(fcn(), path, message)
    first = dict(list(reference.state_dict().items())[:12])
    assert_refused(fcn(), first, "only 6 of 13", "(found conv1_1, conv1_2, conv2_1, ...)")
    seventh = dict(list(reference.state_dict().items())[:14])
    assert len(loaded(seventh)[1].copied) == 14


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(reference: PytorchFCN8s, value: float) -> None:
    """In the last tensor: nothing before it was loaded."""
    tensors = state(reference)
    tensors["score_pool3.bias"][2] = value
    assert_refused(fcn(), tensors, "score_pool3.bias", "not finite")


@pytest.mark.parametrize(
    "values",
    [torch.ones(512, dtype=torch.int64), torch.ones(512).to_sparse(), torch.empty(512, device="meta"), torch.empty(0)],
    ids=["whole numbers", "sparse", "meta", "empty"],
)
def test_odd_tensors(reference: PytorchFCN8s, values: Tensor) -> None:
    assert_refused(fcn(), state(reference) | {"fc7.bias": values}, "fc7.bias")


def test_odd_blobs(reference: PytorchFCN8s) -> None:
    model = fcn()
    for layers in ({}, {"fc6": []}, blobs(reference) | {"fc6": ["words"]}, {"fc6": [np.empty(0)]}):
        with pytest.raises(InputError, match=r"^caffe blobs: [^\n]*$"):
            load_caffe_weights(model, layers)


# The report


def test_summary(reference: PytorchFCN8s, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = state(reference) | {f"extra{i}.weight": torch.ones(2) for i in range(20)}
    report = load_weights(fcn("fcn32s_vgg16", num_classes=3, in_channels=1), tensors)
    printed = capsys.readouterr().out
    assert printed == f"{report}\n"
    lines = printed.splitlines()
    assert lines[0] == "state dict (pytorch-fcn): 32 copied, 0 reshaped, 3 adapted, 24 dropped, 0 missing"
    assert lines[1].startswith("  adapted: backbone.conv1_1.weight (8, 3, 3, 3) -> (8, 1, 3, 3): ")
    assert lines[2] == "  adapted: score_fr.weight (21, 512, 1, 1) -> (3, 512, 1, 1): starts at zero again"
    assert lines[4] == "  dropped: score_pool3.weight (21, 32, 1, 1): fcn32s_vgg16 has no such layer"
    assert lines[-2] == "  dropped: and 16 more"
    assert lines[-1].startswith("  preparation: channels in rgb order, mean (114.4")
    assert len(lines) == 1 + 3 + 9 + 1


@pytest.mark.parametrize(
    ("environment", "prints"),
    [({}, True), ({"RANK": "0", "LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False), ({"RANK": "8"}, False)],
)
def test_only_the_first_process_prints(
    reference: PytorchFCN8s,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    prints: bool,
) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    load_weights(fcn(), reference.state_dict())
    assert bool(capsys.readouterr().out) == prints
