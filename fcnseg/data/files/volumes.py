"""Volumes of medical imaging, slice by slice: NIfTI through nibabel, DICOM through pydicom (the extra `medical`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.values import require_bytes
from fcnseg.errors import InputError, refuse_endless

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom")


@dataclass(frozen=True)
class Volume:
    """A volume whose slices are read as they are asked for.

    Attributes:
        path: the file, or the folder of a series.
        shape: (slices, height, width).
        read: gives the (H, W) float32 values of a slice by its number, nan where there is no data.
        affine: (4, 4), from voxels to millimetres, of NIfTI.
    """

    path: Path
    shape: tuple[int, int, int]
    read: Callable[[int], np.ndarray]
    affine: np.ndarray | None = None

    def around(self, number: int, neighbours: int) -> np.ndarray:
        """(H, W, 2 neighbours + 1) of a slice in the midst of its neighbours; beyond the volume its last one again."""
        places = np.arange(number - neighbours, number + neighbours + 1).clip(0, self.shape[0] - 1).tolist()
        slices = {place: self.read(place) for place in sorted(set(places))}
        return np.dstack([slices[place] for place in places])


def is_volume(path: Path) -> bool:
    """Whether a path is NIfTI or DICOM by its ending, or a folder with DICOM files in it."""
    if path.is_dir():
        return any(file.suffix.lower() in DICOM for file in path.iterdir())
    return path.name.lower().endswith((*NIFTI, *DICOM))


def volume_name(path: Path) -> str:
    """What a volume is called: its name without the ending, of which .nii.gz is one."""
    ending = next((end for end in (*NIFTI, *DICOM) if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(ending)]


def open_volume(path: Path, axis: int = 2, in_order: bool = False) -> Volume:
    """Open a volume; its head alone is read.

    A slice of NIfTI lies across one of the file's three axes, and shows the first of the others from left to right,
    the second from above to below. Values are scaled as the file says. A slice of DICOM is a frame of the file, or a
    file of a folder, in the order of their places along the axis across them; values are scaled by slope and intercept
    (PS3.3 C.11.1.1.2), which gives Hounsfield units for CT, and the value that pads images is no data.

    Args:
        path: .nii, .nii.gz, .dcm, or a folder of .dcm, each of one slice.
        axis: of NIfTI, the one across slices: 0, 1 or 2.
        in_order: keep a compressed file open, so that slices in their order are unpacked once; by one process alone.

    Raises:
        InputError: when the file is missing, damaged or of another kind, or there is no such axis.
    """
    if axis not in (0, 1, 2):
        raise InputError(f"axis={axis!r}: expected 0, 1 or 2")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        return _series(path)
    return _dicom(path) if path.name.lower().endswith(DICOM) else _nifti(path, axis, in_order)


def _nifti(path: Path, axis: int, in_order: bool) -> Volume:
    with _decoding(path, "nibabel") as nibabel:
        image = nibabel.load(path, keep_file_open=in_order)
        shape = tuple(int(side) for side in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(f"{path}: has {'x'.join(map(str, shape))} voxels; expected three axes")
    columns, rows = (side for number, side in enumerate(shape) if number != axis)
    require_bytes(path, 8 * rows * columns, "a slice of a volume")

    def read(number: int) -> np.ndarray:
        place: list[Any] = [slice(None)] * 3 + [0] * (len(image.shape) - 3)
        place[axis] = number
        with _decoding(path, "nibabel"):
            values = np.asarray(image.dataobj[tuple(place)], np.float32).T
        return np.where(np.isfinite(values), values, np.float32(np.nan))

    return Volume(path, (shape[axis], rows, columns), read, np.asarray(image.affine))


def _dicom(path: Path) -> Volume:
    with _decoding(path, "pydicom") as pydicom:
        head = pydicom.dcmread(path, stop_before_pixels=True)
        frames, rows, columns = int(head.get("NumberOfFrames") or 1), int(head.Rows), int(head.Columns)
        samples = int(head.get("SamplesPerPixel", 1))
    if samples != 1:
        raise InputError(f"{path}: has {samples} values for each pixel; expected one, as CT and MR have")
    require_bytes(path, 4 * frames * rows * columns, "a volume")

    def read(number: int) -> np.ndarray:
        with _decoding(path, "pydicom") as pydicom:
            file = pydicom.dcmread(path)
            stored = file.pixel_array.reshape(frames, rows, columns)[number]
            values = stored * np.float32(file.get("RescaleSlope", 1)) + np.float32(file.get("RescaleIntercept", 0))
            padding = file.get("PixelPaddingValue")
            return np.where(stored == padding, np.float32(np.nan), values).astype(np.float32)

    return Volume(path, (frames, rows, columns), read)


def _series(folder: Path) -> Volume:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in DICOM)
    if not files:
        raise InputError(f"{folder}: no DICOM; expected files ending in {' or '.join(DICOM)}")
    placed = sorted((_place(file), file) for file in files)
    slices = [_dicom(file) for _, file in placed]
    for other in slices[1:]:
        if other.shape != slices[0].shape:
            found, expected = ("x".join(map(str, each.shape)) for each in (other, slices[0]))
            raise InputError(f"{other.path}: has {found} voxels, {slices[0].path} {expected}; expected one series")
    if slices[0].shape[0] != 1:
        raise InputError(f"{slices[0].path}: has {slices[0].shape[0]} frames; expected files of one slice in a folder")
    shape = len(slices), *slices[0].shape[1:]
    return Volume(folder, shape, lambda number: slices[number].read(0))


def _place(path: Path) -> float:
    """Where a slice lies along the axis across it, in millimetres; by its number where the file does not tell."""
    with _decoding(path, "pydicom") as pydicom:
        head = pydicom.dcmread(path, stop_before_pixels=True)
        position, sides = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
        if position is None or sides is None:
            return float(head.get("InstanceNumber") or 0)
        across = np.cross(np.array(sides[:3], float), np.array(sides[3:], float))
        return float(across @ np.array(position, float))


@contextmanager
def _decoding(path: Path, package: str) -> Iterator[Any]:
    """Import what reads the file, and turn all of its errors into one line; it raises nearly everything on damage."""
    try:
        reader = import_module(package)
    except ImportError:
        raise InputError(f"{path}: needs {package}; pip install fcnseg[medical]") from None
    refuse_endless(path)
    try:
        yield reader
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a volume ({reason})") from error
