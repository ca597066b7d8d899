"""KITTI's semantic benchmark: 200 labelled street scenes of Karlsruhe, with the ids of Cityscapes.

Alhaija et al., "Augmented reality meets computer vision" (IJCV 2018), on images of KITTI 2015 (Menze, Geiger, CVPR
2015). From cvlibs.net/datasets/kitti, for non-commercial use under its terms. The layout is that of data_semantics.zip:

    root/training/image_2/000000_10.png     root/training/semantic/000000_10.png

The labels of the test images are not published.
"""

from pathlib import Path

from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.datasets.splits import split_files
from fcnseg.data.files.listing import labels_of, list_images, require_folder
from fcnseg.label_spaces import CITYSCAPES19_IDS


class Kitti(Pairs):
    """KITTI's labelled images, or a part of them, in the 19 classes of Cityscapes.

    There is no official split of the labelled images. Neighbours may come from one drive, so the split is by blocks,
    as `fcnseg.data.datasets.splits` has it.

    Args:
        root: the folder that holds `training`.
        split: "train", "val" or "all".
        val_share: share of the blocks for validation.
        block: consecutive images that stay together.
        seed: of the split.

    Raises:
        InputError: when the folder is not laid out so, an image has no label, or the split is impossible.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, val_share: float = 0.2, block: int = 10, seed: int = 0
    ) -> None:
        folder = require_folder(require_folder(Path(root)) / "training")
        labels = require_folder(folder / "semantic")
        images = split_files(list_images(folder / "image_2"), split, val_share=val_share, block=block, seed=seed)
        super().__init__(images, labels_of(images, lambda _: labels, "{}.png".format), CITYSCAPES19_IDS)
