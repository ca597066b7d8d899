"""A dataset in another label space."""

from collections.abc import Mapping, Sequence

import numpy as np

from fcnseg.data.caching import Segmented, read_mask
from fcnseg.label_spaces import get_label_space
from fcnseg.labels import LabelSpace


class Remapped:
    """A dataset whose masks are turned into another label space; classes without a place there are ignored.

    Args:
        dataset: any dataset; its own label space is where the mapping starts.
        target: the label space to go to, or the name of one, such as "street11".
        aliases: other names to look for a class under, best first; by default `fcnseg.labels.ALIASES`.
        extra: classes that go together beyond their names, such as {"lane marking": "road"}; None ignores one.

    Attributes:
        mapping: which class becomes which; `str(mapping)` is a table.

    Raises:
        InputError: for an unknown label space or class, or when the label spaces share no class.
    """

    def __init__(
        self,
        dataset: Segmented,
        target: LabelSpace | str,
        aliases: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, str | None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.label_space = get_label_space(target)
        self.scaling = getattr(dataset, "scaling", None)
        self.mapping = dataset.label_space.mapping_to(self.label_space, aliases, extra)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The image as it is, the (H, W) uint8 mask of `label_space`, and the name."""
        image, mask, name = self.dataset[index]
        return image, self.mapping(mask), name

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return self.mapping(read_mask(self.dataset, index))
