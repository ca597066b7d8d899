"""The fully convolutional network of Long, Shelhamer and Darrell (CVPR 2015) over any backbone.

Layer names are the paper's: fc6 and fc7 are the classifier as convolutions, score_fr scores its output,
score_<tap> the skips; upscore layers are bilinear and fixed. All crops come out of `fcnseg.geometry`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from fcnseg.models.showing import network_view
from fcnseg.models.spec import ModelSpec
from fcnseg.models.surroundings import Surroundings
from fcnseg.models.tracing import trace_network
from fcnseg.models.upsampling import segmented, sources, upsampled


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
    """FCN-32s, 16s, 8s, 4s or 2s over a backbone.

    Args:
        backbone: the trunk; its taps are at strides 8, 16 and 32, or from 4 or 2 on, times what a strided stem has.
        skips: how many of the finer taps are scored and added: 0 for FCN-32s, 1 for 16s, ..., 4 for 2s.
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
        self._grids, self.paths = self._place(taps)
        self._covering = Covering(self.paths)
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
        self._local = traced.local
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
        path = [layer for layer in self.paths[0] if layer.name in names]
        return Surroundings({layer.name: layer for layer in path}, self.backbone.taps)

    def _repr_html_(self) -> str:
        """Size, taps, input and classes, in notebooks; `print` shows torch's list of all layers."""
        scored = ("fc7", *(fusion.tap for fusion in self.fusions if fusion.tap))
        return network_view(self.spec, sum(p.numel() for p in self.parameters()), scored, self._grids)

    def grids(self) -> dict[str, Grid]:
        """The grid of every convolution and pooling up to fc7, and of the taps, by layer name."""
        return dict(self._grids)

    def _plan(self, skips: tuple[str, ...], scales: tuple[float, ...]) -> Iterator[Fusion]:
        """Derive the upsamplings and crops, from the coarsest scores to the image."""
        coarse = self._grids["fc7"]
        self._summed = [coarse]  # grids that scores are added up on, coarse to fine
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
            self._summed.append(coarse)
        name = f"upscore{coarse.stride}" if skips else "upscore"
        if name in names:  # FCN-2s' last step, of a stride of 2 as the first
            name = f"upscore_{skips[-1]}"
        yield self._to_image(coarse, name)

    def _to_image(self, coarse: Grid, name: str) -> Fusion:
        """The last step, from a grid to the image."""
        if self.spec.padding == "caffe":
            layer = upsampling(name, coarse, IMAGE)
            return Fusion(None, layer, crop_offset(coarse.then(layer), IMAGE))
        return Fusion(None, aligned_upsampling(name, coarse, IMAGE), 0)

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
        taps = self.taps(images, reuse)
        return self.combine(self.score(taps), (images.shape[-2], images.shape[-1]))

    def each_network(self, images: Tensor) -> list[Tensor]:
        """As `forward`, and then the logits of the coarser networks that are within this one, the next coarser first.

        Down to FCN-32s: sums of scores, upsampled to the image without the finer skips.
        """
        sums = self._sums(self.score(self.taps(images)))
        ends = [*(self._to_image(grid, "upscore") for grid in self._summed[:-1]), self.fusions[-1]]
        size = (images.shape[-2], images.shape[-1])
        return [self._at_image(x, end, size) for x, end in zip(sums, ends, strict=True)][::-1]

    def taps(self, images: Tensor, reuse: bool = False) -> dict[str, Tensor]:
        """(N, in_channels, H, W) normalised images to the maps that are scored, by the backbone's names for them."""
        if self._surroundings is not None and torch.is_grad_enabled():
            self._surroundings.forget()  # an optimiser may follow; fused ones leave the versions of tensors as they are
        covered = self._covered(images)
        if reuse and self._surroundings is not None:
            taps = self._surroundings(self.backbone, covered)
            if taps is not None:
                return taps
        return self.backbone(covered)

    def score(self, taps: Mapping[str, Tensor]) -> list[Tensor]:
        """The taps of (N, C, H, W) images to (N, num_classes, h, w) scores in float32 or float64, coarse to fine."""
        x = self.dropout(F.relu(self.fc6(taps[self.backbone.taps[-1]]), inplace=True))
        x = self.dropout(F.relu(self.fc7(x), inplace=True))
        scores = [self.score_fr(x)]
        scores += [self.score_tap(fusion, taps[str(fusion.tap)]) for fusion in self.fusions[:-1]]
        return [_precise(x) for x in scores]

    def score_tap(self, fusion: Fusion, x: Tensor) -> Tensor:
        """(N, channels, h, w) of a fusion's skip to (N, num_classes, h, w) scores."""
        return self.get_submodule(f"score_{fusion.tap}")(_scaled(x, fusion.scale))

    def combine(self, scores: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Scores as `score` gives them to (N, num_classes, *size) logits, `size` = (H, W) being the images'."""
        return self._at_image(self._sums(scores)[-1], self.fusions[-1], size)

    def _sums(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """The scores, and on the grid of each skip their sum up to it."""
        fade = self.spec.padding == "caffe"
        sums, skips = [scores[0]], scores[1:]
        for fusion, skip in zip(self.fusions, skips, strict=False):
            x = sums[-1]
            if fade:
                height, width = (fusion.layer.output_size(n) for n in x.shape[-2:])
                skip = skip[..., fusion.crop : fusion.crop + height, fusion.crop : fusion.crop + width]
            sums.append(upsampled(x, fusion.layer, (0, 0), (skip.shape[-2], skip.shape[-1]), fade) + skip)
        return sums

    def _at_image(self, x: Tensor, last: Fusion, size: tuple[int, int]) -> Tensor:
        return upsampled(x, last.layer, (last.crop, last.crop), size, self.spec.padding == "caffe")

    def combine_part(self, scores: Sequence[Tensor], start: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Part of what `combine` gives for scores of a whole image, from no more of them than it needs.

        Args:
            scores: on any device.
            start: row and column of the image at which the part begins.
            size: (height, width) of the part, within the image.
        """
        fade, device = self.spec.padding == "caffe", self.mean.device
        axes = [self._needed([x.shape[axis] for x in scores], start[axis], size[axis]) for axis in (-2, -1)]
        rows, columns = axes
        x = scores[0][..., slice(*rows[0]), slice(*columns[0])].to(device)
        for level, fusion in enumerate(self.fusions):
            wanted = [(axis[level + 1], axis[level][0] * fusion.layer.stride) for axis in axes]
            crop = fusion.crop if fusion.tap is None else 0
            top, left = (first + crop - origin for (first, _), origin in wanted)
            height, width = (end - first for (first, end), _ in wanted)
            x = upsampled(x, fusion.layer, (top, left), (height, width), fade)
            if fusion.tap is not None:
                (top, left), skip = (first + fusion.crop for (first, _), _ in wanted), scores[level + 1]
                x = x + skip[..., top : top + height, left : left + width].to(device)
        return x

    def _needed(self, samples: Sequence[int], start: int, length: int) -> list[tuple[int, int]]:
        """Along one axis, of which samples of the scores' grids and of the image a part is made, coarse to fine.

        On the grid of a skip they are counted from the first sample that is not cropped.
        """
        fade, parts = self.spec.padding == "caffe", [(start, start + length)]
        sizes = [samples[0]]  # of the sums
        for fusion, skip in zip(self.fusions, samples[1:], strict=False):
            sizes.append(fusion.layer.output_size(sizes[-1]) if fade else skip)
        for fusion, known in zip(self.fusions[::-1], sizes[::-1], strict=True):
            first, end = parts[0]
            crop = fusion.crop if fusion.tap is None else 0
            parts.insert(0, sources(fusion.layer, known, first + crop, end - first, fade))
        return parts

    def samples(self, start: int, stop: int) -> dict[str, tuple[int, int]]:
        """Of each scored tap, and of fc7, the samples that logits from `start` on and before `stop` are made of.

        First and end, along either axis, fine to coarse; on the tap's own grid, also beyond it, where the outermost
        sample or, with padding "caffe", nothing stands for them.
        """
        crop, parts = self.fusions[-1].crop, {}
        start, stop = self.fusions[-1].layer.seen(start + crop, stop + crop)
        for fusion in self.fusions[-2::-1]:
            parts[str(fusion.tap)] = start + fusion.crop, stop + fusion.crop
            start, stop = fusion.layer.seen(start, stop)
        return parts | {"fc7": (start, stop)}

    def seen(self, start: int, stop: int) -> tuple[int, int]:
        """The image pixels, first and end, that logits from `start` on and before `stop` depend on, also beyond it.

        Along either axis. Networks that average over the whole image depend on all of it besides, see `tiling`.
        """
        parts = [self._grids[tap].seen(*part) for tap, part in self.samples(start, stop).items()]
        return min(first for first, _ in parts), max(end for _, end in parts)

    def tiling(self) -> dict[str, int] | None:
        """How an image can be computed in tiles whose logits are those of the whole; None where they cannot be.

        Tiles begin at multiples of "step" pixels; what lies nearer than "before" pixels to a tile's beginning or
        "after" to its end, unless the image ends there too, is to be taken from another tile.
        """
        step = int(self._grids["fc7"].stride)
        seen = [self.seen(pixel, pixel + 1) for pixel in range(step)]
        before = max(pixel - first for pixel, (first, _) in enumerate(seen))
        after = max(end - pixel - 1 for pixel, (_, end) in enumerate(seen))
        return {"step": step, "before": before, "after": after} if self._local else None

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

    @property
    def device(self) -> torch.device:
        """Where images are computed."""
        return self.mean.device

    def in_precision(self, device: str) -> AbstractContextManager:
        """The precision that convolutions are computed in on that type of device; that of the weights here."""
        return nullcontext()

    def prepare(self, spec: ModelSpec) -> None:
        """Take another spec of the same network: the preparation of images that its weights were trained with."""
        self.spec = spec
        for name in ("mean", "std"):
            values = torch.tensor(getattr(spec, name), device=self.score_fr.weight.device).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in their file's values, uint8 RGB for instance, to the floats that `forward` takes.

        nan, which is no data, becomes 0.
        """
        values = images.to(self.mean.dtype)
        if self.spec.channel_order == "bgr":
            values = values.flip(1)
        return normalised(values, self.mean, self.std, self.spec)

    def segment(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, h, w) images in file values to (N, H, W) int64 masks at `size` = (H, W), as `segment_each`."""
        return torch.stack(self.segment_each(images, [size] * len(images)))

    def segment_each(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        shown: Sequence[tuple[int, int]] | None = None,
    ) -> list[Tensor]:
        """(N, C, h, w) images in file values to N int64 masks, each of its own size (H, W).

        Logits are resampled before the likeliest class is taken, so that a mask at an image's own size
        has smooth outlines.

        Args:
            images: of one size.
            sizes: of the masks.
            shown: the (height, width) of the beginning of each image that its mask is of; what follows is padding.
                All of each by default.
        """
        return segmented(self.logits(images), sizes, shown)

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, h, w) images in file values to (N, num_classes, h, w) logits.

        Where the spec has an input size, all images have it, and `forward` is to reuse what it can.
        """
        return self(self.normalise(images), reuse=self.spec.input_size is not None)


def normalised(images: Tensor, mean: Tensor, std: Tensor, spec: ModelSpec) -> Tensor:
    """(N, C, H, W) floats by a (1, C, 1, 1) mean and deviation, in the same order of channels; no data is 0."""
    values = (images - mean) / std
    if spec.image_type == "float32":
        values = torch.where(values.isnan(), torch.zeros_like(values), values)
    return values if spec.clip is None else values.clamp(-spec.clip, spec.clip)


def _precise(x: Tensor) -> Tensor:
    """In float32 at least: upsampling adds up thousands of terms of the gradient."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor
