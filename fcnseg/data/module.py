"""The Lightning data module: one domain or several for training, one for validation."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fcnseg.data.bgc import BalancedBatchSampler, Draw
from fcnseg.data.transforms import Augment, resize_image, resize_pipeline
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace


class Segmented(Protocol):
    """What a dataset is: (image, mask, name) by index, and the label space of its masks."""

    label_space: LabelSpace

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray, str]: ...


class Preloaded:
    """A dataset read once into memory, which worker processes share by forking."""

    def __init__(self, dataset: Segmented, threads: int = 4) -> None:
        self.label_space = dataset.label_space
        with ThreadPoolExecutor(threads) as pool:
            self.samples = list(pool.map(dataset.__getitem__, range(len(dataset))))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return self.samples[index]


class _Training(Dataset):
    """Augmented samples of several domains, by the sampler's draws."""

    def __init__(self, domains: Sequence[Segmented], augment: Augment, seed: int) -> None:
        self.domains, self.augment, self.seed = domains, augment, seed

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        image, mask, _ = self.domains[draw.domain][draw.index]
        seed = np.random.SeedSequence([self.seed, draw.domain, draw.count]).generate_state(1)[0]
        image, mask = self.augment(image, mask, int(seed))
        return {"image": _to_tensor(image), "mask": torch.from_numpy(mask).long(), "domain": draw.domain}


class _Validation(Dataset):
    """Samples resized for the model, with masks in their own size."""

    def __init__(self, dataset: Segmented, size: Sequence[int] | None) -> None:
        self.dataset, self.size = dataset, size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask, name = self.dataset[index]
        resized = _to_tensor(resize_image(image, self.size))
        return {"image": resized, "mask": torch.from_numpy(mask).long(), "name": name, "index": index}


