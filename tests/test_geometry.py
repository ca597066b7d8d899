"""The algebra of pixel grids against torch's own layers, and against the worked example it comes from."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import (
    IMAGE,
    CoordinateMap,
    Covering,
    GeometryError,
    Grid,
    Layer,
    aligned_upsampling,
    crop_offset,
    path_grid,
    path_size,
    trace,
    upsampling,
)
from fcnseg.models import FCN, ModelSpec
from fcnseg.models.backbones import Backbone, create_backbone

fractions = st.fractions(min_value=-50, max_value=50, max_denominator=12)
maps = st.builds(CoordinateMap, fractions.filter(bool), fractions)


@st.composite
def layers(draw: st.DrawFn, max_stride: int = 4, **fixed: bool) -> Layer:
    """A convolution or transposed convolution of any kernel, stride, padding and dilation."""
    numbers = [draw(st.integers(low, high)) for low, high in [(1, 6), (1, max_stride), (0, 6), (1, 3)]]
    return Layer("layer", *numbers, **fixed)


@st.composite
def windows(draw: st.DrawFn) -> Layer:
    """A convolution or pooling as trunks have them, with padding of up to half a window."""
    kernel, stride = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    ceil = draw(st.booleans())
    return Layer("layer", kernel, stride, draw(st.integers(0, kernel // 2)), draw(st.integers(1, 2)), ceil=ceil)


def apply(layer: Layer, x: Tensor) -> Tensor:
    """The layer in torch, along the one axis of `x` (1, 1, size), with a kernel of ones."""
    ones = torch.ones(1, 1, layer.kernel, dtype=x.dtype)
    convolve = F.conv_transpose1d if layer.transposed else F.conv1d
    return convolve(x, ones, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)


def pool(layer: Layer, x: Tensor) -> Tensor:
    return F.max_pool1d(x, layer.kernel, layer.stride, layer.padding, layer.dilation, ceil_mode=layer.ceil)


def support(response: Tensor) -> tuple[Fraction, int]:
    """Centre and width, from the first to the last, of the pixels where a 1-D response is not zero."""
    where = response.flatten().nonzero().flatten()
    first, last = int(where[0]), int(where[-1])
    return Fraction(first + last, 2), last - first + 1


def assert_size_agrees(layer: Layer, size: int, torch_layer) -> None:
    """`output_size` is torch's output size, and refuses what torch refuses."""
    try:
        actual = torch_layer(layer, torch.zeros(1, 1, size)).shape[-1]
    except RuntimeError:
        actual = 0
    if actual:
        assert layer.output_size(size) == actual
    else:
        with pytest.raises(GeometryError, match=r"layer: nothing is left of \d+ pixels"):
            layer.output_size(size)


class TestWorkedExample:
    """AlexNet's conv1 and an upscaling by 4, from the comments under NVIDIA's DIGITS 5 article."""

    conv1 = Layer("conv1", kernel=11, stride=4, padding=100)
    upscale = Layer("upscale", kernel=7, stride=4, transposed=True)

    def test_offsets(self) -> None:
        assert self.conv1.map == CoordinateMap(Fraction(1, 4), Fraction("23.75"))
        assert self.upscale.map == CoordinateMap(Fraction(4), Fraction(3))
        assert self.upscale.map.after(self.conv1.map) == CoordinateMap(Fraction(1), Fraction(98))

    def test_crop(self) -> None:
        assert crop_offset(trace([self.conv1, self.upscale])["upscale"], IMAGE) == 98

    def test_sizes(self) -> None:
        assert self.conv1.output_size(224) == 104
        assert self.upscale.output_size(104) == 419

    def test_crop_of_both_sides_is_the_padding_of_a_transposed_convolution(self) -> None:
        cropped = Layer("upscale", kernel=7, stride=4, padding=98, transposed=True)
        assert cropped.output_size(104) == 419 - 2 * 98 == 223
        assert cropped.map.after(self.conv1.map) == CoordinateMap()


