"""The Lightning data module: one domain or several for training, one for validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.multiprocessing import get_all_start_methods
from torch.utils.data import DataLoader, Dataset

from fcnseg.data.batches import (
    EveryImageOnce,
    TrainingLoader,
    TrainingSamples,
    ValidationSamples,
    begin_loading,
    collate,
    collate_padded,
    default_workers,
    follow_limit,
)
from fcnseg.data.bgc import BalancedBatchSampler, PooledBatchSampler
from fcnseg.data.counting import mean_pixels
from fcnseg.data.dataset import SegmentationDataset, is_labelled, parts_of, require_apart
from fcnseg.data.pasting import prepare_rare, require_rare
from fcnseg.data.showing import data_view
from fcnseg.data.skipping import Skipping
from fcnseg.data.statistics import Normalisation, normalisation, spread
from fcnseg.data.storage.cache import LIMIT, DiskCached, Preloaded
from fcnseg.data.storage.host import once
from fcnseg.data.targets import Targets
from fcnseg.data.transforms import Augment, resize_pipeline
from fcnseg.errors import InputError
from fcnseg.geometry import require_resize, require_size
from fcnseg.labels import LabelSpace

CACHES = ("none", "ram", "disk")
MIXINGS = ("balanced", "pooled")
ON_ERROR = ("raise", "skip")


class SegmentationData(LightningDataModule):
    """Training batches of one or several domains, and validation on one.

    A run that goes on from a checkpoint, also one from the midst of an epoch, trains on the batches that it would
    have seen without the interruption, in their order: the sampler begins after the batches that are done.

    A domain may be several sets with weights (`fcnseg.data.Concat`), or images without labels, whose masks are ignored
    everywhere: what is learnt from labels passes them over, and a batch's "domain" tells which samples they are.

    Args:
        train: datasets by domain name, one at least with labels; the first one sets the length of an epoch. Empty:
            validation only.
        val: the validation dataset, with labels.
        size: (height, width) of the model's input; None: images keep their own size. Training images of several
            sizes are padded to the batch's largest, at their end, by their last pixels and the ignore index. Each
            process does so with its own part of a batch.
        resize: how images come to the size, in training, unless `augment` does otherwise, and validation. "keep":
            scaled to fit into it with their aspect ratio kept, the rest padded; "stretch": scaled to it along either
            axis; "native": not at all, the size being that of an augmentation's crops alone.
        ratio: share of each domain in a batch, such as {"real": 6, "synthetic": 4}; equal by default.
        mixing: "balanced" batches hold each domain's share; "pooled" ones are drawn from the images of all domains
            shuffled together, whatever the ratio and the weights of sets within a domain.
        augment: training augmentation; by default only the resize to `size`. Masks' padding is the ignore index.
        paste: probability that objects of rare classes are pasted into a training image from another of its domain.
        targets: images without labels that samples of some domains are shown beside; they are augmented alike.
        rare_classes: names, for `paste` and for an augmentation's `rare_crops`; by default the classes with fewer
            pixels than the median one, by `class_pixels`.
        batch_size: samples of a global batch, over all processes.
        device_batch_size: the most samples that a process takes at once. Its part of a batch that is larger comes in
            micro-batches of nearly equal size, and the trainer's `accumulate_grad_batches` follows: steps, schedule,
            samples and loss are those of the batch in one piece, but batch normalisation has its moments from
            micro-batches.
        steps_per_epoch: batches per epoch; by default one pass over the first domain, or over the pool.
        num_workers: processes that prepare samples, for each training process. By default none without a
            GPU, where they take the cores from the network, and up to 8 with one, of the cores that are its own.
        start_method: of those processes: "fork", "spawn" or "forkserver"; by default Python's own choice.
        prefetch_factor: batches that each of them prepares ahead; by default torch's, 2.
        cache: "ram" decodes every dataset once into memory that all processes of a host share, "disk" once into a
            file that later runs use too; "none" decodes from its files each time.
        cache_folder: where "disk" keeps its files, and processes find one another's memory; by default `fcnseg` in
            the user's cache folder.
        cache_limit: how many GB all files in that folder may take.
        seed: of sampling and augmentation.
        on_error: "raise", or "skip": a training image that cannot be read is replaced by the next one that can, and
            the reason noted in damaged.txt in the trainer's folder. Validation always raises.
        most_errors: how many images may be skipped.
        allow_overlap: take image files that are both trained and validated on, which else are refused.

    Raises:
        InputError: when label spaces differ, a value is out of range, training and validation share files, or
            there are no labels to train or validate on.
    """

    def __init__(
        self,
        train: Mapping[str, SegmentationDataset],
        val: SegmentationDataset,
        *,
        size: Sequence[int] | None,
        resize: str = "keep",
        ratio: Mapping[str, float] | None = None,
        mixing: str = "balanced",
        augment: Augment | None = None,
        targets: Targets | None = None,
        paste: float = 0.0,
        rare_classes: Sequence[str] | None = None,
        batch_size: int = 10,
        device_batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        num_workers: int | None = None,
        start_method: str | None = None,
        prefetch_factor: int | None = None,
        cache: str = "none",
        cache_folder: str | Path | None = None,
        cache_limit: float = LIMIT,
        seed: int = 0,
        on_error: str = "raise",
        most_errors: int = 100,
        allow_overlap: bool = False,
    ) -> None:
        super().__init__()
        _require_settings(
            counts={
                "batch_size": (batch_size, 1),
                "device_batch_size": (1 if device_batch_size is None else device_batch_size, 1),
                "num_workers": (num_workers or 0, 0),
                "prefetch_factor": (2 if prefetch_factor is None else prefetch_factor, 1),
                "seed": (seed, 0),
                "most_errors": (most_errors, 1),
                "steps_per_epoch": (1 if steps_per_epoch is None else steps_per_epoch, 1),
            },
            choices={
                "mixing": (mixing, MIXINGS),
                "cache": (cache, CACHES),
                "on_error": (on_error, ON_ERROR),
                "start_method": (start_method, (*get_all_start_methods(), None)),
            },
        )
        if not isinstance(cache_limit, int | float) or not cache_limit > 0:
            raise InputError(f"cache_limit={cache_limit!r}: expected a number of GB above 0")
        if size is not None:
            require_size(size)
        require_resize(resize)
        images = train if targets is None else {**train, "targets": targets.dataset}
        if cache != "none":
            _require_cacheable(images, cache, on_error)
        self.label_space = val.label_space
        _require_one_label_space(train, self.label_space)
        _require_labels(train, val)
        require_rare(paste, rare_classes, self.label_space)
        if targets is not None:
            targets.require(train, size)
        if not allow_overlap:
            require_apart(images, val)
        self.train, self.val = dict(train), val
        self.size, self.resize = tuple(size) if size else None, resize
        self.ratio = dict(ratio) if ratio else dict.fromkeys(train, 1.0)
        self.mixing = mixing
        self.augment: Augment = augment or resize_pipeline(size, resize)
        self.targets, self.paste, self.rare_classes = targets, paste, rare_classes
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.device_batch_size, self.micro_batches = device_batch_size, 1
        self.num_workers, self.seed = num_workers, seed
        self.start_method, self.prefetch_factor = start_method, prefetch_factor
        self.cache, self.cache_folder, self.cache_limit = cache, cache_folder, cache_limit
        self.on_error, self.most_errors = on_error, most_errors
        if train:
            self.batches()  # raises at once when ratio and batch size do not fit

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The (height, width) that the model is to resize images to; None where they keep their own."""
        return None if self.size is None or self.resize == "native" else (self.size[0], self.size[1])

    def _repr_html_(self) -> str:
        """Domains with their samples and places in a batch, and the validation set, in notebooks."""
        return data_view(self)

    def image_facts(self) -> dict[str, Any]:
        """What a model must know of the images, as arguments of `create_model`; reads one image of each dataset.

        8-bit RGB images leave mean and standard deviation to the model, whose weights may bring theirs. Of other
        images they are those that their first domain tells, or measured on it.

        Raises:
            InputError: when datasets differ in channels, type or scaling.
        """
        found = {name: _facts(dataset) for name, dataset in (*self.train.items(), ("val", self.val))}
        first, facts = next(iter(found.items()))
        for name, others in found.items():
            for key, value in others.items():
                if value != facts[key]:
                    raise InputError(f"images of {name!r} have {key}={value}, those of {first!r} {facts[key]}")
        source: Any = self.train.get(first, self.val)
        clip = getattr(source, "clip", None)
        if clip is not None or facts != {"in_channels": 3, "image_type": "uint8", "scaling": None}:
            told = hasattr(source, "mean") and hasattr(source, "std")
            normal = source if told else _normalisation(source)
            facts |= {"mean": normal.mean, "std": normal.std}
            facts |= {} if clip is None else {"clip": clip}
        return facts

    def prepare_data(self) -> None:
        """Fill the caches in one process of each host, which is where Lightning calls this, before all map them."""
        self.setup(self.trainer.state.fn if self.trainer else "fit")

    def setup(self, stage: str | None = None) -> None:
        """Take the datasets from the caches; processes without a `prepare_data` before them wait for one another."""
        self.val = self._cached(self.val)
        if stage == "fit":
            if self.trainer:
                self.divide_batches(self.trainer)
            self.train = {name: self._cached(dataset) for name, dataset in self.train.items()}
            if self.targets is not None:
                self.targets.dataset = self._cached(self.targets.dataset)

    def _cached(self, dataset: SegmentationDataset) -> SegmentationDataset:
        if self.cache == "none" or isinstance(dataset, Preloaded | DiskCached):
            return dataset
        if self.cache == "ram":
            return Preloaded(dataset, self.cache_folder)
        return DiskCached(dataset, self.cache_folder, self.cache_limit)

    def divide_batches(self, trainer: Trainer) -> None:
        """Let a trainer accumulate gradients over the micro-batches that `device_batch_size` asks for.

        Raises:
            InputError: when the trainer's own settings say otherwise, or a process would be without a sample.
        """
        self.micro_batches = follow_limit(trainer, self.batch_size, self.device_batch_size)

    def batches(
        self,
        num_replicas: int = 1,
        rank: int = 0,
        done: Callable[[], int] | None = None,
        micro_batches: int = 1,
    ) -> BalancedBatchSampler:
        """The training sampler of one of `num_replicas` processes; the rest as in `BalancedBatchSampler`.

        Raises:
            InputError: when there is no training domain, or ratio and batch size do not fit.
        """
        if not self.train:
            raise InputError("train: expected at least one domain; this data is for validation only")
        lengths = {name: len(dataset) for name, dataset in self.train.items()}
        options: dict[str, Any] = {
            "steps": self.steps_per_epoch,
            "seed": self.seed,
            "num_replicas": num_replicas,
            "rank": rank,
            "done": done,
            "micro_batches": micro_batches,
        }
        if self.mixing == "pooled":
            return PooledBatchSampler(lengths, self.batch_size, **options)
        parts = {name: parts_of(dataset) for name, dataset in self.train.items()}
        return BalancedBatchSampler(lengths, self.ratio, self.batch_size, parts=parts, **options)

    def train_dataloader(self) -> DataLoader:
        domains, targets = list(self.train.values()), self.targets
        if self.on_error == "skip":
            note = Path(self.trainer.default_root_dir if self.trainer else ".", "damaged.txt")
            domains = [Skipping(dataset, note, self.most_errors) for dataset in domains]
            targets = targets and targets.over(Skipping(targets.dataset, note, self.most_errors))
        paste = prepare_rare(self.augment, self.paste, self.rare_classes, self.label_space, self.class_pixels)
        shown = None if targets is None else targets.by_position(list(self.train))
        dataset = TrainingSamples(domains, self.augment, self.seed, paste, shown)
        done = self._batches_done if self.trainer else None
        batches = self.batches(*self._processes(), done, self.micro_batches)
        return self._loader(dataset, TrainingLoader, batch_sampler=batches, collate_fn=collate_padded)

    def val_dataloader(self) -> DataLoader:
        return self.validation_loader(*self._processes())

    def validation_loader(self, num_replicas: int = 1, rank: int = 0) -> DataLoader:
        """The whole validation set, or the part of it that one of several processes scores.

        A batch has "image", a list "mask" of masks in their own size, and lists of each one's "name", "index" and
        "shown", the (height, width) of the image's beginning beyond which is padding.
        """
        dataset = ValidationSamples(self.val, self.input_size, self.resize)
        sampler = EveryImageOnce(dataset, num_replicas, rank)
        return self._loader(dataset, sampler=sampler, batch_size=self._scored_at_once, collate_fn=collate)

    def validation_batches(self) -> list[range]:
        """The indices of the images of each batch of `validation_loader()`."""
        indices, most = range(len(self.val)), self._scored_at_once
        return [indices[start : start + most] for start in range(0, len(indices), most)]

    def loader_of(self, batches: Sequence[Sequence[int]]) -> DataLoader:
        """Some of `validation_batches`, as `validation_loader` gives them."""
        dataset = ValidationSamples(self.val, self.input_size, self.resize)
        return self._loader(dataset, batch_sampler=list(batches), collate_fn=collate)

    @property
    def _scored_at_once(self) -> int:
        return 8 if self.input_size else 1

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Masks as int64, now that they are on the device: on the way they are an eighth of that."""
        masks = batch["mask"]
        return batch | {"mask": masks.long() if isinstance(masks, Tensor) else [mask.long() for mask in masks]}

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _batches_done(self) -> int:
        """Whole batches that the trainer has trained on, over all epochs and interruptions."""
        return (self.trainer.fit_loop.total_batch_idx + 1) // self.micro_batches if self.trainer else 0

    def _loader(self, dataset: Dataset, kind: type[DataLoader] = DataLoader, **options: Any) -> DataLoader:
        workers = self.num_workers
        if workers is None:
            workers = default_workers(self.trainer.num_devices if self.trainer else 1)
        if workers:
            options |= {
                "persistent_workers": True,
                "worker_init_fn": begin_loading,
                "multiprocessing_context": self.start_method,
                "prefetch_factor": self.prefetch_factor or max(2, -(-self.micro_batches // workers)),
            }
        return kind(dataset, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)

    def class_pixels(self, limit: int = 500) -> np.ndarray:
        """(num_classes, 2) float: per class, its pixels and the pixels of the images that show it.

        Domains weigh as in a batch, and so do the sets within one; of each, up to `limit` masks spread evenly over it
        are counted, once per host. Domains without labels count nothing.
        """
        total = np.zeros((self.label_space.num_classes, 2))
        pooled = self.mixing == "pooled"
        for name, dataset in self.train.items():
            if is_labelled(dataset):
                parts = [(len(dataset), 1.0)] if pooled else parts_of(dataset)
                total += mean_pixels(dataset, parts, limit) * (len(dataset) if pooled else self.ratio[name])
        return total


def _require_settings(
    counts: Mapping[str, tuple[Any, int]], choices: Mapping[str, tuple[Any, Sequence[str | None]]]
) -> None:
    """Refuse what is no whole number from its least one on, or none of its choices."""
    for name, (count, least) in counts.items():
        if not isinstance(count, int) or count < least:
            raise InputError(f"{name}={count!r}: expected a whole number from {least} on")
    for name, (choice, known) in choices.items():
        if choice not in known:
            raise InputError(f"{name} {choice!r}: expected one of {', '.join(each or 'null' for each in known)}")


def _require_cacheable(train: Mapping[str, SegmentationDataset], cache: str, on_error: str) -> None:
    if any(getattr(dataset, "drawn", False) for dataset in train.values()):
        raise InputError(f"cache={cache}: windows are drawn anew each time; expected cache=none")
    if on_error == "skip":
        raise InputError(f"on_error=skip: a cache is made of sound files; expected cache=none, not {cache}")


def _require_one_label_space(train: Mapping[str, SegmentationDataset], expected: LabelSpace) -> None:
    for name, dataset in train.items():
        if (space := dataset.label_space).classes != expected.classes:
            raise InputError(f"domain {name!r} has label space {space.name!r}, validation {expected.name!r}")


def _require_labels(train: Mapping[str, SegmentationDataset], val: SegmentationDataset) -> None:
    if not is_labelled(val):
        raise InputError("validation: its images have no labels to compare with; expected labelled ones")
    if train and not any(map(is_labelled, train.values())):
        names = ", ".join(map(repr, train))
        raise InputError(
            f"train: no labels to learn from in {names}; expected a labelled domain beside unlabelled images"
        )


def _facts(dataset: SegmentationDataset) -> dict[str, Any]:
    image = dataset[0][0]
    return {
        "in_channels": image.shape[2],
        "image_type": image.dtype.name,
        "scaling": getattr(dataset, "scaling", None),
    }


def _normalisation(dataset: SegmentationDataset) -> Normalisation:
    """Mean and standard deviation of the channels, measured once per host."""
    found = once(dataset, spread(len(dataset)), "moments", lambda: asdict(normalisation(dataset)))
    return Normalisation(tuple(found["mean"]), tuple(found["std"]))
