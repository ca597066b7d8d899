"""From datasets to batches: augmented samples for training, whole ones for validation, and their collation."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from fcnseg.cores import cores_of_each
from fcnseg.data.dataset import SegmentationDataset, drawn
from fcnseg.data.resizing import framed_image, padded_image, padded_mask
from fcnseg.data.streams import SampleRef
from fcnseg.data.transforms import Augment
from fcnseg.geometry import shown_size
from fcnseg.labels import IGNORE_INDEX
from fcnseg.workers import begin_worker


class TrainingSamples(Dataset):
    """Augmented samples of several domains, by the sampler's draws."""

    def __init__(self, domains: Sequence[SegmentationDataset], augment: Augment, seed: int) -> None:
        self.domains, self.augment, self.seed = domains, augment, seed

    def __getitem__(self, ref: SampleRef) -> dict[str, Any]:
        image, mask, name = drawn(self.domains[ref.domain], ref.index, (self.seed, ref.domain, ref.count, 1))
        seed = np.random.SeedSequence([self.seed, ref.domain, ref.count]).generate_state(1)[0]
        image, mask = self.augment(image, mask, int(seed))
        return {"image": _to_tensor(image), "mask": _to_indices(mask), "domain": ref.domain, "name": name}


class ValidationSamples(Dataset):
    """Samples resized for the model, with masks in their own size."""

    def __init__(self, dataset: SegmentationDataset, size: Sequence[int] | None, resize: str) -> None:
        self.dataset, self.size, self.resize = dataset, size, resize

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample; the one of index -1 has no labelled pixel, and counts nowhere."""
        image, mask, name = self.dataset[max(index, 0)]
        if index < 0:
            mask, name = np.full_like(mask, IGNORE_INDEX), ""
        resized = _to_tensor(framed_image(image, self.size, self.resize))
        shown = shown_size((image.shape[0], image.shape[1]), self.size, self.resize)
        return {"image": resized, "mask": _to_indices(mask), "name": name, "index": index, "shown": shown}


class EveryImageOnce(DistributedSampler):
    """Every `num_replicas`-th index in order: no sample twice, so that distributed scores stay exact.

    Where there are fewer samples than processes, those that are left get the index -1: each must take part in the sums
    over all of them. Lightning's own `UnrepeatedDistributedSampler` refuses that. Any sampler that is no
    `DistributedSampler` Lightning would shard a second time.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = range(rank, len(self.dataset), num_replicas) or [-1]  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class TrainingLoader(DataLoader):
    """Begins to read when the first batch is asked for, and not when Lightning makes the iterator.

    Lightning makes it before it restores a checkpoint, to count the batches; worker processes would prepare the
    batches of a run that begins anew.
    """

    def __iter__(self) -> Any:
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Nothing: the place in the data is Lightning's own count of the batches that were trained on.

        That there is such a method tells Lightning that training can go on in the midst of an epoch.
        """
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load, see `state_dict`."""


def default_workers(processes: int = 1) -> int:
    """Processes that prepare samples for each of so many training processes on this machine; none without a GPU."""
    return min(8, cores_of_each(processes)) if torch.cuda.is_available() else 0


def _to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) array to a (C, H, W) tensor of the same values, in memory of its own: a cache is read only."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def _to_indices(mask: np.ndarray) -> Tensor:
    """(H, W) array of class indices to a tensor of uint8, in memory of its own; losses ask for int64, on the device."""
    return torch.from_numpy(np.array(mask, dtype=np.uint8, order="C"))


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the images; masks stay a list, since their sizes may differ."""
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    return batch | {"image": torch.stack(batch["image"])}


def collate_padded(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack images and masks, padded to the largest height and width among them."""
    sizes = [tuple(sample["mask"].shape) for sample in samples]
    if len(set(sizes)) > 1:
        largest = np.max(sizes, axis=0).tolist()
        samples = [sample | _padded(sample["image"], sample["mask"], largest) for sample in samples]
    return default_collate(samples)


def _padded(image: Tensor, mask: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    pixels = padded_image(image.numpy().transpose(1, 2, 0), size)
    return {"image": _to_tensor(pixels), "mask": _to_indices(padded_mask(mask.numpy(), size))}


def begin_loading(worker: int) -> None:
    """What a worker process of a loader does first, whatever its number."""
    begin_worker()
