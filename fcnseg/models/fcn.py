"""The fully convolutional network of Long, Shelhamer and Darrell (CVPR 2015) over any backbone.

Layer names are the paper's: fc6 and fc7 are the classifier as convolutions, score_fr scores its output,
score_<tap> the skips; upscore layers are bilinear and fixed. All crops come out of `fcnseg.geometry`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.geometry import IMAGE, Covering, Grid, Layer, aligned_upsampling, crop_offset, trace, upsampling
from fcnseg.models.backbones import Backbone, Chain, initialise
from fcnseg.models.dropout import SampleDropout
from fcnseg.models.product import LowRankConv2d, ProductConv2d, first_layer
from fcnseg.models.saving import Storable
from fcnseg.models.spec import ModelSpec
from fcnseg.models.surroundings import Surroundings
from fcnseg.models.tracing import trace_network
from fcnseg.models.upsampling import likeliest, resample, upsampled


@dataclass(frozen=True)
class Fusion:
    """One step up: upsample the scores, then line them up with a finer grid.

    Attributes:
        tap: the skip that is added, or None for the last step, up to the image.
        layer: the bilinear upsampling.
        crop: pixels cut from the start of the skip, or of the upsampled scores in the last step. 0 with "same"
            padding, where the upsampling's own padding makes it begin on pixel 0 of the finer grid.
        scale: factor on the skip before it is scored.
    """

    tap: str | None
    layer: Layer
    crop: int
    scale: float = 1.0


class FCN(nn.Module, Storable):
    """FCN-32s, 16s or 8s over a backbone.

    Args:
        backbone: the trunk; its taps are at strides 8, 16 and 32, or more with a strided stem.
        skips: how many of the finer taps are scored and added: 0 for FCN-32s, 1 for 16s, 2 for 8s.
        spec: classes, padding, width, dropout and the preparation of images.
        skip_scales: factors on the skips, coarse to fine, as the at-once networks have them; ones by default.

    Raises:
        GeometryError: when a crop would be fractional or negative (names both layers), or when the backbone's
            geometry cannot be read.
    """

    def __init__(
        self, backbone: Backbone, skips: int, spec: ModelSpec, skip_scales: tuple[float, ...] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.provenance: dict[str, Any] = {}
        self.backbone = backbone
        padding = 0 if spec.padding == "caffe" else backbone.fc6_kernel // 2
        trunk_channels = backbone.channels[backbone.taps[-1]]
        channels = spec.fc_channels or backbone.fc_channels
        self.fc6 = first_layer(trunk_channels, channels, backbone.fc6_kernel, padding, spec.fc6_rank)
        self.fc7 = ProductConv2d(channels, channels, 1)
        self.dropout = SampleDropout(spec.dropout)
        self.score_fr = ProductConv2d(channels, spec.num_classes, 1)
        taps = backbone.taps[-2::-1][:skips]
        for tap in taps:
            self.add_module(f"score_{tap}", ProductConv2d(backbone.channels[tap], spec.num_classes, 1))
        self._grids, self._paths = self._place(taps)
        self._covering = Covering(self._paths)
        self.fusions = tuple(self._plan(taps, skip_scales or (1.0,) * skips))
        self._surroundings = self._padded_trunk()
        self._initialise(taps)
        self.mean: Tensor
        self.std: Tensor
        self.prepare(spec)

    def _initialise(self, taps: tuple[str, ...]) -> None:
        """He initialisation; score layers start at zero, as the reference's do. On the meta device nothing happens."""
        if self.score_fr.weight.is_meta:
            return  # for random numbers that do not exist torch would import its compiler, which takes seconds
        self.backbone.initialise()
        scores = [self.get_submodule(name) for name in ("score_fr", *(f"score_{tap}" for tap in taps))]
        for layer in (self.fc6, self.fc7, *scores):
            initialise(layer)
        if isinstance(self.fc6, LowRankConv2d):
            nn.init.kaiming_normal_(self.fc6.L.weight, nonlinearity="linear")  # no ReLU follows
        for score in scores:
            nn.init.zeros_(score.weight)  # type: ignore[arg-type]

    def _place(self, skips: tuple[str, ...]) -> tuple[dict[str, Grid], tuple[tuple[Layer, ...], ...]]:
        """The grids of all layers up to fc7 and of the taps, by name; the chains that lead to fc7 and to the skips."""
        traced = trace_network(self.backbone, self.spec.in_channels)
        trunk = traced.outputs[self.backbone.taps[-1]]
        head = (
            Layer("fc6", self.backbone.fc6_kernel, padding=int(self.fc6.padding[0])),
            Layer("fc7", 1),
        )
        grids = {layer.layer.name: layer.grid for layer in traced.layers}
        grids |= {tap: replace(place.grid, name=tap) for tap, place in traced.outputs.items()}
        paths = ((*trunk.path, *head), *(traced.outputs[tap].path for tap in skips))
        return grids | trace(head, trunk.grid), paths

    def _padded_trunk(self) -> Surroundings | None:
        """What is kept of images of zeros, where much is computed beyond an image and the trunk is a chain."""
        if self.spec.padding != "caffe" or not isinstance(self.backbone, Chain):
            return None
        names = [name for name, layer in self.backbone.named_children() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
        path = [layer for layer in self._paths[0] if layer.name in names]
        return Surroundings({layer.name: layer for layer in path}, self.backbone.taps)

    def grids(self) -> dict[str, Grid]:
        """The grid of every convolution and pooling up to fc7, and of the taps, by layer name."""
        return dict(self._grids)

    def _plan(self, skips: tuple[str, ...], scales: tuple[float, ...]) -> Iterator[Fusion]:
        """Derive the upsamplings and crops, from the coarsest scores to the image."""
        coarse = self._grids["fc7"]
        names = ["upscore2", *(f"upscore_{tap}" for tap in skips)][: len(skips)]
        for name, tap, scale in zip(names, skips, scales, strict=True):
            fine = self._grids[tap]
            if self.spec.padding == "caffe":
                layer = upsampling(name, coarse, fine)
                coarse = coarse.then(layer)
                yield Fusion(tap, layer, crop_offset(fine, coarse), scale)
            else:
                yield Fusion(tap, aligned_upsampling(name, coarse, fine), 0, scale)
                coarse = fine
        name = f"upscore{coarse.stride}" if skips else "upscore"
        if self.spec.padding == "caffe":
            layer = upsampling(name, coarse, IMAGE)
            yield Fusion(None, layer, crop_offset(coarse.then(layer), IMAGE))
        else:
            yield Fusion(None, aligned_upsampling(name, coarse, IMAGE), 0)

    def forward(self, images: Tensor, reuse: bool = False) -> Tensor:
        """(N, in_channels, H, W) normalised float images to (N, num_classes, H, W) logits, any H and W.

        Logits are of float32, or float64 where the network is.

        Args:
            reuse: compute what no layer sees of an image once for all images of a size, which is worth it where many
                have the same. With padding "caffe" and without gradients; elsewhere there is nothing to it.

        Raises:
            InputError: for integers, which can only be images that were not normalised yet.
        """
        if not images.is_floating_point():
            raise InputError(
                f"images are {str(images.dtype).removeprefix('torch.')}; expected normalised floats: "
                "for images in the values of their files call model(model.normalise(images))"
            )
        if self._surroundings is not None and torch.is_grad_enabled():
            self._surroundings.forget()  # an optimiser may follow; fused ones leave the versions of tensors as they are
        covered = self._covered(images)
        taps = self._surroundings(self.backbone, covered) if reuse and self._surroundings is not None else None
        if taps is None:
            taps = self.backbone(covered)
        x = self.dropout(F.relu(self.fc6(taps[self.backbone.taps[-1]]), inplace=True))
        x = self.dropout(F.relu(self.fc7(x), inplace=True))
        x = _precise(self.score_fr(x))
        fade = self.spec.padding == "caffe"
        for fusion in self.fusions:
            if fusion.tap is None:
                return upsampled(x, fusion.layer, fusion.crop, (images.shape[-2], images.shape[-1]), fade)
            skip = self.get_submodule(f"score_{fusion.tap}")(_scaled(taps[fusion.tap], fusion.scale))
            if fade:
                height, width = (fusion.layer.output_size(n) for n in x.shape[-2:])
                skip = skip[..., fusion.crop : fusion.crop + height, fusion.crop : fusion.crop + width]
            x = upsampled(x, fusion.layer, 0, (skip.shape[-2], skip.shape[-1]), fade) + _precise(skip)
        raise AssertionError("the last fusion reaches the image")

    def covered_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that an image of `size` is padded to, with zeros at its end, so that none is left out."""
        if self.spec.padding == "caffe":
            return size
        height, width = (
            self._covering.least_size(n, torch.sym_max if isinstance(n, torch.SymInt) else max) for n in size
        )
        return height, width

    def _covered(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = self.covered_size((height, width))
        if not isinstance(rows, torch.SymInt) and (rows, columns) == (height, width):
            return images
        return F.pad(images, (0, columns - width, 0, rows - height))

    def prepare(self, spec: ModelSpec) -> None:
        """Take another spec of the same network: the preparation of images that its weights were trained with."""
        self.spec = spec
        for name in ("mean", "std"):
            values = torch.tensor(getattr(spec, name), device=self.score_fr.weight.device).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in their file's values, uint8 RGB for instance, to the floats that `forward` takes."""
        values = images.to(self.mean.dtype)
        if self.spec.channel_order == "bgr":
            values = values.flip(1)
        return (values - self.mean) / self.std

    def segment(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, h, w) images in file values to (N, H, W) int64 masks at `size` = (H, W), as `segment_each`."""
        return torch.stack(self.segment_each(images, [size] * len(images)))

    def segment_each(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """(N, C, h, w) images in file values to N int64 masks, each of its own size (H, W).

        Logits are resampled before the likeliest class is taken, so that a mask at an image's own size
        has smooth outlines. Evaluation and prediction both come through here.
        """
        logits = self.logits(images).split(1)  # at full size one after the other: together they may be gigabytes
        return [likeliest(resample(one, size))[0] for one, size in zip(logits, sizes, strict=True)]

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, h, w) images in file values to (N, num_classes, h, w) logits.

        Where the spec has an input size, all images have it, and `forward` is to reuse what it can.
        """
        return self(self.normalise(images), reuse=self.spec.input_size is not None)


def _precise(x: Tensor) -> Tensor:
    """In float32 at least: upsampling adds up thousands of terms of the gradient."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor
