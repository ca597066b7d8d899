"""Models by name: what `create_model` builds, what it refuses, and how a model prepares and labels images."""

import json
from types import MappingProxyType

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fcnseg
from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model, list_models, resample, timm_backbones
from fcnseg.models.backbones import BACKBONES
from fcnseg.models.names import ModelName, parse_name
from fcnseg.models.spec import IMAGENET_MEAN, IMAGENET_STD


def small(name: str = "fcn16s_alexnet", **values) -> FCN:
    torch.manual_seed(0)
    return create_model(name, **({"num_classes": 4, "width": 0.05} | values)).eval()


def give_scores(model: FCN) -> FCN:
    """Random score layers, whose zeros would hide everything behind them."""
    torch.manual_seed(3)
    for name, layer in model.named_children():
        if name.startswith("score_"):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model


class TestListModels:
    def test_has_every_stride_of_every_backbone_and_stem(self) -> None:
        backbones = ("alexnet", "caffenet", "vgg16", "vgg16_bn", "vgg19")
        names = {
            f"fcn{stride}s_{b}{stem}"
            for stride in (2, 4, 8, 16, 32)
            for b in backbones
            for stem in ("", "_stem2", "_stem4")
            if stride > 2 or "vgg" in b
        }
        names |= {f"fcn{stride}s_{b}_atonce" for stride in (8, 16) for b in ("vgg16", "vgg19")}
        offered = timm_backbones.OFFERED
        names |= {f"fcn{s}s_{b}" for s in (2, 4, 8, 16, 32) for b in offered if s > 2 or "convnext" not in b}
        assert list_models() == sorted(names)

    def test_takes_shell_patterns(self) -> None:
        assert list_models("fcn8s_*vgg16*stem2") == ["fcn8s_vgg16_bn_stem2", "fcn8s_vgg16_stem2"]
        assert list_models("*s_caffenet") == [f"fcn{stride}s_caffenet" for stride in (16, 32, 4, 8)]
        assert list_models("resnet*") == []

    def test_atonce_scales_the_skips_as_the_reference(self) -> None:
        """voc-fcn8s-atonce/net.py: pool4 by 0.01, pool3 by 0.0001."""
        assert [f.scale for f in small("fcn8s_vgg16_atonce").fusions] == [0.01, 0.0001, 1.0]
        assert [f.scale for f in small("fcn8s_vgg16").fusions] == [1.0, 1.0, 1.0]

    def test_any_network_of_timm_is_understood(self) -> None:
        """Listed or not."""
        assert "fcn16s_resnet26" not in list_models()
        assert parse_name("fcn16s_resnet26") == ModelName(16, "resnet26")

    def test_is_offered_by_the_package(self) -> None:
        assert fcnseg.list_models is list_models
        assert fcnseg.create_model is create_model


class TestRefusals:
    def test_unknown_name_names_the_nearest(self) -> None:
        with pytest.raises(InputError, match=r"unknown model 'fcn8_vgg16'; expected one like fcn8s_vgg16"):
            small("fcn8_vgg16")

    def test_name_like_no_other_lists_the_fcn8s(self) -> None:
        with pytest.raises(InputError) as error:
            small("zzz")
        assert all(name in str(error.value) for name in list_models("fcn8s_*"))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("fcn2s_alexnet", "its trunk has no finer features; expected fcn4s_alexnet at the finest"),
            ("fcn2s_caffenet_stem2", "its trunk has no finer features; expected fcn4s_caffenet_stem2 at the finest"),
            (
                "fcn4s_vgg16_atonce",
                "the reference has factors for two skips; expected fcn8s_vgg16_atonce at the finest",
            ),
        ],
    )
    def test_scores_finer_than_there_can_be(self, name: str, message: str) -> None:
        with pytest.raises(InputError, match=f"^{name}: {message}"):
            small(name)

    def test_scores_finer_than_timms_features(self) -> None:
        with pytest.raises(InputError, match=r"convnext_tiny has features at strides \[4, 8, 16, 32\], none at 2"):
            small("fcn2s_convnext_tiny", width=1.0)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"padding": "valid"}, "padding 'valid': expected one of same, caffe"),
            ({"width": 0}, "width=0: expected positive numbers"),
            ({"width": -1.0}, "width=-1.0: expected positive numbers"),
            ({"width": float("nan")}, "width=nan: expected positive numbers"),
            ({"in_channels": 0}, "in_channels=0"),
            ({"num_classes": 0}, "num_classes=0: expected 1 to 255"),
            ({"dropout": 1.5}, "dropout=1.5: expected a probability"),
            ({"mean": [1.0, 2.0]}, r"mean=\[1.0, 2.0\]: expected 3 values"),
            ({"std": [1.0] * 4}, r"std=\[1.0, 1.0, 1.0, 1.0\]: expected 3 values"),
            ({"in_channels": 1, "mean": [1.0, 2.0, 3.0]}, "expected 1 values"),
            ({"std": [1.0, 0.0, 1.0]}, r"std=\[1.0, 0.0, 1.0\]: expected positive values"),
            ({"input_size": [32]}, r"input_size=\[32\]: expected a height and a width"),
            ({"channel_order": "gbr"}, "channel_order=gbr: expected rgb, or bgr with in_channels=3"),
            ({"channel_order": "bgr", "in_channels": 4}, "channel_order=bgr: expected rgb, or bgr with in_channels=3"),
            ({"name": "fcn8s_resnet18"}, "fcn8s_resnet18: padding=same, width=0.05; timm's backbones take"),
        ],
    )
    def test_values_out_of_range(self, values: dict, message: str) -> None:
        with pytest.raises(InputError, match=message) as error:
            small(**values)
        assert "\n" not in str(error.value)