class TestOutputSize:
    @given(layers(), st.integers(1, 60))
    def test_convolution(self, layer: Layer, size: int) -> None:
        assert_size_agrees(layer, size, apply)

    @given(layers(transposed=True), st.integers(1, 40))
    def test_transposed_convolution(self, layer: Layer, size: int) -> None:
        assert_size_agrees(layer, size, apply)

    @given(st.booleans().flatmap(lambda ceil: layers(ceil=ceil)), st.integers(1, 60))
    def test_pooling(self, layer: Layer, size: int) -> None:
        assume(2 * layer.padding <= layer.kernel)
        assert_size_agrees(layer, size, pool)

    def test_ceil_drops_a_window_that_starts_behind_the_image(self) -> None:
        layer = Layer("pool", kernel=1, stride=2, ceil=True)
        assert layer.output_size(4) == pool(layer, torch.zeros(1, 1, 4)).shape[-1] == 2


class TestReceptiveField:
    """Where a pixel looks on the image, measured with gradients through kernels of ones."""

    @settings(deadline=None)
    @given(st.lists(layers(max_stride=3), min_size=1, max_size=4))
    def test_centre_and_width_are_the_gradients(self, chain: list[Layer]) -> None:
        image = torch.ones(1, 1, 1500, dtype=torch.float64, requires_grad=True)
        x, grid = image, IMAGE
        for layer in chain:
            x, grid = apply(layer, x), grid.then(layer)
        index = x.shape[-1] // 2
        (gradient,) = torch.autograd.grad(x[0, 0, index], image)
        assert support(gradient) == (grid.map.inverse()(index), grid.receptive_field)

    @given(layers(transposed=True), st.integers(0, 9))
    def test_a_transposed_convolution_spreads_each_pixel_around_its_place(self, layer: Layer, index: int) -> None:
        impulse = F.one_hot(torch.tensor([[index]]), 10).double()
        uncropped = Layer("layer", layer.kernel, layer.stride, 0, layer.dilation, transposed=True)
        assert support(apply(uncropped, impulse)) == (uncropped.map(index), layer.extent)
        assert layer.map(index) == uncropped.map(index) - layer.padding

    @given(layers(transposed=True), st.booleans())
    def test_a_transposed_convolution_reads_at_most_its_field(self, layer: Layer, dilated: bool) -> None:
        """Its pixels read different numbers of inputs, by their phase; the field is the most of them."""
        layer = Layer("up", layer.kernel, 1 if dilated else layer.stride, 0, layer.dilation if dilated else 1, True)
        image = torch.ones(1, 1, 40, dtype=torch.float64, requires_grad=True)
        out = apply(layer, image)[0, 0]
        middle = len(out) // 2
        pixels = [torch.autograd.grad(out[middle + i], image, retain_graph=True)[0] for i in range(layer.stride)]
        assert max(support(p)[1] for p in pixels if p.any()) == IMAGE.then(layer).receptive_field

    def test_of_vgg16_and_alexnet_are_the_published_ones(self) -> None:
        """404 and 355 pixels at stride 32 (Long et al. 2015, Table 1)."""
        conv, halve = Layer("conv", 3, padding=1), Layer("pool", 2, 2)
        vgg16 = [*[conv] * 2, halve, *[conv] * 2, halve, *([*[conv] * 3, halve] * 3), Layer("fc6", 7)]
        pooling = Layer("pool", 3, 2)
        alexnet = [Layer("conv", 11, 4), pooling, Layer("conv", 5), pooling, *[conv] * 3, pooling, Layer("fc6", 6)]
        fc6 = [trace(chain)["fc6"] for chain in (vgg16, alexnet)]
        assert [(grid.receptive_field, grid.stride) for grid in fc6] == [(404, 32), (355, 32)]

    def test_trace_names_the_grids_and_starts_anywhere(self) -> None:
        halve, conv = Layer("halve", 2, 2), Layer("conv", 3)
        grids = trace([halve, conv])
        assert list(grids) == ["halve", "conv"]
        assert trace([conv], grids["halve"])["conv"] == grids["conv"]
        assert grids["halve"].stride == 2
        assert grids["halve"].origin == Fraction(1, 2)  # between pixels 0 and 1


