"""Cityscapes: street scenes of 50 German, Swiss and French cities, finely labelled, and more of them coarsely.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016). After registration at
cityscapes-dataset.com, for non-commercial use under its terms. The layout is that of leftImg8bit_trainvaltest.zip and
gtFine_trainvaltest.zip, and for coarse labels of leftImg8bit_trainextra.zip and gtCoarse.zip:

    root/leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    root/gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png
    root/gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelTrainIds.png (written by the dataset's scripts)
    root/gtCoarse/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtCoarse_labelIds.png

The labels of the test split are not published.
"""

from pathlib import Path
from typing import Any

from fcnseg.data.datasets.laid_out import LaidOut


class Cityscapes(LaidOut):
    """One split of Cityscapes, in the 19 classes that the benchmark scores.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine` or `gtCoarse`.
        split: "train", "val", "train_extra", which has coarse labels, or "test", which has none.
        labels: which label files to read, "ids" or "trainIds", whose masks are the same, "coarse", or "none"; by
            default "ids", or what the split has.
        options: `only` and `exclude` of `LaidOut`.

    Raises:
        InputError: when the folder is not laid out so, or an image has no label.
    """

    def __init__(self, root: str | Path, split: str = "train", labels: str | None = None, **options: Any) -> None:
        super().__init__("cityscapes", root, split, labels, **options)
