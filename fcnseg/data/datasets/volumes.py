"""Slices of medical volumes with their neighbours as channels (a 2.5D network), NIfTI and DICOM."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, product
from pathlib import Path

import numpy as np

from fcnseg.data.dataset import Sample
from fcnseg.data.datasets.splits import split_blocks
from fcnseg.data.files.listing import require_folder
from fcnseg.data.files.values import without_data
from fcnseg.data.files.volumes import Volume, is_volume, open_volume, volume_name
from fcnseg.data.resizing import check_scaling, scale_values
from fcnseg.data.showing import Shown
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace

AFFINE_TOLERANCE = 1e-2
"""Millimetres by which a label may lie elsewhere than its image; programs round differently."""


class Slices(Shown):
    """Every slice of the volumes in a folder, with the labels of the same names in another.

    Compressed files (.nii.gz) are unpacked up to a slice each time it is read: `data.cache=disk` keeps slices.

    Args:
        images, labels: the folders, of .nii, .nii.gz, .dcm, or folders of .dcm, see `open_volume`.
        label_space: what the values in the labels mean.
        split: "train", "val" or "all", of whole volumes, since slices of one are alike.
        neighbours: slices on either side that an image holds as channels; beyond the volume its last one again.
        scaling: such as "window:40:400", see `scale_values`.
        axis: of NIfTI, the one across slices.
        val_share, seed: of the split, see `split_blocks`.

    Raises:
        InputError: for a missing folder, a volume without a label, one of another shape or at another place, or a
            value out of range.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        label_space: LabelSpace,
        split: str = "all",
        *,
        neighbours: int = 1,
        scaling: str | None = None,
        axis: int = 2,
        val_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not isinstance(neighbours, int) or neighbours < 0:
            raise InputError(f"neighbours={neighbours!r}: expected a whole number from 0 on")
        check_scaling(scaling)
        self.label_space, self.neighbours, self.scaling, self.axis = label_space, neighbours, scaling, axis
        pictures, by_name = volumes_of(Path(images)), volumes_of(Path(labels))
        if missing := [path for name, path in pictures.items() if name not in by_name]:
            raise InputError(f"{missing[0]}: no label of that name in {labels}")
        names = list(pictures)
        chosen = split_blocks([("", name) for name in names], split, val_share=val_share, block=1, seed=seed)
        self.names = [names[i] for i in chosen]
        self.images, self.labels = [pictures[name] for name in self.names], [by_name[name] for name in self.names]
        depths = [self._checked(*pair).shape[0] for pair in zip(self.images, self.labels, strict=True)]
        self._ends = list(accumulate(depths))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """The (H, W, 2 neighbours + 1) float32 image, its middle channel the slice; its (H, W) uint8 mask; its name.

        The mask ignores what is no data in the slice itself.

        Raises:
            InputError: naming the file, when it is damaged or its label holds a value outside the label space.
        """
        volume, number = self._place(index)
        found = _open(self.images[volume], self.axis)
        image = scale_values(found.around(number, self.neighbours), self.scaling)
        mask = self._label(volume, number)
        if (absent := without_data(image[..., [self.neighbours]])) is not None:
            mask = np.where(absent, np.uint8(IGNORE_INDEX), mask)
        return image, mask, f"{self.names[volume]}@{number}"

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The volume of a slice, and the volume of its labels."""
        volume, _ = self._place(index)
        return self.images[volume], self.labels[volume]

    def _place(self, index: int) -> tuple[int, int]:
        """The volume of a sample, and the number of its slice."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        volume = bisect_right(self._ends, index)
        return volume, index - (self._ends[volume - 1] if volume else 0)

    def _label(self, volume: int, number: int) -> np.ndarray:
        path = self.labels[volume]
        values = _open(path, self.axis).read(number)
        whole = np.nan_to_num(values, nan=-1)
        if (whole != np.rint(whole)).any() or whole.min() < 0 or whole.max() > 65535:
            raise InputError(f"{path}: slice {number} holds {values.min():g} to {values.max():g}; expected whole ids")
        return self.label_space.decode(whole.astype(np.uint16), f"{path}: slice {number}")

    def _checked(self, image: Path, label: Path) -> Volume:
        """The image's volume, whose label has its shape and place."""
        found, other = open_volume(image, self.axis), open_volume(label, self.axis)
        if found.shape != other.shape:
            theirs, ours = ("x".join(map(str, each.shape)) for each in (other, found))
            raise InputError(f"{label}: has {theirs} voxels, its image {ours}; expected the same (slices x H x W)")
        if found.affine is not None and other.affine is not None:
            ends = [[0.0, float(max(found.shape))]] * 3  # of a cube that holds the volume, whatever its axes
            apart = max(
                float(np.abs((found.affine - other.affine) @ (*corner, 1.0)).max()) for corner in product(*ends)
            )
            if apart > AFFINE_TOLERANCE:
                raise InputError(f"{label}: lies {apart:.3g} mm from where its image does; expected the same place")
        return found


def _open(path: Path, axis: int) -> Volume:
    """A volume whose head is kept for its next slices, as long as the file is the same."""
    return _opened(path, axis, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=16)
def _opened(path: Path, axis: int, changed: int) -> Volume:
    return open_volume(path, axis)


def volumes_of(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by their names, sorted.

    Raises:
        InputError: when there is none, or two of one name.
    """
    found: dict[str, Path] = {}
    entries: Sequence[Path] = sorted(require_folder(folder).iterdir())
    for path in entries:
        if path.name.startswith(".") or not is_volume(path):
            continue
        if other := found.get(volume_name(path)):
            raise InputError(f"{path}: {other.name} has the same name but for its ending; pairs would be ambiguous")
        found[volume_name(path)] = path
    if not found:
        raise InputError(f"{folder}: no volumes; expected .nii, .nii.gz or .dcm, or folders of .dcm")
    return found