class TestCoordinateMap:
    @given(maps, maps, fractions)
    def test_after_applies_the_first_map_first(self, second: CoordinateMap, first: CoordinateMap, x: Fraction) -> None:
        assert second.after(first)(x) == second(first(x))

    @given(maps, maps, maps)
    def test_composition_is_associative(self, a: CoordinateMap, b: CoordinateMap, c: CoordinateMap) -> None:
        assert a.after(b).after(c) == a.after(b.after(c))

    @given(maps)
    def test_inverse_undoes(self, a: CoordinateMap) -> None:
        assert a.after(a.inverse()) == a.inverse().after(a) == CoordinateMap()

    @given(layers())
    def test_a_transposed_convolution_inverts_the_convolution_of_its_geometry(self, layer: Layer) -> None:
        back = Layer("back", layer.kernel, layer.stride, layer.padding, layer.dilation, transposed=True)
        assert back.map == layer.map.inverse()


def grid(name: str, stride: int | Fraction, origin: str | int) -> Grid:
    """A grid of that stride whose pixel 0 is centred at `origin` on the image."""
    return Grid(name, CoordinateMap(Fraction(stride), Fraction(origin)).inverse())


class TestUpsampling:
    @given(st.integers(1, 32), st.integers(0, 40))
    def test_block_centred(self, factor: int, shift: int) -> None:
        """Centres between the fine ones, in the middle of a block, take a kernel of 2s."""
        layer = upsampling("up", grid("pool", factor, Fraction(1, 2) + shift), IMAGE)
        assert layer == Layer("up", 2 * factor, factor, transposed=True)

    @given(st.integers(1, 32), st.integers(0, 40))
    def test_pixel_centred(self, factor: int, shift: int) -> None:
        """Centres on the fine ones take a kernel of 2s - 1."""
        layer = upsampling("up", grid("pool", factor, shift), IMAGE)
        assert layer == Layer("up", 2 * factor - 1, factor, transposed=True)

    @given(st.integers(1, 16), st.integers(1, 16), st.integers(-40, 40))
    def test_brings_the_coarse_grid_onto_the_fine_one(self, stride: int, factor: int, half_steps: int) -> None:
        fine = grid("pool3", stride, "3.5")
        coarse = grid("pool4", stride * factor, fine.origin + Fraction(half_steps * stride, 2))
        up = coarse.then(upsampling("up", coarse, fine))
        assert up.stride == fine.stride
        assert (up.map.offset - fine.map.offset).denominator == 1

    def test_refuses_strides_that_are_no_multiples(self) -> None:
        with pytest.raises(GeometryError, match="up: stride 12 of pool4 is no multiple of 8 of pool3"):
            upsampling("up", grid("pool4", 12, 0), grid("pool3", 8, 0))

    def test_refuses_centres_at_other_fractions_of_a_pixel(self) -> None:
        with pytest.raises(GeometryError, match="up: the centres of pool4 lie at fraction 1/4 of the pixels of pool3"):
            upsampling("up", grid("pool4", 16, 2), grid("pool3", 8, 0))


class TestCropOffset:
    def test_counts_the_source_pixels_before_the_reference(self) -> None:
        assert crop_offset(grid("pool4", 16, -80), grid("upscore2", 16, 0)) == 5

    @pytest.mark.parametrize(
        ("source", "reference", "message"),
        [
            (("pool4", 16, -8), ("upscore2", 16, 0), "crop of pool4 to upscore2 is fractional: 1/2 pixels"),
            (("pool4", 16, 32), ("upscore2", 16, 0), "crop of pool4 to upscore2 is negative: -2 pixels"),
            (("pool4", 16, 0), ("pool3", 8, 0), r"crop of pool4 \(stride 16\) to pool3 \(stride 8\): strides differ"),
        ],
    )
    def test_refuses_and_names_both_layers(self, source: tuple, reference: tuple, message: str) -> None:
        with pytest.raises(GeometryError, match=message) as error:
            crop_offset(grid(*source), grid(*reference))
        assert isinstance(error.value, InputError)  # one line on the command line, exit code 2
        assert "\n" not in str(error.value)


