"""Cityscapes: street scenes of 50 German, Swiss and French cities, finely labelled.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016). After registration at
cityscapes-dataset.com, for non-commercial use under its terms. The layout is that of leftImg8bit_trainvaltest.zip and
gtFine_trainvaltest.zip:

    root/leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    root/gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png
    root/gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelTrainIds.png (written by the dataset's scripts)

The labels of the test split are not published.
"""

from pathlib import Path

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.files.listing import find_files, labels_of, require_folder
from fcnseg.errors import InputError
from fcnseg.label_spaces import CITYSCAPES19, CITYSCAPES19_IDS

LABELS = {"ids": ("labelIds", CITYSCAPES19_IDS), "trainIds": ("labelTrainIds", CITYSCAPES19)}


class Cityscapes(Pairs):
    """One split of Cityscapes, in the 19 classes that the benchmark scores.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`.
        split: "train" or "val".
        labels: which label files to read, "ids" or "trainIds"; the masks are the same.

    Raises:
        InputError: when the folder is not laid out so, or an image has no label.
    """

    def __init__(self, root: str | Path, split: str = "train", labels: str = "ids") -> None:
        if labels not in LABELS:
            raise InputError(f"labels {labels!r} of Cityscapes: expected {' or '.join(LABELS)}")
        ending, space = LABELS[labels]
        folder = require_folder(Path(root))
        pictures = require_folder(require_folder(folder / "leftImg8bit") / split)
        annotations = require_folder(require_folder(folder / "gtFine") / split)
        images = find_files(pictures, "*_leftImg8bit.png")
        names = [path.name.removesuffix("_leftImg8bit.png") for path in images]
        found = labels_of(
            images,
            lambda city: annotations / city.name,
            lambda name: f"{name.removesuffix('_leftImg8bit')}_gtFine_{ending}.png",
        )
        super().__init__(images, found, space, names)
