"""The trunks against torchvision's, the literature's parameter counts, and gradients through their own layers."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import alexnet, vgg

from fcnseg.errors import InputError
from fcnseg.geometry import Layer
from fcnseg.models import create_model
from fcnseg.models.backbones import BACKBONES, PADDINGS, Backbone, create_backbone, read_layers


def shapes(module: nn.Module) -> list[torch.Size]:
    return [p.shape for p in module.parameters()]


def on_paper(build, *args, **kwargs) -> nn.Module:
    """The module with shapes but without values, which takes no time and no memory."""
    with torch.device("meta"):
        return build(*args, **kwargs)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Hand weights over by their order alone; the names differ."""
    with torch.no_grad():
        for theirs, ours in zip(source.parameters(), target.parameters(), strict=True):
            ours.copy_(theirs)


def randomise_batch_norm(features: nn.Module) -> None:
    for norm in features.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 1.5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "theirs"), [("vgg16", vgg.vgg16), ("vgg16_bn", vgg.vgg16_bn), ("alexnet", alexnet)])
def test_parameters_are_torchvisions_in_order(name: str, theirs) -> None:
    assert shapes(on_paper(create_backbone, name)) == shapes(on_paper(theirs, weights=None).features)


def test_vgg16_with_torchvisions_weights_gives_its_pool5(images: Tensor) -> None:
    images = images[..., :64, :96]  # multiples of 32, where rounding up and down agree
    theirs, ours = vgg.make_layers(vgg.cfgs["D"]).eval(), create_backbone("vgg16").eval()
    copy_in_order(theirs, ours)
    with torch.inference_mode():
        taps, expected = ours(images), theirs(images)
    assert [taps[f"pool{i}"].shape[-2:] for i in (3, 4, 5)] == [(8, 12), (4, 6), (2, 3)]
    assert expected.abs().max() > 0
    torch.testing.assert_close(taps["pool5"], expected)


def test_vgg16_bn_with_torchvisions_weights_gives_its_pool5(images: Tensor) -> None:
    theirs, ours = vgg.make_layers(vgg.cfgs["D"], batch_norm=True).eval(), create_backbone("vgg16_bn").eval()
    randomise_batch_norm(theirs)
    with torch.inference_mode():
        expected = theirs(images[..., :64, :64])
    copy_in_order(theirs, ours)
    for source, target in zip(theirs.buffers(), ours.buffers(), strict=True):
        target.copy_(source)
    with torch.inference_mode():
        pool5 = ours(images[..., :64, :64])["pool5"]
    assert expected.std() > 0.01
    torch.testing.assert_close(pool5, expected, rtol=1e-4, atol=1e-4)


def test_alexnet_with_torchvisions_weights_and_padding_gives_its_features(images: Tensor) -> None:
    """Only the padding of conv1 differs; from 224 pixels no pooling has anything to round."""
    theirs = alexnet(weights=None).features.eval()
    ours = create_backbone("alexnet", padding="caffe").eval()
    copy_in_order(theirs, ours)
    ours.get_submodule("conv1").padding = (2, 2)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images)["pool5"], theirs(images))


def test_fcn32s_vgg16_has_the_literatures_parameter_counts() -> None:
    """VGG-16 of Simonyan and Zisserman with its first two fully connected layers as convolutions."""
    model = on_paper(create_model, "fcn32s_vgg16", num_classes=21)
    counts = {name: count(child) for name, child in model.named_children() if count(child)}
    assert counts == {"backbone": 14_714_688, "fc6": 102_764_544, "fc7": 16_781_312, "score_fr": 86_037}


@pytest.mark.parametrize("name", ["alexnet", "caffenet"])
def test_alexnets_have_the_classifiers_of_the_literature(name: str) -> None:
    """9216 inputs to fc6 are 256 channels of 6x6 (Krizhevsky et al. 2012)."""
    model = on_paper(create_model, f"fcn32s_{name}", num_classes=21)
    assert [count(model.fc6), count(model.fc7)] == [9216 * 4096 + 4096, 4096 * 4096 + 4096]


def test_caffenet_has_the_parameters_of_alexnets_two_towers() -> None:
    """bvlc_reference_caffenet's conv1 to conv5: 96, 256, 384, 384 and 256 channels, groups of 2."""
    sizes = [(96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3)]
    weights = [(out, inputs, k, k) for out, inputs, k in sizes]
    assert [tuple(p.shape) for p in on_paper(create_backbone, "caffenet").parameters() if p.dim() == 4] == weights