class TestAlignedUpsampling:
    """Upsamplings that begin on pixel 0 of the finer grid, wherever the coarse samples lie."""

    @staticmethod
    def grid(name: str, stride: int, origin: Fraction) -> Grid:
        return Grid(name, CoordinateMap(Fraction(1, stride), -origin / stride))

    @given(st.sampled_from([2, 4, 8, 32]), st.integers(-64, 64))
    def test_output_begins_on_pixel_0_or_it_is_refused(self, stride: int, half_pixels: int) -> None:
        coarse = self.grid("coarse", stride, Fraction(half_pixels, 2))
        if coarse.origin > stride - Fraction(1, 2):
            with pytest.raises(GeometryError, match="crop of up from coarse to image is negative"):
                aligned_upsampling("up", coarse, IMAGE)
            return
        layer = aligned_upsampling("up", coarse, IMAGE)
        assert crop_offset(coarse.then(layer), IMAGE) == 0
        assert layer.kernel == (2 * stride if half_pixels % 2 else 2 * stride - 1)

    def test_an_fcn_over_a_trunk_that_begins_too_late_is_refused_at_construction(self) -> None:
        """CaffeNet's published conv1 has no padding: pool1 begins on pixel 9, more than its stride of 8."""
        backbone = create_backbone("caffenet", width=0.05)
        backbone.get_submodule("conv1").padding = (0, 0)
        spec = ModelSpec("fcn8s_caffenet", num_classes=2, width=0.05)
        with pytest.raises(GeometryError, match="upscore8 from pool1 to image is negative: -2 pixels"):
            FCN(backbone, 2, spec)

    @pytest.mark.parametrize("padding", ["same", "caffe"])
    def test_an_fcn_whose_skip_lies_between_is_refused_at_construction(self, padding: str) -> None:
        """A fractional crop names both layers."""
        with pytest.raises(GeometryError, match="centres of fc7 lie at fraction 3/4 of the pixels of branch"):
            FCN(TwoBranches(), 1, ModelSpec("fcn16s_two", num_classes=2, padding=padding))


class TwoBranches(Backbone):
    """A trunk whose skip averages pairs of pixels, while the rest goes by single ones: a quarter of a sample apart."""

    def __init__(self) -> None:
        super().__init__(("unused", "branch", "trunk"), (3, 3, 8), fc6_kernel=1, fc_channels=8)
        self.branch = nn.AvgPool2d(2, 2)
        self.trunk = nn.Conv2d(3, 8, 3, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"unused": images * 1, "branch": self.branch(images), "trunk": self.trunk(images)}


class TestCovering:
    def test_even_windows_without_rounding_want_whole_blocks(self) -> None:
        """As ConvNeXt's: what four-pixel blocks leave over would be seen by none."""
        covering = Covering([[Layer("stem", 4, 4), *(Layer(f"down{i}", 2, 2) for i in range(3))]])
        assert [covering.least_size(n) for n in (1, 31, 32, 33, 64, 65)] == [32, 32, 32, 64, 64, 96]

    def test_windows_that_overlap_need_none(self) -> None:
        """As ResNet's: 3x3 windows of stride 2 with one pixel of padding."""
        covering = Covering([[Layer(f"conv{i}", 3, 2, 1) for i in range(5)]])
        assert [covering.least_size(n) for n in range(1, 300)] == list(range(1, 300))

    @given(st.lists(st.lists(windows(), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(1, 100))
    def test_the_first_size_that_all_chains_see_to_the_end(self, paths: list[list[Layer]], size: int) -> None:
        """Against trying one after the other."""
        grids = [path_grid(path) for path in paths]
        assume(all(grid.stride <= 32 for grid in grids))

        def seen(candidate: int) -> bool:
            try:
                ends = [
                    grid.origin + grid.stride * (path_size(path, candidate) - 1)
                    for path, grid in zip(paths, grids, strict=True)
                ]
            except GeometryError:
                return False
            reaches = [grid.stride / (2 if grid.origin.denominator == 2 else 1) for grid in grids]
            return all(size - 1 - end <= reach for end, reach in zip(ends, reaches, strict=True))

        assert Covering(paths).least_size(size) == next(n for n in range(size, 2000) if seen(n))