class _Shard:
    """Every `num_replicas`-th index: no sample twice, so that distributed scores stay exact."""

    def __init__(self, length: int, num_replicas: int, rank: int) -> None:
        self.indices = range(rank, length, num_replicas)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class SegmentationData(LightningDataModule):
    """Training batches of one or several domains, and validation on one.

    Args:
        train: datasets by domain name; the first one sets the length of an epoch. Empty: validation only.
        val: the validation dataset.
        size: (height, width) of the model's input; None keeps validation images in their own size.
        ratio: share of each domain in a batch, such as {"real": 6, "synthetic": 4}; equal by default.
        augment: training augmentation; by default only the resize to `size`.
        batch_size: samples of a global batch, over all processes.
        steps_per_epoch: batches per epoch; by default one pass over the first domain.
        num_workers: processes that prepare samples, for each training process. By default none without a
            GPU, where they take the cores from the network, and up to 8 with one.
        cache: "ram" reads every dataset into memory once; "none" reads from disk each time.
        seed: of sampling and augmentation.

    Raises:
        InputError: when label spaces differ, or a value is out of range.
    """

    def __init__(
        self,
        train: Mapping[str, Segmented],
        val: Segmented,
        *,
        size: Sequence[int] | None,
        ratio: Mapping[str, float] | None = None,
        augment: Augment | None = None,
        batch_size: int = 10,
        steps_per_epoch: int | None = None,
        num_workers: int | None = None,
        cache: str = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, count, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers or 0, 0),
            ("seed", seed, 0),
            ("steps_per_epoch", 1 if steps_per_epoch is None else steps_per_epoch, 1),
        ):
            if not isinstance(count, int) or count < least:
                raise InputError(f"{name}={count!r}: expected a whole number from {least} on")
        if cache not in ("none", "ram"):
            raise InputError(f"cache {cache!r}: expected none or ram")
        if size is not None and (len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)):
            raise InputError(f"size {list(size)}: expected [height, width] in pixels")
        if train and size is None and augment is None:
            raise InputError("size: expected [height, width], which training batches need")
        spaces = {name: dataset.label_space for name, dataset in (*train.items(), ("val", val))}
        self.label_space = val.label_space
        for name, space in spaces.items():
            if space.classes != self.label_space.classes:
                raise InputError(
                    f"domain {name!r} has label space {space.name!r}, validation {self.label_space.name!r}"
                )
        self.train, self.val = dict(train), val
        self.size = tuple(size) if size else None
        self.ratio = dict(ratio) if ratio else dict.fromkeys(train, 1.0)
        self.augment: Augment = augment or resize_pipeline(size or ())
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.num_workers, self.cache, self.seed = num_workers, cache, seed
        if train:
            self.batches()  # raises at once when ratio and batch size do not fit

    def setup(self, stage: str | None = None) -> None:
        if self.cache == "ram":
            self.val = _preload(self.val)
            if stage == "fit":
                self.train = {name: _preload(dataset) for name, dataset in self.train.items()}

    def batches(self, num_replicas: int = 1, rank: int = 0) -> BalancedBatchSampler:
        """The training sampler of one of `num_replicas` processes.

        Raises:
            InputError: when there is no training domain, or ratio and batch size do not fit.
        """
        if not self.train:
            raise InputError("train: expected at least one domain; this data is for validation only")
        return BalancedBatchSampler(
            {name: len(dataset) for name, dataset in self.train.items()},
            self.ratio,
            self.batch_size,
            steps=self.steps_per_epoch,
            seed=self.seed,
            num_replicas=num_replicas,
            rank=rank,
        )

    def train_dataloader(self) -> DataLoader:
        dataset = _Training(list(self.train.values()), self.augment, self.seed)
        return self._loader(dataset, batch_sampler=self.batches(*self._processes()))

    def val_dataloader(self) -> DataLoader:
        return self.validation_loader(*self._processes())

    def validation_loader(self, num_replicas: int = 1, rank: int = 0) -> DataLoader:
        """The whole validation set, or the part of it that one of several processes scores."""
        dataset = _Validation(self.val, self.size)
        sampler = _Shard(len(self.val), num_replicas, rank)
        return self._loader(dataset, sampler=sampler, batch_size=8 if self.size else 1, collate_fn=_collate)

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: Dataset, **options: Any) -> DataLoader:
        workers = self.num_workers if self.num_workers is not None else default_workers()
        return DataLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_single_threaded if workers else None,
            **options,
        )

    def class_pixels(self, limit: int = 500) -> np.ndarray:
        """(num_classes, 2) float: per class, its pixels and the pixels of the images that show it.

        Domains weigh as in a batch; of each, up to `limit` masks spread evenly over it are counted.
        """
        total = np.zeros((self.label_space.num_classes, 2))
        for name, dataset in self.train.items():
            step = max(1, -(-len(dataset) // limit))
            counted = np.zeros_like(total)
            indices = range(0, len(dataset), step)
            for index in indices:
                counted += _count(_mask(dataset, index), self.label_space.num_classes)
            total += counted / len(indices) * self.ratio[name]
        return total


def default_workers() -> int:
    """Processes that prepare samples for one training process."""
    gpus = torch.cuda.device_count()
    return min(8, (os.cpu_count() or 1) // gpus) if gpus else 0


def _count(mask: np.ndarray, classes: int) -> np.ndarray:
    pixels = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:classes]
    return np.stack([pixels, (pixels > 0) * pixels.sum()], axis=1)


def _mask(dataset: Segmented, index: int) -> np.ndarray:
    """The mask of a sample, without its image where the dataset can do that."""
    return dataset.mask(index) if hasattr(dataset, "mask") else dataset[index][1]


def _preload(dataset: Segmented) -> Segmented:
    return dataset if isinstance(dataset, Preloaded) else Preloaded(dataset)


def _to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) array to a (C, H, W) tensor of the same values."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the images; masks stay a list, since their sizes may differ."""
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    return batch | {"image": torch.stack(batch["image"])}


def _single_threaded(worker: int) -> None:
    """Worker processes are the parallelism; OpenCV's own threads would fight over the cores."""
    import cv2

    cv2.setNumThreads(0)
