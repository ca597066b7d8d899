"""CamVid: street videos of Cambridge, labelled by hand, in the 11-class release and in the original one.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video" (2009). Free for academic use.

`CamVid` reads the 480x360 form with 11 classes that SegNet introduced:

    root/train/*.png  root/trainannot/*.png  root/val/*.png  root/valannot/*.png  [root/test ...]

with labels as 8-bit index PNGs, 0 to 10 in the order of `STREET11`, 11 unlabelled.

`CamVid32` reads the original 701 images at 960x720, with labels in the colours of 32 classes:

    root/701_StillsRaw_full/NAME.png  root/LabeledApproved_full/NAME_L.png  [root/train.txt ...]

or the same files sorted into folders, as they are also passed on:

    root/train/NAME.png  root/train_labels/NAME_L.png  root/val/NAME.png  root/val_labels/NAME_L.png
"""

from pathlib import Path

from fcnseg.data.dataset import Remapped
from fcnseg.data.datasets.pairs import PairedFolder, Pairs
from fcnseg.data.files.listing import labels_of, list_images, read_names, require_folder
from fcnseg.data.files.path_list import PathList
from fcnseg.errors import InputError
from fcnseg.label_spaces import CAMVID32, CAMVID32_TO_STREET11
from fcnseg.labels import STREET11

VOID = (0, 0, 0)
"""The colour of what has no class in the original label files."""


class CamVid(PairedFolder):
    """One split of CamVid.

    Args:
        root: the folder that holds `train`, `trainannot` and so on.
        split: "train", "val" or "test".

    Raises:
        InputError: when the folder is not laid out so, or an image has no label.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        folder = require_folder(Path(root))
        super().__init__(require_folder(folder / split), require_folder(folder / f"{split}annot"), STREET11)


class CamVid32(Pairs):
    """A part of the original CamVid, in its 32 classes; void is ignored.

    The release has no split of its own. SegNet's lists train.txt, val.txt and test.txt, laid beside the folders,
    give the split of the 11-class release.

    Args:
        root: the folder that holds `701_StillsRaw_full` and `LabeledApproved_full`, or folders by split.
        split: "all", or a list `SPLIT.txt` in the root, or folders `SPLIT` and `SPLIT_labels` there.

    Raises:
        InputError: when there is no such list or folder, or an image has no label.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        folder = require_folder(Path(root))
        images, labels = folder / "701_StillsRaw_full", folder / "LabeledApproved_full"
        if split == "all":
            found = list_images(images)
        elif (names := folder / f"{split}.txt").is_file():
            found = _by_names(read_names(names), images, names)
        elif (folder / split).is_dir():
            found, labels = list_images(folder / split), folder / f"{split}_labels"
        else:
            raise InputError(f"{folder}: neither a list {split}.txt nor a folder {split}; all images are split=all")
        files = labels_of(found, lambda _: labels, "{}_L.png".format)
        super().__init__(found, files, CAMVID32, labels_as="colour", ignored_colours=[VOID])


def camvid32_as_street11(root: str | Path, split: str = "train") -> Remapped:
    """The original CamVid in the 11 classes that SegNet made of its 32; arguments and errors as for `CamVid32`."""
    return Remapped(CamVid32(root, split), STREET11, extra=CAMVID32_TO_STREET11)


def _by_names(names: list[str], images: Path, source: Path) -> PathList:
    present = {path.name for path in require_folder(images).iterdir()}
    if missing := [name for name in names if f"{name}.png" not in present]:
        raise InputError(f"{images / missing[0]}.png: no such image, but {source} names it")
    return PathList(images / f"{name}.png" for name in names)
