"""The trunks against torchvision's, the literature's parameter counts, and gradients through their own layers."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import alexnet, vgg

from fcnseg.geometry import path_size
from fcnseg.models import create_model
from fcnseg.models.backbones import BACKBONES, Chain, create_backbone
from fcnseg.models.spec import PADDINGS
from fcnseg.models.tracing import GridPlacement, trace_network


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


@pytest.mark.parametrize(
    ("name", "theirs"), [("vgg16", vgg.vgg16), ("vgg16_bn", vgg.vgg16_bn), ("vgg19", vgg.vgg19), ("alexnet", alexnet)]
)
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


def test_alexnet_with_torchvisions_weights_gives_its_features(images: Tensor) -> None:
    """At 224 pixels no pooling has anything to round."""
    theirs, ours = alexnet(weights=None).features.eval(), create_backbone("alexnet").eval()
    copy_in_order(theirs, ours)
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
    assert [place.grid.receptive_field for place in places(backbone).values()] == fields
    assert [place.grid.stride for place in places(backbone).values()] == [8, 16, 32]


def places(backbone: Chain, in_channels: int = 3) -> dict[str, GridPlacement]:
    return trace_network(backbone, in_channels).outputs


def visible(backbone: Chain) -> Chain:
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


@pytest.mark.parametrize("stem", [1, 2, 4])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vgg16_bn"])
def test_taps_look_where_their_grids_say(name: str, padding: str, stem: int) -> None:
    """The gradient of one pixel of each tap covers its receptive field, centred on its place on the image."""
    backbone = create_backbone(name, in_channels=1, padding=padding, width=0.02, stem=stem)
    expected = places(backbone, in_channels=1)  # from the poolings, before they are replaced
    image = torch.ones(1, 1, 350 * stem, 400 * stem, dtype=torch.float64, requires_grad=True)
    taps = visible(backbone)(image)
    for tap in backbone.taps:
        grid = expected[tap].grid
        index = [round(float(grid.map(size // 2))) for size in image.shape[-2:]]
        (gradient,) = torch.autograd.grad(taps[tap][0, :, *index].sum(), image, retain_graph=True)
        for i, seen in zip(index, (gradient[0, 0].any(1), gradient[0, 0].any(0)), strict=True):
            pixels = seen.nonzero().flatten()
            assert (pixels[0] + pixels[-1]).item() / 2 == float(grid.map.inverse()(i))
            assert (pixels[-1] - pixels[0]).item() + 1 == grid.receptive_field


@pytest.mark.parametrize(("name", "origins"), [("vgg16", [3.5, 7.5, 15.5]), ("alexnet", [7, 15, 31])])
def test_where_the_first_sample_of_each_tap_lies(name: str, origins: list[float]) -> None:
    """VGG's in the middle of its first block; AlexNet's on the last pixel of its first stride, as by torchvision."""
    assert [float(place.grid.origin) for place in places(create_backbone(name, width=0.05)).values()] == origins


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("padding", PADDINGS)
def test_grids_and_layers_agree_on_sizes(name: str, padding: str) -> None:
    backbone = create_backbone(name, padding=padding, width=0.05).eval()
    paths = [place.path for place in places(backbone).values()]
    for size in (35, 47, 64, 97):
        with torch.inference_mode():
            taps = backbone(torch.zeros(1, 3, size, 40))
        assert [taps[tap].shape[-2] for tap in backbone.taps] == [path_size(path, size) for path in paths]


@pytest.mark.parametrize("padding", PADDINGS)
def test_width_scales_the_channels_that_the_taps_tell(padding: str) -> None:
    backbone = create_backbone("vgg16", padding=padding, width=0.25).eval()
    assert backbone.channels == {"pool3": 64, "pool4": 128, "pool5": 128}
    with torch.inference_mode():
        taps = backbone(torch.zeros(1, 3, 32, 32))
    assert {tap: x.shape[1] for tap, x in taps.items()} == backbone.channels
