"""PASCAL VOC segmentation, and SBD, the Semantic Boundaries Dataset, which labels more of its images.

Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (IJCV 2015); images from Flickr, under
its terms of use. Hariharan et al., "Semantic contours from inverse detectors" (ICCV 2011). The layouts are those of the
downloads:

    VOC2012/JPEGImages/NAME.jpg  VOC2012/SegmentationClass/NAME.png  VOC2012/ImageSets/Segmentation/{train,val}.txt
    dataset/img/NAME.jpg         dataset/cls/NAME.mat                dataset/{train,val}.txt

VOC's labels are palette PNGs with 255 for boundaries; SBD's are MATLAB files that hold `GTcls.Segmentation`.

The reference FCNs train on SBD's train list and validate on `seg11valid`: the images of VOC 2011's val list that are
not among those, 736 of them (Long, Shelhamer, Darrell, CVPR 2015, section 5). It is a difference of two lists:

    Sbd(sbd, "train")
    Voc(voc2011, "val", exclude=sbd / "train.txt")
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.listing import labels_of, read_names, require_folder
from fcnseg.data.files.matlab import read_matlab
from fcnseg.errors import InputError
from fcnseg.labels import VOC21


class Voc(Pairs):
    """The images of a VOC list, in 21 classes.

    Args:
        root: `VOC2012`, or a folder above it as the download unpacks; for another year, that year's folder.
        split: a list in `ImageSets/Segmentation`, such as "train", "val" or "trainval", or a path ending in .txt.
        exclude: a list of names to leave out, or several; the lists of SBD serve.

    Raises:
        InputError: when the folder is not laid out so, a list is missing or leaves nothing, or an image or label is.
    """

    def __init__(self, root: str | Path, split: str | Path = "train", exclude: str | Path | Sequence[str] = ()) -> None:
        folder = _first_with("JPEGImages", Path(root), "VOC2012", "VOCdevkit/VOC2012")
        labels = require_folder(folder / "SegmentationClass")
        images = _listed(folder / "JPEGImages", folder / "ImageSets" / "Segmentation", split, exclude)
        super().__init__(images, labels_of(images, lambda _: labels, "{}.png".format), VOC21)


class Sbd(Pairs):
    """The images of an SBD list, in the classes of VOC.

    Args:
        root: SBD's `dataset` folder, or `benchmark_RELEASE` or a folder above it.
        split: "train" or "val", or a path ending in .txt.
        exclude: a list of names to leave out, or several; VOC's val list keeps its images for validation.

    Raises:
        InputError: as for `Voc`.
    """

    def __init__(self, root: str | Path, split: str | Path = "train", exclude: str | Path | Sequence[str] = ()) -> None:
        folder = _first_with("cls", Path(root), "dataset", "benchmark_RELEASE/dataset")
        images = _listed(folder / "img", folder, split, exclude)
        super().__init__(images, labels_of(images, lambda _: folder / "cls", "{}.mat".format), VOC21)

    def read_values(self, path: Path) -> np.ndarray:
        values = read_matlab(path, lambda content: content["GTcls"][0]["Segmentation"][0], "a label of SBD")
        if values.ndim != 2 or values.dtype.kind not in "ui":
            raise InputError(f"{path}: GTcls.Segmentation is {values.dtype} {values.shape}; expected (H, W) integers")
        return values


def difference(names: Iterable[str], excluded: Iterable[str]) -> list[str]:
    """The names, in their order, that are not excluded; `seg11valid` is VOC 2011's val without SBD's train."""
    left_out = set(excluded)
    return [name for name in names if name not in left_out]


def _listed(images: Path, lists: Path, split: str | Path, exclude: str | Path | Sequence[str]) -> list[Path]:
    """The image files of a list less the excluded ones."""
    chosen = Path(split) if str(split).endswith(".txt") else lists / f"{split}.txt"
    excluded = [exclude] if isinstance(exclude, str | Path) else list(exclude)
    names = difference(read_names(chosen), [name for path in excluded for name in read_names(Path(path))])
    if not names:
        raise InputError(f"{chosen}: no name is left without those of {', '.join(map(str, excluded))}")
    present = {path.name for path in require_folder(images).iterdir()}
    if missing := [name for name in names if f"{name}.jpg" not in present]:
        more = f" ({len(missing)} of {len(names)} images are missing)" if len(missing) > 1 else ""
        raise InputError(f"{images / missing[0]}.jpg: no such image, but {chosen} names it{more}")
    return [images / f"{name}.jpg" for name in names]


def _first_with(inside: str, root: Path, *below: str) -> Path:
    """The root or a folder below it that has a folder of a given name."""
    require_folder(root)
    for folder in (root, *(root / name for name in below)):
        if (folder / inside).is_dir():
            return folder
    raise InputError(f"{root}: no folder {inside} in it, nor in {' or '.join(below)} below it")