class TestSpec:
    @pytest.mark.parametrize("in_channels", [1, 2, 5])
    def test_any_number_of_image_channels(self, in_channels: int) -> None:
        """Every channel reaches the logits; mean and std default to ImageNet's averages."""
        model = give_scores(small(in_channels=in_channels))
        assert model.spec.mean == pytest.approx([np.mean(IMAGENET_MEAN)] * in_channels)
        assert model.spec.std == pytest.approx([np.mean(IMAGENET_STD)] * in_channels)
        images = torch.rand(1, in_channels, 40, 33, requires_grad=True)
        logits = model(images)
        assert logits.shape == (1, 4, 40, 33)
        (gradient,) = torch.autograd.grad(logits.square().sum(), images)
        assert (gradient.abs().amax((0, 2, 3)) > 0).all()

    @pytest.mark.parametrize("name", [n for n in list_models("fcn8s_*") if parse_name(n).backbone in BACKBONES])
    def test_rebuilds_the_same_model_through_json(self, name: str) -> None:
        labels = {"name": "two", "classes": ["sky", "road"], "palette": [[0, 0, 0], [1, 2, 3]]}
        values = {"in_channels": 2, "mean": [1, 2], "std": [3.5, 4], "input_size": (48, 64), "padding": "caffe"}
        model = small(name, **values, width=0.07, dropout=0.2, label_space=MappingProxyType(labels))
        again = create_model(**json.loads(json.dumps(model.spec.to_dict())))
        assert again.spec == model.spec
        assert again.spec.label_space == labels
        assert again.spec.input_size == (48, 64)
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (again, model)]
        assert shapes[0] == shapes[1]

    def test_defaults_are_imagenets(self) -> None:
        """torchvision gives them for images from 0 to 1."""
        spec = small().spec
        assert spec.mean == pytest.approx([255 * v for v in (0.485, 0.456, 0.406)])
        assert spec.std == pytest.approx([255 * v for v in (0.229, 0.224, 0.225)])


class TestImagesToMasks:
    def test_normalise_takes_the_files_values(self) -> None:
        mean, std = (10.0, 20.0, 200.0), (2.0, 4.0, 8.0)
        images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
        shape = (1, 3, 1, 1)
        expected = (images.astype(np.float64) - np.reshape(mean, shape)) / np.reshape(std, shape)
        normalised = small(mean=mean, std=std).normalise(torch.from_numpy(images))
        assert normalised.dtype == torch.float32
        np.testing.assert_allclose(normalised.numpy(), expected, rtol=1e-6)

    def test_normalise_turns_rgb_images_around_for_bgr_networks(self) -> None:
        """Blue first, with the mean of blue first: the preparation of Berkeley's demo, infer.py."""
        image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        expected = image[:, :, ::-1].astype(np.float32) - np.array((104.00699, 116.66876, 122.67892), np.float32)
        model = small(mean=(104.00699, 116.66876, 122.67892), std=(1, 1, 1), channel_order="bgr")
        normalised = model.normalise(torch.from_numpy(image.transpose(2, 0, 1))[None])
        np.testing.assert_allclose(normalised[0].numpy(), expected.transpose(2, 0, 1), rtol=1e-5)

    @pytest.mark.parametrize("size", [(40, 60), (80, 90), (25, 31), (37, 120)])
    def test_resample_is_opencvs_bilinear(self, size: tuple[int, int]) -> None:
        logits = torch.randn(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
        opencv = [
            [cv2.resize(c, size[::-1], interpolation=cv2.INTER_LINEAR) for c in image] for image in logits.numpy()
        ]
        np.testing.assert_allclose(resample(logits, size).numpy(), np.array(opencv), atol=1e-4)

    @pytest.mark.parametrize("size", [(33, 47), (66, 94), (20, 101)])
    def test_segment_takes_the_likeliest_class_of_resampled_logits(self, size: tuple[int, int]) -> None:
        model = give_scores(small("fcn8s_vgg16"))
        images = torch.randint(0, 256, (2, 3, 33, 47), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            logits = nn.functional.interpolate(self.logits(model, images), size, mode="bilinear")
            mask = model.segment(images, size)
        assert mask.dtype == torch.int64
        assert mask.unique().numel() > 1
        torch.testing.assert_close(mask, logits.argmax(1), rtol=0, atol=0)

    @staticmethod
    def logits(model: FCN, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.spec.mean, model.spec.std))
        return model((images.float() - mean) / std)