@pytest.mark.parametrize(("name", "fields"), [("vgg16", [44, 100, 212]), ("alexnet", [19, 67, 195])])
@pytest.mark.parametrize("padding", PADDINGS)
def test_receptive_fields_are_the_published_ones(name: str, padding: str, fields: list[int]) -> None:
    """Of the taps; Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks" (Distill 2019)."""
    backbone = on_paper(create_backbone, name, padding=padding)
    grids = backbone.grids()
    assert [grids[tap].field for tap in backbone.taps] == fields
    assert [grids[tap].stride for tap in backbone.taps] == [8, 16, 32]


def visible(backbone: Backbone) -> Backbone:
    """The same grids with every pixel of every window in the gradient: averages for maxima, equal positive weights."""
    for name, layer in backbone.named_children():
        if isinstance(layer, nn.MaxPool2d):
            pool = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
            setattr(backbone, name, pool)
        elif isinstance(layer, nn.LocalResponseNorm):
            setattr(backbone, name, nn.Identity())
        elif isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return backbone.double().eval()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", BACKBONES)
def test_taps_look_where_their_grids_say(name: str, padding: str) -> None:
    """The gradient of one pixel of each tap covers its receptive field, centred on its place on the image."""
    backbone = create_backbone(name, in_channels=1, padding=padding, width=0.05)
    grids = backbone.grids()  # from the poolings, before they are replaced
    image = torch.ones(1, 1, 250, 300, dtype=torch.float64, requires_grad=True)
    taps = visible(backbone)(image)
    for tap in backbone.taps:
        to_image = grids[tap].map.inverse()
        index = [round(float(grids[tap].map(size // 2))) for size in image.shape[-2:]]
        (gradient,) = torch.autograd.grad(taps[tap][0, :, *index].sum(), image, retain_graph=True)
        for i, seen in zip(index, (gradient[0, 0].any(1), gradient[0, 0].any(0)), strict=True):
            pixels = seen.nonzero().flatten()
            assert (pixels[0] + pixels[-1]).item() / 2 == float(to_image(i))
            assert (pixels[-1] - pixels[0]).item() + 1 == grids[tap].field


@pytest.mark.parametrize(("name", "origins"), [("vgg16", [3.5, 7.5, 15.5]), ("alexnet", [0, 0, 0])])
def test_same_padding_aligns_the_taps(name: str, origins: list[float]) -> None:
    """VGG's samples lie in the middle of their blocks, AlexNet's on the multiples of their stride."""
    backbone = create_backbone(name, width=0.05)
    assert [float(backbone.grids()[tap].origin) for tap in backbone.taps] == origins


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("padding", PADDINGS)
def test_grids_and_layers_agree_on_sizes(name: str, padding: str) -> None:
    backbone = create_backbone(name, padding=padding, width=0.05).eval()
    for size in (1, 30, 33, 64):
        expected, n = [], size
        for layer in read_layers(backbone):
            n = layer.output_size(n)
            if layer.name in backbone.taps:
                expected.append(n)
        with torch.inference_mode():
            taps = backbone(torch.zeros(1, 3, size, 40))
        assert [taps[tap].shape[-2] for tap in backbone.taps] == expected


@pytest.mark.parametrize("padding", PADDINGS)
def test_width_scales_the_channels_that_the_taps_tell(padding: str) -> None:
    backbone = create_backbone("vgg16", padding=padding, width=0.25).eval()
    assert backbone.channels == {"pool3": 64, "pool4": 128, "pool5": 128}
    with torch.inference_mode():
        taps = backbone(torch.zeros(1, 3, 32, 32))
    assert {tap: x.shape[1] for tap, x in taps.items()} == backbone.channels


def test_read_layers_tells_geometry_and_refuses_what_differs_between_axes() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 4, dilation=5), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
    assert list(read_layers(chain)) == [Layer("0", 3, 2, 4, 5), Layer("2", 3, 2, ceil=True)]
    with pytest.raises(InputError, match=r"layer 0: .* differ between height and width"):
        list(read_layers(nn.Sequential(nn.Conv2d(1, 1, (3, 5)))))
