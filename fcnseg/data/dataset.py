"""What a dataset is, and datasets made of others: in another label space, a part of one, several in a row."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, compress, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fcnseg.data.files.path_list import PathList
from fcnseg.data.showing import Shown
from fcnseg.data.streams import Parts
from fcnseg.errors import InputError
from fcnseg.label_spaces import get_label_space
from fcnseg.labels import IGNORE_INDEX, LabelSpace

Sample = tuple[np.ndarray, np.ndarray, str]
"""(H, W, C) image, (H, W) uint8 mask, name."""

TOLD = ("scaling", "mean", "std", "clip", "mapping", "labelled", "parts")
"""What a dataset may tell of itself: a scale that its images are brought to; mean and standard deviation of each
channel, in image values, and where normalised values are cut off; which class of its files became which of its own;
whether its images have labels, without which every pixel of its masks is ignored; and, of several sets in a row that
are drawn by weight, the number of samples and the weight of each."""


class SegmentationDataset(Protocol):
    """What a dataset is: (image, mask, name) by index, and the label space of its masks.

    It may have more: `mask(index)` gives a mask without reading its image; `sample_files(index)` tells the files that a
    sample is read from; `draw(index, seed)` gives another sample each time, if `drawn` is true; and attributes named in
    `TOLD` tell of its images.
    """

    label_space: LabelSpace

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def read_all(dataset: SegmentationDataset, threads: int = 4) -> Iterator[Sample]:
    """Every sample in order, decoded by several threads that stay a few samples ahead of the reader."""
    ahead = 4 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(dataset), ahead):
            yield from pool.map(dataset.__getitem__, range(start, min(start + ahead, len(dataset))))


def read_mask(dataset: SegmentationDataset, index: int) -> np.ndarray:
    """The mask of a sample, without its image where the dataset can do that."""
    return dataset.mask(index) if hasattr(dataset, "mask") else dataset[index][1]


def drawn(dataset: SegmentationDataset, index: int, seed: Sequence[int]) -> Sample:
    """A sample to train on: what the dataset draws at an index, where it draws, which depends on the seed alone."""
    return dataset.draw(index, seed) if hasattr(dataset, "draw") else dataset[index]


def is_labelled(dataset: SegmentationDataset) -> bool:
    """Whether any of a dataset's images has a label; masks of the others are ignored everywhere."""
    return bool(getattr(dataset, "labelled", True))


def parts_of(dataset: SegmentationDataset) -> Parts:
    """The number of samples and the weight of each set that a dataset draws from; one where it has no such parts."""
    return getattr(dataset, "parts", ((len(dataset), 1.0),))


def pass_on(dataset: SegmentationDataset, to: Any) -> None:
    """Let another dataset tell of itself what this one does."""
    for name in TOLD:
        if hasattr(dataset, name):
            setattr(to, name, getattr(dataset, name))


def files_of(dataset: Any, index: int) -> tuple[Path, ...]:
    """The files that a sample is read from, through all wrappers; none where nothing tells them."""
    return dataset.sample_files(index) if hasattr(dataset, "sample_files") else ()


def image_files(dataset: Any) -> Iterator[str]:
    """The image file of every sample, as absolute paths, through all wrappers; none where samples have no files."""
    if isinstance(dataset, Concat):
        for part in dataset.datasets:
            yield from image_files(part)
    elif isinstance(dataset, Subset):
        for run in dataset.runs:
            end = run.first + run.count
            for first, last in ((run.first, min(end, run.length)), (0, end - run.length)):
                yield from islice(image_files(dataset.dataset), run.begin + first, run.begin + max(0, last))
    elif isinstance(dataset, Wrapper):
        yield from image_files(dataset.dataset)
    elif hasattr(dataset, "images"):
        yield from PathList.of(dataset.images).absolute().texts()


def require_apart(train: Mapping[str, SegmentationDataset], val: SegmentationDataset) -> None:
    """Refuse image files that are both trained and validated on.

    Names are compared by their hashes, 8 bytes each, and then those whose hashes are equal.

    Raises:
        InputError: naming the first one, and how many there are.
    """
    validated = np.unique(_hashes(val))
    for name, dataset in train.items():
        known = np.isin(_hashes(dataset), validated)
        if known.any() and (shared := set(compress(image_files(dataset), known)).intersection(image_files(val))):
            more = f" ({len(shared)} of {len(validated)} validation images are)" if len(shared) > 1 else ""
            raise InputError(
                f"{min(shared)}: both in training domain {name!r} and in validation{more}; expected splits that share "
                "no file, of equal settings; allow_overlap=true takes them"
            )


