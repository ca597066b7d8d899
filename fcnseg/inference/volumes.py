"""Medical volumes from file to file: a mask for every slice, with its neighbours as channels where the model has them.

A NIfTI file gives one NIfTI file of masks in the same space, which viewers lay over it; DICOM gives a folder of PNGs.
"""

import gzip
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.data.datasets.volumes import volumes_of
from fcnseg.data.display import displayable
from fcnseg.data.files.values import without_data
from fcnseg.data.files.volumes import Volume, is_volume, open_volume, volume_name
from fcnseg.data.resizing import WINDOW, scale_values
from fcnseg.errors import InputError
from fcnseg.inference.predictor import Predictor
from fcnseg.inference.segmentation import Segmentation
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models.spec import ModelSpec


def find_volumes(source: Path) -> list[Path]:
    """The volumes that a path names: itself, or those in a folder; none where it names something else.

    Raises:
        InputError: when two are called alike.
    """
    if source.exists() and is_volume(source):
        return [source]
    if not source.is_dir() or not any(is_volume(path) for path in source.iterdir()):
        return []
    return list(volumes_of(source).values())


def segment_volume(
    predictor: Predictor,
    source: Path,
    masks: Path,
    overlays: Path | None = None,
    *,
    axis: int = 2,
    opacity: float = 0.5,
    progress: Callable[[], object] = lambda: None,
) -> Path:
    """Segment every slice of a volume, and return the file or folder that has the masks.

    Of NIfTI it is MASKS/NAME.nii.gz, uint8 in the volume's own axes and affine; of DICOM a folder MASKS/NAME of
    palette PNGs by the number of the slice. Values are class indices, and 255 where the slice has no data.

    Args:
        predictor: of a model with an odd number of channels, the middle one of which is the slice.
        source: NIfTI, DICOM, or a folder of DICOM.
        masks, overlays: folders; OVERLAYS/NAME gets a picture of each slice.
        axis: of NIfTI, the one across slices: 0, 1 or 2, as in training.
        opacity: of overlays, 0 to 1.
        progress: called for each slice.

    Raises:
        InputError: when the volume is unreadable, or the model has an even number of channels.
        OSError: when a file cannot be written.
    """
    volume, name = open_volume(source, axis, in_order=True), volume_name(source)
    neighbours = require_middle(predictor.model.spec)
    found = np.empty(volume.shape, np.uint8) if volume.affine is not None else None
    slices = (volume.around(number, neighbours) for number in range(volume.shape[0]))
    for number, (values, segmentation) in enumerate(_beside(predictor, slices)):
        middle = values[..., [neighbours]]
        if (absent := without_data(middle)) is not None:
            segmentation = replace(segmentation, mask=np.where(absent, np.uint8(IGNORE_INDEX), segmentation.mask))
        segmentation = replace(segmentation, image=_shown(middle, predictor.model.spec))
        if found is not None:
            found[number] = segmentation.mask
        place = Path(name, f"{number:04d}.png")
        segmentation.save(masks / place if found is None else None, overlays and overlays / place, opacity)
        progress()
    if found is None:
        return masks / name
    _write_nifti(found, volume, masks / f"{name}.nii.gz", axis)
    return masks / f"{name}.nii.gz"


def require_middle(spec: ModelSpec) -> int:
    """How many neighbours on either side the channels of a model are.

    Raises:
        InputError: when no channel is the middle one.
    """
    if spec.in_channels % 2 == 0:
        raise InputError(
            f"the model takes {spec.in_channels} channels; expected an odd number, a slice with neighbours"
        )
    return spec.in_channels // 2


def _beside(predictor: Predictor, slices: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, Segmentation]]:
    """Each slice with its segmentation; a few are read ahead of the network."""
    waiting: deque[np.ndarray] = deque()

    def noted() -> Iterator[np.ndarray]:
        for values in slices:
            waiting.append(values)
            yield values

    for segmentation in predictor.stream(noted()):
        yield waiting.popleft(), segmentation


def _shown(middle: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """A slice for the eye, by the level and width that the model was trained with, where it was."""
    if spec.scaling is None or not spec.scaling.startswith(WINDOW):
        return displayable(middle)
    grey = np.nan_to_num(scale_values(middle, spec.scaling))
    return displayable(np.rint(grey * 255).astype(np.uint8))


def _write_nifti(found: np.ndarray, volume: Volume, path: Path, axis: int) -> None:
    """(slices, H, W) masks in the axes of the file that they are of."""
    nibabel = import_module("nibabel")
    values = np.moveaxis(found.swapaxes(1, 2), 0, axis)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(nibabel.Nifti1Image(values, volume.affine).to_bytes(), 6))
