"""Reading geometry off networks: against gradients, and refusals where samples have no definite place."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import GeometryError, Layer
from fcnseg.models import create_model
from fcnseg.models.timm_backbones import OFFERED, TimmBackbone
from fcnseg.models.tracing import Trace, trace_network

timm = pytest.importorskip("timm")


class Network(nn.Module):
    """A function of the image as a network with one output, `out`."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.function(self, x)}


def trace_function(function, **layers: nn.Module) -> Trace:
    return trace_network(Network(function, **layers), 3)


def conv(kernel: int, stride: int = 1, padding: int = 0, **options) -> nn.Conv2d:
    return nn.Conv2d(3, 3, kernel, stride, padding, **options)


class TestLayers:
    def test_tell_what_they_are_called_with(self) -> None:
        chain = nn.Sequential(conv(3, 2, 4, dilation=5), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        traced = trace_function(lambda self, x: self.chain(x), chain=chain)
        assert [r.layer for r in traced.layers] == [Layer("chain.0", 3, 2, 4, 5), Layer("chain.2", 3, 2, ceil=True)]
        assert [r.size for r in traced.layers] == [(111, 112), (55, 56)]
        assert [r.parameters for r in traced.layers] == [3 * 3 * 9 + 3, 0]
        assert [r.multiply_adds for r in traced.layers] == [3 * 3 * 9 * 111 * 112, 0]

    def test_padding_as_a_function_of_its_own_moves_the_grid(self) -> None:
        """The grid is that of a convolution that pads itself."""
        own = trace_function(lambda self, x: self.conv(x), conv=conv(5, 2, 2))
        apart = trace_function(lambda self, x: self.conv(F.pad(x, (2, 2, 2, 2))), conv=conv(5, 2))
        assert apart.outputs["out"].grid.map == own.outputs["out"].grid.map
        assert apart.outputs["out"].grid.receptive_field == own.outputs["out"].grid.receptive_field == 5

    def test_rows_and_columns_are_followed_to_other_dimensions(self) -> None:
        """As ConvNeXt does: channels last for its linear layers, and back."""

        def block(self, x):
            x = self.mlp(F.layer_norm(self.conv(x).permute(0, 2, 3, 1), (3,)))
            return x.permute(0, 3, 1, 2)

        traced = trace_function(block, conv=conv(4, 4), mlp=nn.Linear(3, 3))
        assert float(traced.outputs["out"].grid.origin) == 1.5

    def test_a_gate_of_the_whole_image_moves_nothing(self) -> None:
        def block(self, x):
            x = self.conv(x)
            return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))

        traced = trace_function(block, conv=conv(3, 2, 1), gate=nn.Conv2d(3, 3, 1))
        assert float(traced.outputs["out"].grid.origin) == 0
        assert [r.layer.name for r in traced.layers] == ["conv"]

    def test_branches_that_agree_keep_the_larger_field(self) -> None:
        def block(self, x):
            left, right = self.wide(x).chunk(3, dim=1)[0], self.narrow(x)[:, :1]
            return torch.cat([left, right], dim=1)

        traced = trace_function(block, wide=conv(7, 2, 3), narrow=conv(3, 2, 1))
        assert traced.outputs["out"].grid.receptive_field == 7

    def test_the_network_keeps_its_weights_and_mode(self) -> None:
        network = Network(lambda self, x: self.norm(self.conv(x)), conv=conv(3), norm=nn.BatchNorm2d(3)).train()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        trace_network(network, 3)
        assert network.training
        assert network.norm.training
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


class TestRefusals:
    """One reason, naming the layer."""

    @pytest.mark.parametrize(
        ("function", "layers", "reason"),
        [
            (lambda s, x: s.a(x), {"a": nn.Conv2d(3, 3, (3, 5))}, "out: .* a treats height and width differently"),
            (
                lambda s, x: s.a(x) + s.b(x),
                {"a": conv(3, 2, 1), "b": nn.AvgPool2d(2, 2, ceil_mode=True)},
                "a and b meet in b, 0.5 pixels apart",
            ),
            (lambda s, x: s.a(F.pad(x, (0, 1, 0, 1))), {"a": conv(2)}, r"\(224, 225\) pixels became \(225, 226\)"),
            (lambda s, x: F.interpolate(s.a(x), scale_factor=2), {"a": conv(1)}, "interpolate in a"),
            (lambda s, x: s.a(x).flip(-1), {"a": conv(1)}, "flip in a"),
            (lambda s, x: s.a(x).roll(1, 2), {"a": conv(1)}, "roll in a"),
            (lambda s, x: s.a(x).transpose(2, 3), {"a": conv(1)}, "transpose in a"),
            (lambda s, x: s.a(x)[:, :, ::2], {"a": conv(1)}, "getitem in a"),
            (lambda s, x: s.a(x).chunk(2, dim=2)[0], {"a": conv(1)}, "chunk in a"),
            (lambda s, x: F.linear(s.a(x), torch.eye(225, device="meta")), {"a": conv(1)}, "linear in a"),
            (lambda s, x: s.a(x).flatten(2).unflatten(2, (224, 225)), {"a": conv(1)}, "flatten in a"),
            (lambda s, x: s.a(x).mean((2, 3), keepdim=True), {"a": conv(1)}, "it has none"),
            (lambda s, x: s.a(x)[0, 0, 0, 0, 0, 0], {"a": conv(1)}, "does not run on 224x225 pixels"),
            (lambda s, x: s.a(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))), {"a": conv(1)}, "cannot be read"),
        ],
    )  # fmt: skip
    def test_what_has_no_definite_place(self, function, layers: dict, reason: str) -> None:
        with pytest.raises(GeometryError, match=reason) as error:
            trace_function(function, **layers)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("resnet50d", "downsample.* 2 pixels apart"),  # a 2x2 average beside a 3x3 convolution of stride 2
            ("tf_efficientnet_b0", "conv_stem treats height and width differently"),  # pads by the image's size
            ("swin_tiny_patch4_window7_224", "does not run on 224x225"),
            ("vit_tiny_patch16_224", "strides"),
            ("inception_v3", "treats height and width differently"),
        ],
    )
    def test_networks_of_timm(self, name: str, reason: str) -> None:
        with torch.device("meta"), pytest.raises(InputError, match=reason) as error:
            create_model(f"fcn8s_{name}", num_classes=2)
        assert "\n" not in str(error.value)


