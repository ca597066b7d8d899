"""CamVid in its 11-class release: street videos of Cambridge, labelled by hand.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video" (2009), in the 480x360 form with 11
classes that SegNet introduced. Free for academic use. The layout is

    root/train/*.png  root/trainannot/*.png  root/val/*.png  root/valannot/*.png  [root/test ...]

with labels as 8-bit index PNGs, 0 to 10 in the order of `STREET11`, 11 unlabelled.
"""

from pathlib import Path

from fcnseg.data.folder import PairedFolder, require_folder
from fcnseg.labels import STREET11


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
