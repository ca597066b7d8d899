"""From images to their masks: load a model once, call it on paths, PIL images, arrays or tensors, one or many."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fcnseg.classes import distinct_colours
from fcnseg.cores import available_cores
from fcnseg.data.display import displayable
from fcnseg.data.files.listing import list_images
from fcnseg.data.resizing import scale_values
from fcnseg.errors import InputError
from fcnseg.inference.averaging import Averaging, averaged_logits
from fcnseg.inference.device import default_device, fast_precision
from fcnseg.inference.exported import is_exported, load_exported
from fcnseg.inference.large import Written, segment_file
from fcnseg.inference.network import Network
from fcnseg.inference.pixels import ImageLike, file_values
from fcnseg.inference.scale import Scale, parse_scale
from fcnseg.inference.scene import open_scene
from fcnseg.inference.segmentation import Segmentation
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, from_pretrained, likeliest, optimise, resample, resampled_rows
from fcnseg.models.optimised import PRECISIONS

BATCH_PIXELS = {"cpu": 2**18}
"""What a batch has at most, by the type of device; `GPU_PIXELS` on others."""

GPU_PIXELS = 2**22
PROBE = 512
"""Side of the part of a large image that tells whether 16 bits agree, in pixels."""

BAND_BYTES = 2**28
"""Logits that are resampled at once, when a mask is made."""

Failed = Callable[[Any, InputError], None]


class Predictor:
    """Segments images with a trained model, prepared exactly as in validation.

    Args:
        model: a network whose spec says how its images are prepared, or an exported one. It is moved to the device;
            what is used is its optimised form, and not changed by training that goes on.
        device: "cpu", "cuda", ...; the first GPU, or else the CPU, by default.
        precision: "32-true"; "bf16-mixed" or "16-mixed", as in `optimise`; or "auto": bf16-mixed where the hardware
            is fast in it and it gives `AGREEMENT` of the first image's pixels the class that 32-true gives them.
        compile: by torch.compile, see `optimise`.
        scale: at what size the network sees images: "training", the one that it was trained at; "native", their own;
            or a factor on their own, such as 0.5.
        averaging: over views of an image.

    Attributes:
        agreement: with "auto", the share of the first image's pixels that had the same class in both, 0 to 1.

    Raises:
        InputError: for another device, precision or scale.
    """

    AGREEMENT = 0.98

    def __init__(
        self,
        model: FCN | Network,
        device: str | None = None,
        precision: str = "32-true",
        compile: bool = False,
        *,
        scale: str | float = "training",
        averaging: Averaging | None = None,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision={precision}: expected one of auto, {', '.join(PRECISIONS)}")
        self.scale: Scale = parse_scale(scale)
        self.averaging = averaging or Averaging()
        self.agreement: float | None = None
        self._exact: Network | None = None
        self.model: Network
        if isinstance(model, FCN):
            self._use(model.to(default_device(device)), precision, compile)
        else:
            if compile or precision not in ("auto", "32-true"):
                raise InputError(f"precision={precision}, compile={compile}: an exported network is as it was exported")
            self.model, self.precision = model, "32-true"
        self.label_space = label_space_of(self.model)

    def _use(self, model: FCN, precision: str, compile: bool) -> None:
        self.precision = fast_precision(model.device) if precision == "auto" else precision
        self.model = optimise(model, self.precision, compile)
        if precision == "auto" and self.precision != "32-true":
            self._exact = optimise(model, "32-true", compile)  # until the first image has told

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | None = None, revision: str | None = None, **options: Any
    ) -> "Predictor":
        """Load what `fcnseg.from_pretrained` takes, a folder or a checkpoint or "demo", or what was exported.

        Args:
            options: `precision`, `compile`, `scale` and `averaging`.

        Raises:
            InputError: when there is no such model or it cannot be read.
        """
        if is_exported(source):
            return cls(load_exported(source, device), **options)
        return cls(from_pretrained(source, revision=revision), device, **options)

    @overload
    def __call__(self, image: ImageLike, *, scaled: bool = False, probabilities: bool = False) -> Segmentation: ...
    @overload
    def __call__(self, image: Iterable[ImageLike], *, scaled: bool = False, probabilities: bool = False) -> Any: ...
    def __call__(self, image: Any, *, scaled: bool = False, probabilities: bool = False) -> Any:
        """Segment a path, a PIL image, an (H, W, C) or (H, W) array, or a (C, H, W) or (H, W) tensor.

        C is the model's number of channels; a grey uint8 image will do for a model of three. Values are of the type
        that the model was trained on, and of any of uint8, uint16 and floats where it applies a scaling.

        Args:
            image: in the values of a file; a scaling that the model was trained with is applied here. Or several: a
                list, or an array or tensor of four axes, gives a list; an iterator an iterator, as `stream` does.
            scaled: whether that has been done already, as in the samples of a dataset.
            probabilities: whether the segmentation is to have them.

        Raises:
            InputError: for an unreadable file, or an image of another kind; it says what to give instead.
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray | Tensor) and image.ndim == 4):
            return list(self.stream(image, scaled=scaled, probabilities=probabilities))
        if isinstance(image, Iterator):
            return self.stream(image, scaled=scaled, probabilities=probabilities)
        with torch.inference_mode():
            return next(self._segmented([self._prepare(image, scaled)], probabilities))

    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        scaled: bool = False,
        probabilities: bool = False,
        failed: Failed | None = None,
        portion: Callable[[Any], int] = lambda image: 0,
    ) -> Iterator[Segmentation]:
        """Segment many images, in their order: decoded by threads ahead of the network, in batches of equal sizes.

        Args:
            images: those of a folder and its subfolders, or whatever yields images, endlessly too.
            scaled, probabilities: as in a call.
            failed: is told of an image that cannot be segmented, and of the reason, and the others go on.
            portion: a number for each image; those of one batch have the same.

        Raises:
            InputError: as a call does, at the place of the image, unless `failed` is given.
        """
        source = list_images(Path(images), recursive=True) if isinstance(images, str | Path) else images
        batch: list[_Prepared] = []
        for prepared in self._ahead(source, scaled, failed, portion):
            full = len(batch) >= self.batch_size(*prepared.seen.shape[-2:])
            if batch and (full or not prepared.goes_with(batch[0])):
                yield from self._batch(batch, probabilities)
                batch = []
            batch.append(prepared)
        if batch:
            yield from self._batch(batch, probabilities)

    def segment_file(self, path: str | Path, mask: str | Path, **options: Any) -> Written:
        """Segment an image of any size, in bounded memory and from file to file; go on where that was stopped.

        Args:
            path: GeoTIFF, TIFF, PNG or JPEG of any size.
            mask: a .tif, which keeps the place on the ground, or a .png.
            options: those of `fcnseg.inference.large.segment_file`: overlay, probabilities, gsd, windows, ...

        Raises:
            InputError, OSError: as that function.
        """
        if self._exact is not None:
            self._choose_on_scene(path)
        scale = None if self.scale.factor is None else self.scale
        settings: dict[str, Any] = {"scale": scale, "averaging": self.averaging} | options
        return segment_file(self.model, self.label_space, path, Path(mask), **settings)

    def settle_precision(self, pictures: Iterable[Path], scenes: Iterable[Path]) -> str:
        """Choose the precision that "auto" stands for, as segmenting these files would.

        Args:
            pictures: as `stream` takes them; the first that can be read tells.
            scenes: as `segment_file` does; the first tells, where no picture could be read.
        """
        ways: list[tuple[Callable[[Path], object], Iterable[Path]]] = [
            (self, pictures),
            (self._choose_on_scene, scenes),
        ]
        for choose, path in ((way, path) for way, paths in ways for path in paths):
            if self._exact is None:
                break
            with suppress(InputError):
                choose(path)
        return self.precision if self._exact is None else "auto"

    def _choose_on_scene(self, path: str | Path) -> None:
        with open_scene(path, self.model.spec) as scene:
            top = max(scene.size[0] - PROBE, 0) // 2
            pixels = scale_values(scene.rows(top, top + min(PROBE, scene.size[0])), self.model.spec.scaling)
        window = torch.from_numpy(np.ascontiguousarray(pixels[:, :PROBE].transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            self._choose(window.to(self.model.device), (window.shape[-2], window.shape[-1]))

    def _batch(self, batch: "list[_Prepared]", probabilities: bool) -> list[Segmentation]:
        with torch.inference_mode():  # never around a yield, whose receiver would be in it too
            return list(self._segmented(batch, probabilities))

    def _ahead(
        self, images: Iterable[ImageLike], scaled: bool, failed: Failed | None, portion: Callable[[Any], int]
    ) -> "Iterator[_Prepared]":
        """Prepare images in threads, a few ahead of the one that is wanted."""
        threads = min(available_cores(), 8)
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[ImageLike, Future[_Prepared]]] = deque()
            for image in images:
                waiting.append((image, pool.submit(self._prepare, image, scaled, portion(image))))
                if len(waiting) > 2 * threads:
                    yield from _taken(*waiting.popleft(), failed)
            while waiting:
                yield from _taken(*waiting.popleft(), failed)

    def _prepare(self, image: ImageLike, scaled: bool, portion: int = 0) -> "_Prepared":
        spec = self.model.spec
        pixels = file_values(image, spec)
        values = pixels if scaled else scale_values(pixels, spec.scaling)
        seen = np.ascontiguousarray(self.scale.applied(values, spec).transpose(2, 0, 1))
        source = Path(image) if isinstance(image, str | Path) else None
        return _Prepared(pixels, torch.from_numpy(seen), source, portion)

    def batch_size(self, height: int, width: int) -> int:
        """How many images of this size go through the network together, as they are seen."""
        return max(BATCH_PIXELS.get(self.model.device.type, GPU_PIXELS) // (height * width), 1)

    def _segmented(self, batch: "list[_Prepared]", probabilities: bool) -> Iterator[Segmentation]:
        images = torch.stack([prepared.seen for prepared in batch]).to(self.model.device)
        sizes = [prepared.pixels.shape[:2] for prepared in batch]
        if self._exact is not None:
            self._choose(images[:1], sizes[0], self.scale.shown(sizes[0], self.model.spec))
        logits = averaged_logits(self.model, images, self.averaging)
        for prepared, one, size in zip(batch, logits.split(1), sizes, strict=True):
            covered, one = self.scale.covered(size), _beginning(one, self.scale.shown(size, self.model.spec))
            mask, found = mask_of(one, covered), None
            if probabilities:
                found = resample(one, covered).softmax(dim=1)[0, :, : size[0], : size[1]].float().cpu().numpy()
            yield Segmentation(
                displayable(prepared.pixels), mask[: size[0], : size[1]], self.label_space, found, prepared.source
            )

    def _choose(self, image: Tensor, size: tuple[int, int], shown: tuple[int, int] | None = None) -> None:
        """Go on in 16 bits only where the masks agree."""
        assert self._exact is not None
        fast, exact = (mask_of(_beginning(network.logits(image), shown), size) for network in (self.model, self._exact))
        self.agreement = float((fast == exact).mean())
        if self.agreement < self.AGREEMENT:
            self.precision, self.model = "32-true", self._exact
        self._exact = None


@dataclass(frozen=True)
class _Prepared:
    """An image as it is and as the network sees it.

    Attributes:
        pixels: (H, W, C) in the values of the file.
        seen: (C, h, w).
        source: its file.
        portion: see `Predictor.stream`.
    """

    pixels: np.ndarray
    seen: Tensor
    source: Path | None
    portion: int

    def goes_with(self, other: "_Prepared") -> bool:
        return (self.seen.shape, self.seen.dtype, self.portion) == (other.seen.shape, other.seen.dtype, other.portion)


def _taken(image: ImageLike, future: "Future[_Prepared]", failed: Failed | None) -> Iterator[_Prepared]:
    try:
        yield future.result()
    except InputError as error:
        if failed is None:
            raise
        failed(image, error)


def mask_of(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(1, classes, h, w) logits to the (H, W) uint8 mask at `size` = (H, W), as `FCN.segment`, in bounded memory."""
    rows = max(BAND_BYTES // (4 * logits.shape[1] * size[1]), 1)
    if rows >= size[0]:
        return _uint8(likeliest(resample(logits, size)))
    mask = np.empty(size, np.uint8)
    for start in range(0, size[0], rows):
        stop = min(start + rows, size[0])
        band = resampled_rows(lambda a, b: logits[..., a:b, :], _size(logits), size, start, stop)
        mask[start:stop] = _uint8(likeliest(band))
    return mask


def _beginning(logits: Tensor, shown: tuple[int, int] | None) -> Tensor:
    """(N, C, h, w) logits without those of padding, beyond a (height, width)."""
    return logits if shown is None else logits[..., : shown[0], : shown[1]]


def _uint8(classes: Tensor) -> np.ndarray:
    return classes[0].to(torch.uint8).cpu().numpy()


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def label_space_of(network: Network) -> LabelSpace:
    """The classes that a network tells; numbers as names where it came without."""
    if space := network.spec.label_space:
        return LabelSpace.from_dict(space, "the model")
    return numbered(network.spec.num_classes)


def numbered(classes: int) -> LabelSpace:
    """So many classes without names."""
    return LabelSpace("numbered", tuple(f"class {i}" for i in range(classes)), tuple(distinct_colours(classes)))
