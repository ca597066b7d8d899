"""The fully convolutional network of Long, Shelhamer and Darrell (CVPR 2015) over any backbone.

Layer names are the paper's: fc6 and fc7 are the classifier as convolutions, score_fr scores its output,
score_<tap> the skips; upscore layers are bilinear and fixed. All crops come out of `fcnseg.geometry`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.geometry import IMAGE, Grid, Layer, crop_offset, trace, upsampling
from fcnseg.models.backbones import Backbone, initialise, read_layers
from fcnseg.models.spec import ModelSpec


@dataclass(frozen=True)
class Fusion:
    """One step up: upsample the scores, then line them up with a finer grid.

    Attributes:
        tap: the skip that is added, or None for the last step, up to the image.
        layer: the bilinear upsampling.
        crop: pixels cut from the start of the skip ("caffe") or of the upsampled scores ("same", and
            the last step of both).
    """

    tap: str | None
    layer: Layer
    crop: int


class FCN(nn.Module):
    """FCN-32s, 16s or 8s over a backbone.

    Args:
        backbone: the trunk; its taps are at strides 8, 16 and 32.
        stride: 32, 16 or 8: the stride of the finest tap that is scored.
        spec: classes, padding, width, dropout and the preparation of images.

    Raises:
        GeometryError: when a crop would be fractional or negative; names both layers.
    """

    def __init__(self, backbone: Backbone, stride: int, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        fc_channels = max(8, round(4096 * spec.width / 8) * 8)
        padding = 0 if spec.padding == "caffe" else backbone.fc6_kernel // 2
        trunk_channels = backbone.channels[backbone.taps[-1]]
        self.fc6 = nn.Conv2d(trunk_channels, fc_channels, backbone.fc6_kernel, padding=padding)
        self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
        self.dropout = nn.Dropout(spec.dropout)
        self.score_fr = nn.Conv2d(fc_channels, spec.num_classes, 1)
        skips = backbone.taps[-2::-1][: {32: 0, 16: 1, 8: 2}[stride]]
        for tap in skips:
            self.add_module(f"score_{tap}", nn.Conv2d(backbone.channels[tap], spec.num_classes, 1))
        self.fusions = tuple(self._plan(skips))
        self._initialise(skips)
        self.mean: Tensor
        self.std: Tensor
        self.prepare(spec)

    def _initialise(self, skips: tuple[str, ...]) -> None:
        """He initialisation; score layers start at zero, as the reference's do."""
        initialise(self)
        for name in ("score_fr", *(f"score_{tap}" for tap in skips)):
            nn.init.zeros_(self.get_submodule(name).weight)  # type: ignore[arg-type]

    def grids(self) -> dict[str, Grid]:
        """The grid of every convolution and pooling up to fc7, by layer name."""
        grids = self.backbone.grids()
        trunk = grids[self.backbone.taps[-1]]
        return grids | trace(read_layers(nn.ModuleDict({"fc6": self.fc6, "fc7": self.fc7})), trunk)

    def _plan(self, skips: tuple[str, ...]) -> Iterator[Fusion]:
        """Derive the upsamplings and crops, from the coarsest scores to the image."""
        grids = self.grids()
        coarse = grids["fc7"]
        names = ["upscore2", *(f"upscore_{tap}" for tap in skips)][: len(skips)]
        for name, tap in zip(names, skips, strict=True):
            layer, up = self._upsampled(name, coarse, grids[tap])
            if self.spec.padding == "caffe":
                yield Fusion(tap, layer, crop_offset(grids[tap], up))
                coarse = up
            else:
                yield Fusion(tap, layer, crop_offset(up, grids[tap]))
                coarse = grids[tap]
        name = f"upscore{coarse.stride}" if skips else "upscore"
        layer, up = self._upsampled(name, coarse, IMAGE)
        yield Fusion(None, layer, crop_offset(up, IMAGE))

    def _upsampled(self, name: str, coarse: Grid, fine: Grid) -> tuple[Layer, Grid]:
        layer = upsampling(name, coarse, fine)
        if self.spec.padding == "same":
            # Cut to the outermost samples: half a stride beyond them, or none where centres coincide.
            even = layer.kernel % 2 == 0
            layer = Layer(
                name, layer.kernel, layer.stride, layer.stride // 2 if even else layer.stride - 1, transposed=True
            )
        return layer, coarse.then(layer)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised float images to (N, num_classes, H, W) logits, any H and W."""
        taps = self.backbone(images)
        x = self.dropout(F.relu(self.fc6(taps[self.backbone.taps[-1]]), inplace=True))
        x = self.dropout(F.relu(self.fc7(x), inplace=True))
        x = self.score_fr(x)
        caffe = self.spec.padding == "caffe"
        for fusion in self.fusions:
            x = (_transposed if caffe else _interpolated)(x, fusion.layer)
            if fusion.tap is None:
                return _crop(x, fusion.crop, images)
            skip = self.get_submodule(f"score_{fusion.tap}")(taps[fusion.tap])
            x = x + _crop(skip, fusion.crop, x) if caffe else _crop(x, fusion.crop, skip) + skip
        raise AssertionError("the last fusion reaches the image")

    def prepare(self, spec: ModelSpec) -> None:
        """Take another spec of the same network: the preparation of images that its weights were trained with."""
        self.spec = spec
        for name in ("mean", "std"):
            values = torch.tensor(getattr(spec, name), device=self.score_fr.weight.device).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in their file's values, uint8 RGB for instance, to what `forward` takes."""
        if self.spec.channel_order == "bgr":
            images = images.flip(1)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def segment(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, h, w) images in file values to (N, H, W) int64 masks at `size` = (H, W).

        Logits are resampled before the likeliest class is taken, so that a mask at an image's own size
        has smooth outlines. Evaluation and prediction both come through here.
        """
        return resample(self(self.normalise(images)), size).argmax(dim=1)


def resample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) logits, bilinearly at (N, C, H, W) for `size` = (H, W)."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) float weights of a bilinear upsampling: a tent around the middle, as in Berkeley's surgery.py.

    Caffe's own filler gives the same at size 2f - f % 2 for a factor f, but at 63 it lies half a pixel off.
    """
    factor = (size + 1) // 2
    centre = (size - 1) / 2
    ramp = 1 - (torch.arange(size, dtype=torch.float32) - centre).abs() / factor
    return ramp[:, None] * ramp[None, :]


def _transposed(scores: Tensor, layer: Layer) -> Tensor:
    """Bilinear upsampling with zeros beyond the edges, as the reference's deconvolutions do it."""
    channels = scores.shape[1]
    kernel = bilinear_kernel(layer.kernel).to(scores).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(scores, kernel, stride=layer.stride, groups=channels)


def _interpolated(scores: Tensor, layer: Layer) -> Tensor:
    """Bilinear upsampling with the outermost samples repeated beyond the edges."""
    if layer.kernel % 2 == 0:
        return F.interpolate(scores, scale_factor=layer.stride, mode="bilinear", align_corners=False)
    height, width = (layer.stride * (n - 1) + 1 for n in scores.shape[-2:])
    return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=True)


def _crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Cut `x` to the height and width of `like`, from `offset` on; the last sample fills what is missing."""
    height, width = like.shape[-2:]
    x = x[..., offset : offset + height, offset : offset + width]
    missing = (height - x.shape[-2], width - x.shape[-1])
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x
