"""From datasets to batches: augmented samples for training, whole ones for validation, and their collation."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from fcnseg.cores import cores_of_each
from fcnseg.data.bgc import count_micro_batches
from fcnseg.data.dataset import SegmentationDataset, drawn
from fcnseg.data.pasting import Paste
from fcnseg.data.resizing import framed_image, padded_image, padded_mask
from fcnseg.data.streams import SampleRef
from fcnseg.data.targets import Targets
from fcnseg.data.transforms import Augment
from fcnseg.errors import InputError
from fcnseg.geometry import shown_size
from fcnseg.labels import IGNORE_INDEX
from fcnseg.workers import begin_worker


class TrainingSamples(Dataset):
    """Augmented samples of several domains, by the sampler's draws, perhaps with objects pasted into them.

    Args:
        domains, augment, seed, paste: as the data module's.
        targets: by the positions of the domains whose samples get one.
    """

    def __init__(
        self,
        domains: Sequence[SegmentationDataset],
        augment: Augment,
        seed: int,
        paste: Paste | None = None,
        targets: Mapping[int, Targets] | None = None,
    ) -> None:
        self.domains, self.augment, self.seed, self.paste = domains, augment, seed, paste
        self.targets = targets or {}

    def __getitem__(self, ref: SampleRef) -> dict[str, Any]:
        dataset = self.domains[ref.domain]
        image, mask, name = drawn(dataset, ref.index, (self.seed, ref.domain, ref.count, 1))
        if self.paste is not None:
            image, mask = self.paste(image, mask, dataset, ref.index, (self.seed, ref.domain, ref.count, 2))
        seed = np.random.SeedSequence([self.seed, ref.domain, ref.count]).generate_state(1)[0]
        image, mask = self.augment(image, mask, int(seed))
        beside: dict[str, Tensor] = {}
        if ref.domain in self.targets:
            image, target = self.targets[ref.domain].beside(image, ref, self.augment, self.seed)
            if target is not None:
                beside = {"target": _to_tensor(target[0]), "target_mask": _to_indices(target[1])}
        return {"image": _to_tensor(image), "mask": _to_indices(mask), "domain": ref.domain, "name": name} | beside


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

    Of a batch in micro-batches the first one has "whole" too: the masks and domains of all of them, by which a loss
    knows what it is a mean over before the first backward pass. All of them are in memory by then.
    """

    def __iter__(self) -> Any:
        count = getattr(self.batch_sampler, "micro_batches", 1)
        batches = super().__iter__()
        if count == 1:
            yield from batches
        while parts := list(islice(batches, count)):
            parts[0]["whole"] = {key: [part[key] for part in parts] for key in ("mask", "domain")}
            yield from parts

    def state_dict(self) -> dict[str, int]:
        """Nothing: the place in the data is Lightning's own count of the batches that were trained on.

        That there is such a method tells Lightning that training can go on in the midst of an epoch.
        """
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load, see `state_dict`."""


def follow_limit(trainer: Trainer, batch_size: int, device_batch_size: int | None) -> int:
    """Let a trainer accumulate gradients over the micro-batches of a batch; returns how many each process has.

    Args:
        trainer: with its number of processes.
        batch_size: samples of a batch, over all processes.
        device_batch_size: the most samples that one of them takes at once; None: leave the trainer as it is.

    Raises:
        InputError: when the trainer's own settings say otherwise, or a process would be without a sample.
    """
    if device_batch_size is None:
        return 1
    count = count_micro_batches(batch_size, trainer.world_size, device_batch_size)
    if trainer.accumulate_grad_batches not in (1, count):
        raise InputError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: follows from "
            f"data.device_batch_size={device_batch_size}, and is {count}; give one or the other"
        )
    if count > 1 and isinstance(share := trainer.limit_train_batches, float) and share != 1.0:
        raise InputError(
            f"trainer.limit_train_batches={share}: may divide a batch that data.device_batch_size gives in "
            "micro-batches; expected a whole number of batches, or data.steps_per_epoch"
        )
    if trainer.accumulate_grad_batches == 1 and not getattr(trainer, "fast_dev_run", False):
        for name in ("limit_train_batches", "val_check_interval"):
            if isinstance(whole := getattr(trainer, name), int):  # of batches, which Lightning counts in their parts
                setattr(trainer, name, whole * count)
    trainer.accumulate_grad_batches = count
    return count


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
    """Stack images and masks, padded to the largest height and width among them.

    Targets of some of the samples are stacked apart, with "target_of" (M,), whose they are.
    """
    keys = ("target", "target_mask")
    beside = [(place, [sample.pop(key) for key in keys]) for place, sample in enumerate(samples) if "target" in sample]
    sizes = [tuple(sample["mask"].shape) for sample in samples]
    if len(set(sizes)) > 1:
        largest = np.max(sizes, axis=0).tolist()
        samples = [sample | _padded(sample["image"], sample["mask"], largest) for sample in samples]
    batch = default_collate(samples)
    if beside:
        places, targets = zip(*beside, strict=True)
        batch |= dict(zip(keys, map(torch.stack, zip(*targets, strict=True)), strict=True))
        batch["target_of"] = torch.tensor(places)
    return batch


def _padded(image: Tensor, mask: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    pixels = padded_image(image.numpy().transpose(1, 2, 0), size)
    return {"image": _to_tensor(pixels), "mask": _to_indices(padded_mask(mask.numpy(), size))}


def begin_loading(worker: int) -> None:
    """What a worker process of a loader does first, whatever its number."""
    begin_worker()