def _hashes(dataset: SegmentationDataset) -> np.ndarray:
    """A hash of every image file's name."""
    return np.fromiter(map(hash, image_files(dataset)), np.int64)


class Wrapper(Shown):
    """A dataset over another one: what that tells of itself beside its samples, this one tells as well.

    Args:
        dataset: any dataset.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset, self.label_space = dataset, dataset.label_space
        self.drawn = bool(getattr(dataset, "drawn", False))
        pass_on(dataset, self)

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The files that a sample is read from."""
        return files_of(self.dataset, index)


class Remapped(Wrapper):
    """A dataset whose masks are turned into another label space; classes without a place there are ignored.

    Args:
        dataset: any dataset; its own label space is where the mapping starts.
        target: the label space to go to, or the name of one, such as "street11".
        aliases: other names to look for a class under, best first; by default `fcnseg.labels.ALIASES`.
        extra: classes that go together beyond their names, such as {"lane marking": "road"}; None ignores one. By
            default those that the dataset tells of this target in `becomes`, as those of a layout do.

    Attributes:
        mapping: which class becomes which; `str(mapping)` is a table.

    Raises:
        InputError: for an unknown label space or class, or when the label spaces share no class.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        target: LabelSpace | str,
        aliases: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(dataset)
        self.label_space = get_label_space(target)
        extra = getattr(dataset, "becomes", {}).get(self.label_space.name) if extra is None else extra
        self.mapping = dataset.label_space.mapping_to(self.label_space, aliases, extra)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The image as it is, the (H, W) uint8 mask of `label_space`, and the name."""
        image, mask, name = self.dataset[index]
        return image, self.mapping(mask), name

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return self.mapping(read_mask(self.dataset, index))

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """What the dataset draws, in the other label space."""
        image, mask, name = drawn(self.dataset, index, seed)
        return image, self.mapping(mask), name


