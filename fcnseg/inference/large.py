"""Images of any size from file to file, in bounded memory."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np

from fcnseg.errors import InputError
from fcnseg.inference.areas import count_pixels
from fcnseg.inference.averaging import Averaging
from fcnseg.inference.averaging import entropy as entropy_of
from fcnseg.inference.georeference import import_rasterio
from fcnseg.inference.mosaic import TILE_BYTES, Mosaic, Windows
from fcnseg.inference.network import Network
from fcnseg.inference.scale import Scale, parse_scale
from fcnseg.inference.scene import Scene, open_scene
from fcnseg.inference.scene_files import surfaces_file, write_mask, write_overlay
from fcnseg.inference.tiles import Part
from fcnseg.labels import LabelSpace

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Written:
    """What was made of a large image.

    Attributes:
        method: how it was computed, in words.
        counts: (classes,) pixels of each class.
    """

    method: str
    counts: np.ndarray


def segment_file(
    network: Network,
    label_space: LabelSpace,
    path: str | Path,
    mask: Path,
    *,
    overlay: Path | None = None,
    probabilities: Path | None = None,
    entropy: Path | None = None,
    scale: Scale | None = None,
    gsd: float | None = None,
    windows: Windows | None = None,
    averaging: Averaging | None = None,
    opacity: float = 0.5,
    advance: Advance = lambda share: None,
) -> Written:
    """Segment an image file by windows.

    Args:
        network: on its device.
        label_space: of its classes.
        path: GeoTIFF, TIFF, PNG or JPEG of any size; another format as far as memory allows.
        mask: where the mask goes: .tif or .png, see `write_mask`.
        overlay: where a picture goes.
        probabilities, entropy: where GeoTIFFs of class probabilities and of their entropy go.
        scale: at which the network sees the image; its own by default, and for a network of no training size.
        gsd: instead of that, the side of a pixel that the network is to see, in units of the image's CRS.
        windows: memory and tiles.
        averaging: over views, where the scale is the training's; else its temperature alone counts.
        opacity: of the overlay.
        advance: is told what share of the work has been done anew, 1 in all.

    Raises:
        InputError: for an image or a setting of another kind, or views to average.
        OSError: when a file cannot be written; what is done is kept, and nothing is left under the files' names.
    """
    import_rasterio("images beyond memory, and GeoTIFF,")
    averaging, windows = averaging or Averaging(), windows or Windows()
    with open_scene(path, network.spec, windows.memory) as scene:
        seen = scale_of(scene, scale, gsd)
        if network.spec.input_size is None and seen.factor is None:
            seen = Scale(Fraction(1))
        if seen.factor is not None and not averaging.is_plain:
            raise InputError(f"{path}: is computed by windows, without flip, scales or dropout")
        folder = mask.with_name(f".{mask.name}.partial")
        begins = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            mosaic = Mosaic(network, scene, seen, windows, folder, averaging)
            with unsure_files(scene, label_space, probabilities, entropy) as given:
                mosaic.compute(advance, given)
        except InputError:
            if begins:  # with an image or a setting that cannot be gone on with
                shutil.rmtree(folder, ignore_errors=True)
            raise
        write_mask(mosaic.mask, label_space, scene, mask)
        mosaic.rest()
        if overlay is not None:
            write_overlay(mosaic.mask, label_space, scene, overlay, opacity)
            mosaic.rest()
        counts = count_pixels(mosaic.mask, label_space)
        mosaic.remove()
        return Written(mosaic.method, counts)


@contextmanager
def unsure_files(
    scene: Scene, label_space: LabelSpace, probabilities: Path | None, entropy: Path | None
) -> Iterator[Callable[[Part], None] | None]:
    """The files of probabilities and entropy that are wanted; gives what takes parts of the logits, None for none."""
    with ExitStack() as files:
        classes, whole = label_space.classes, ("entropy",)
        write_shares = files.enter_context(surfaces_file(scene, classes, probabilities)) if probabilities else None
        write_entropy = files.enter_context(surfaces_file(scene, whole, entropy)) if entropy else None

        def take(part: Part) -> None:
            top, left, logits = part
            shares = logits.softmax(dim=1)
            if write_shares is not None:
                write_shares(top, left, shares[0].cpu().numpy())
            if write_entropy is not None:
                write_entropy(top, left, entropy_of(shares).cpu().numpy())

        yield take if write_shares or write_entropy else None


def scale_of(scene: Scene, scale: Scale | None, gsd: float | None) -> Scale:
    """The factor at which a scene is seen.

    Raises:
        InputError: for a ground sampling distance that is not positive, or a scene that lies nowhere.
    """
    if gsd is None:
        return Scale(Fraction(1)) if scale is None else scale
    if scene.place is None:
        raise InputError(f"{scene.path}: gsd={gsd:g} needs an image that lies on the ground; expected scale=FACTOR")
    if not (isfinite(gsd) and gsd > 0):
        raise InputError(f"gsd={gsd}: expected a number above 0")
    return parse_scale(scene.place.pixel / gsd)


def takes(size: tuple[int, int], spec_channels: int, scale: Scale, training: tuple[int, int] | None) -> int:
    """Bytes that segmenting an image of a (height, width) as a whole takes, roughly."""
    height, width = size
    if scale.factor is None and training is not None:
        seen = training[0] * training[1]
    else:
        seen = int(height * width * (scale.factor or 1) ** 2)
    return seen * TILE_BYTES + height * width * (6 * spec_channels + 12)