def linear(network: nn.Module) -> nn.Module:
    """The network with equal positive weights and neither norms, gates nor activations: it averages positive images."""
    for module in network.modules():
        for name, child in module.named_children():
            kind = type(child).__name__
            if isinstance(child, nn.BatchNorm2d | nn.LayerNorm) or kind in (
                "ReLU",
                "GELU",
                "SiLU",
                "Hardswish",
                "SqueezeExcite",
                "SEModule",
            ):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.Conv2d | nn.Linear):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
        if hasattr(module, "gamma"):
            nn.init.ones_(module.gamma)
    return network.double().eval()


class TestTimm:
    @pytest.mark.parametrize("name", OFFERED)
    def test_every_offered_backbone_is_read(self, name: str) -> None:
        with torch.device("meta"):
            model = create_model(f"fcn{OFFERED[name]}s_{name}", num_classes=2)
        strides = [stride for stride in (2, 4, 8, 16, 32) if stride >= OFFERED[name]]
        assert [model.grids()[tap].stride for tap in model.backbone.taps] == strides
        assert min(model.backbone.body.feature_info.reduction()) == OFFERED[name], "there is nothing finer"

    @pytest.mark.parametrize(
        "name", ["resnet18", "resnet50", "convnext_tiny", "densenet121", "efficientnet_b0", "regnety_002"]
    )
    def test_taps_look_where_their_grids_say(self, name: str) -> None:
        """The gradient of a sample of each tap is centred on its place, and as wide as its field."""
        backbone = TimmBackbone(name, in_channels=1)
        outputs = trace_network(backbone, 1).outputs
        size = 2 * outputs["stride32"].grid.receptive_field + 65
        image = torch.ones(1, 1, 33, size, dtype=torch.float64, requires_grad=True)
        taps = linear(backbone)(image)
        for tap, place in outputs.items():
            index = round(float(place.grid.map(size // 2)))
            (gradient,) = torch.autograd.grad(taps[tap][0, :, :, index].sum(), image, retain_graph=True)
            weights = gradient[0, 0].sum(0)
            pixels = weights.nonzero().flatten()
            assert (pixels[0] + pixels[-1]).item() / 2 == float(place.grid.map.inverse()(index))
            assert (pixels[-1] - pixels[0]).item() + 1 == place.grid.receptive_field
            centroid = (weights @ torch.arange(size, dtype=torch.float64) / weights.sum()).item()
            assert centroid == pytest.approx(float(place.grid.map.inverse()(index)), abs=1e-6)

    @pytest.mark.parametrize("name", ["fcn32s_resnet18", "fcn8s_resnet18", "fcn8s_regnety_002"])
    def test_a_logit_looks_at_its_own_pixel(self, name: str) -> None:
        """All the way through the head; `tests/models/test_fcn.py` says why an image of positions shows it."""
        model = linear(create_model(name, num_classes=2, in_channels=1))
        reach = model.grids()["fc7"].receptive_field // 2 + 32
        image = torch.ones(1, 1, 33, 2 * reach + 64, dtype=torch.float64)
        position = torch.arange(image.shape[-1], dtype=torch.float64).expand_as(image)
        with torch.inference_mode():
            centroid = model(position) / model(image)
        assert (centroid - position)[..., reach:-reach].abs().max() < 1e-6

    @pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 97)])
    @pytest.mark.parametrize("name", ["fcn8s_resnet18", "fcn16s_convnext_tiny"])
    def test_images_of_any_size(self, name: str, size: tuple[int, int]) -> None:
        model = create_model(name, num_classes=2).eval()
        nn.init.normal_(model.score_fr.weight)
        with torch.inference_mode():
            logits = model(torch.randn(1, 3, *size))
        assert logits.shape == (1, 2, *size)
        assert logits.isfinite().all()
        assert logits.any()