class WithoutLabels(Wrapper):
    """A dataset's images, with every pixel of their masks ignored.

    Args:
        dataset: any dataset.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        super().__init__(dataset)
        self.labelled = False

    def __getitem__(self, index: int) -> Sample:
        """The image as it is, an (H, W) uint8 mask of the ignore index, and the name."""
        return _ignored(self.dataset[index])

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """What the dataset draws, without its labels."""
        return _ignored(drawn(self.dataset, index, seed))


def _ignored(sample: Sample) -> Sample:
    image, mask, name = sample
    return image, np.full_like(mask, IGNORE_INDEX), name


@dataclass(frozen=True)
class Run:
    """A run of neighbours in one set of a dataset, that goes on at the set's first sample after its last one.

    Attributes:
        begin, length: where the set begins in the dataset, and its samples.
        first, count: where the run begins in the set, and its samples.
    """

    begin: int
    length: int
    first: int
    count: int


class Subset(Wrapper):
    """A share of a dataset's samples, one run of neighbours in their order, going on at the first after the last.

    The frames of a video hardly differ from their neighbours: every fourth frame holds nearly the variety of all,
    a run of a quarter of them a quarter of it. Of several sets that are drawn by weight it is a run of each.

    Args:
        dataset: any dataset.
        share: how much of it, above 0 and at most 1; at least one sample.
        start: where the run begins, as a share of all samples from 0 to below 1.

    Raises:
        InputError: when a value is out of range.
    """

    def __init__(self, dataset: SegmentationDataset, share: float, start: float = 0.0) -> None:
        if not _is_number(share) or not 0 < share <= 1:
            raise InputError(f"share={share}: expected a part of a dataset, above 0 and at most 1")
        if not _is_number(start) or not 0 <= start < 1:
            raise InputError(f"start={start}: expected where the part begins, from 0 to below 1")
        super().__init__(dataset)
        parts = parts_of(dataset)
        self.runs = []
        begin = 0
        for length, _ in parts:
            count = min(length, max(1, round(share * length)))
            self.runs.append(Run(begin, length, round(start * length) % length, count))
            begin += length
        self._ends = list(accumulate(run.count for run in self.runs))
        if hasattr(dataset, "parts"):
            self.parts = tuple((run.count, weight) for run, (_, weight) in zip(self.runs, parts, strict=True))

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, index: int) -> int:
        """Where a sample stands in the dataset."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        run = self.runs[number]
        return run.begin + (run.first + index - self._ends[number] + run.count) % run.length

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The files that a sample is read from."""
        return files_of(self.dataset, self.place(index))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return self.dataset[self.place(index)]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return read_mask(self.dataset, self.place(index))

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """What the dataset draws."""
        return drawn(self.dataset, self.place(index), seed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Concat(Shown):
    """Several datasets in a row, as one domain.

    Args:
        datasets: at least one, all in one label space and of images of one kind; in order, or by name.
        weights: how often each is drawn, in the same order or by the same names, such as {"camvid": 1, "kitti": 1}:
            over any number of batches each gives its share of the domain's samples, as evenly as whole numbers allow,
            in turns through its own samples. By default all samples are drawn alike, so that a set counts by its size.

    Attributes:
        labelled: whether one of them has labels.
        parts: number of samples and weight of each, where there are weights; `fcnseg.data.streams` draws by them.

    Raises:
        InputError: when there is none, they differ, or weights are not positive numbers, one for each.
    """

    def __init__(
        self,
        datasets: Sequence[SegmentationDataset] | Mapping[str, SegmentationDataset],
        weights: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        if not datasets:
            raise InputError("datasets: expected at least one")
        self.datasets = list(datasets.values() if isinstance(datasets, Mapping) else datasets)
        self.label_space = self.datasets[0].label_space
        for dataset in self.datasets:
            if dataset.label_space.classes != self.label_space.classes:
                expected, found = self.label_space.name, dataset.label_space.name
                raise InputError(f"datasets in a row: label spaces {expected!r} and {found!r} differ")
        scalings = {getattr(dataset, "scaling", None) for dataset in self.datasets}
        if len(scalings) > 1:
            raise InputError(f"datasets in a row: scalings {', '.join(sorted(map(str, scalings)))} differ")
        self.scaling = scalings.pop()
        self.drawn = any(getattr(dataset, "drawn", False) for dataset in self.datasets)
        self.labelled = any(map(is_labelled, self.datasets))
        if weights is not None or any(hasattr(dataset, "parts") for dataset in self.datasets):
            self.parts = _parts(self.datasets, _weights(datasets, weights))
        self._ends = list(accumulate(map(len, self.datasets)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        dataset, place = self._place(index)
        return dataset[place]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask, without the image where the dataset can do that."""
        return read_mask(*self._place(index))

    def draw(self, index: int, seed: Sequence[int]) -> Sample:
        """What a dataset draws."""
        return drawn(*self._place(index), seed)

    def sample_files(self, index: int) -> tuple[Path, ...]:
        """The files that a sample is read from."""
        return files_of(*self._place(index))

    def _place(self, index: int) -> tuple[SegmentationDataset, int]:
        """The dataset that a sample belongs to, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return self.datasets[number], index - (self._ends[number - 1] if number else 0)


def _weights(datasets: Any, weights: Any) -> list[float]:
    """The weight of each dataset, which is its size by default.

    Raises:
        InputError: when they are not positive numbers, one for each dataset.
    """
    named = isinstance(datasets, Mapping)
    if weights is None:
        return [len(dataset) for dataset in (datasets.values() if named else datasets)]
    if isinstance(weights, Mapping) != named or (
        set(weights) != set(datasets) if named else len(weights) != len(datasets)
    ):
        names = f"the datasets {', '.join(datasets)}, by name" if named else f"the {len(datasets)} datasets"
        raise InputError(f"weights {weights}: expected one for each of {names}")
    found = [weights[name] for name in datasets] if named else list(weights)
    if any(not _is_number(weight) or not 0 < weight < math.inf for weight in found):
        raise InputError(f"weights {weights}: expected numbers above 0")
    return found


def _parts(datasets: Sequence[SegmentationDataset], weights: Sequence[float]) -> Parts:
    """The parts of datasets in a row: those of each, with its weight divided between them."""
    found: list[tuple[int, float]] = []
    for dataset, weight in zip(datasets, weights, strict=True):
        inner = parts_of(dataset)
        total = sum(share for _, share in inner)
        found += [(length, weight * share / total if len(inner) > 1 else weight) for length, share in inner]
    return tuple(found)
