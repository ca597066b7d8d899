"""The data module: what is in a batch, whoever prepares it; what is validated; what is refused.

The datasets here write the index of a sample into its pixels, so that a batch tells what it holds.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from fcnseg.data import CamVid, Concat
from fcnseg.data.datamodule import SegmentationData
from fcnseg.data.storage.encoding import Packing
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack
from fcnseg.data.transforms import street_pipeline
from fcnseg.errors import InputError
from fcnseg.labels import STREET11, LabelSpace

SIZE = (6, 8)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging")


class Numbered:
    """Sample i is an image full of `first + i` with noise in its blue channel, and a mask of its own."""

    label_space = STREET11

    def __init__(self, length: int, first: int = 0, size: tuple[int, int] = SIZE) -> None:
        self.length, self.first, self.size = length, first, size
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        self.reads[index] += 1
        image = np.full((*self.size, 3), self.first + index, np.uint8)
        image[..., 2] = np.random.default_rng(index).integers(0, 256, self.size)
        return image, self.label(index), f"sample{self.first + index}"

    def label(self, index: int) -> np.ndarray:
        values = np.random.default_rng([self.first, index]).integers(0, 12, self.size)
        return np.where(values == 11, 255, values).astype(np.uint8)


class Various(Numbered):
    """Every sample has a size of its own."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        self.size = (10 + index, 20 + 2 * index)
        return super().__getitem__(index)


def seed_in_green(image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An augmentation that writes its seed into the green channel."""
    image = image.copy()
    image[..., 1] = np.random.default_rng(seed).integers(0, 256, image.shape[:2])
    return image, mask


def two_domains(**options: Any) -> SegmentationData:
    """60 real samples numbered from 0, 30 synthetic ones from 100, in batches of 6 and 4."""
    defaults: dict[str, Any] = {"size": SIZE, "ratio": {"real": 6, "synthetic": 4}, "num_workers": 0, "seed": 3}
    train = {"real": Numbered(60), "synthetic": Numbered(30, first=100)}
    return SegmentationData(train, Numbered(5), **{**defaults, **options})


def numbers(batch: dict[str, Any]) -> list[int]:
    return batch["image"][:, 0, 0, 0].tolist()


def same(ours: Any, theirs: Any) -> bool:
    """Whether two batches are equal to the last value."""
    if isinstance(ours, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def of_rank(data: SegmentationData, world: int, rank: int) -> Iterable[dict[str, Any]]:
    """The training batches of one process of several."""
    data.trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
    loader = data.train_dataloader()
    data.trainer = None
    return loader


# Training batches


def test_batches_hold_the_samples_that_the_sampler_drew() -> None:
    data = two_domains()
    loader = data.train_dataloader()
    assert len(loader) == 10
    for batch, draws in zip(loader, data.batches(), strict=True):
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape == (10, 3, *SIZE)
        assert batch["mask"].dtype == torch.uint8
        assert batch["domain"].tolist() == [draw.domain for draw in draws] == [0] * 6 + [1] * 4
        assert numbers(batch) == [draw.index + 100 * draw.domain for draw in draws]
        for image, mask, draw in zip(batch["image"], batch["mask"], draws, strict=True):
            source = list(data.train.values())[draw.domain]
            assert np.array_equal(image.permute(1, 2, 0), source[draw.index][0])
            assert np.array_equal(mask, source.label(draw.index))


def test_an_epoch_shows_the_first_domain_once() -> None:
    shown = Counter(number for batch in two_domains().train_dataloader() for number in numbers(batch))
    assert {number: count for number, count in shown.items() if number < 100} == dict.fromkeys(range(60), 1)
    assert sum(count for number, count in shown.items() if number >= 100) == 40
    assert set(shown.values()) == {1, 2}


def test_without_augmentation_samples_are_only_resized() -> None:
    data = SegmentationData({"a": Numbered(4, size=(12, 16))}, Numbered(1), size=SIZE, batch_size=4, num_workers=0)
    batch = next(iter(data.train_dataloader()))
    for image, mask in zip(batch["image"], batch["mask"], strict=True):
        pixels, label, _ = data.train["a"][int(image[0, 0, 0])]
        average = pixels.reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
        assert np.abs(image.permute(1, 2, 0).numpy() - average).max() <= 0.5
        assert np.array_equal(mask, label[1::2, 1::2])


def test_worker_processes_change_nothing() -> None:
    options = {"augment": street_pipeline(SIZE)}
    alone = list(two_domains(**options).train_dataloader())
    helped = list(two_domains(**options, num_workers=2).train_dataloader())
    assert same(alone, helped)
    assert not same(alone, list(two_domains(**options, seed=4).train_dataloader()))


def test_two_processes_share_what_one_would_train_on() -> None:
    data = two_domains(augment=street_pipeline(SIZE))
    alone = list(of_rank(data, 1, 0))
    first, second = list(of_rank(data, 2, 0)), list(of_rank(data, 2, 1))
    assert len(alone) == len(first) == len(second) == 10
    for whole, *halves in zip(alone, first, second, strict=True):
        assert [half["domain"].tolist() for half in halves] == [[0] * 3 + [1] * 2] * 2
        for key, values in whole.items():
            together = [_plain(sample) for half in halves for sample in half[key]]
            assert sorted(together) == sorted(map(_plain, values))


def _plain(sample: torch.Tensor | str) -> bytes | str:
    return sample if isinstance(sample, str) else sample.numpy().tobytes()


def test_every_showing_of_a_sample_is_augmented_differently() -> None:
    """Also across domains and epochs: the seed comes from the run's seed, the domain and the draw's count."""
    data = two_domains(augment=seed_in_green)
    loader = data.train_dataloader()
    greens = []
    for epoch in range(3):
        loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        greens += [image[1].numpy().tobytes() for batch in loader for image in batch["image"]]
    assert len(set(greens)) == len(greens) == 300


# Under Lightning's Trainer


class Recorder(LightningModule):
    """Learns nothing and notes the samples of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: dict[int, list[list[int]]] = {}
        self.greens: list[bytes] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        self.trained.setdefault(self.current_epoch, []).append(numbers(batch))
        self.greens += [image[1].numpy().tobytes() for image in batch["image"]]
        return self.weight * 0

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        self.validated += batch["index"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_trainer_moves_on_to_new_draws_every_epoch(workers: int) -> None:
    """Without Lightning's call of `set_epoch` every epoch would repeat the first."""
    data = two_domains(augment=seed_in_green, num_workers=workers)
    recorder = Recorder()
    trainer = Trainer(**QUIET, max_epochs=3, num_sanity_val_steps=0, use_distributed_sampler=False)
    trainer.fit(recorder, data)

    sampler = data.batches()
    for epoch in range(3):
        expected = [
            [draw.index + 100 * draw.domain for draw in sampler.global_batch(step)]
            for step in range(10 * epoch, 10 * (epoch + 1))
        ]
        assert recorder.trained[epoch] == expected
    assert recorder.trained[0] != recorder.trained[1]
    assert len(set(recorder.greens)) == 300
    assert sorted(recorder.validated) == sorted([*range(5)] * 3)


# Validation


@pytest.mark.parametrize("world", [1, 2, 3, 5, 9])
def test_validation_shows_every_image_once_over_all_processes(world: int) -> None:
    data = SegmentationData({"a": Numbered(12)}, Numbered(7, first=50), size=SIZE, num_workers=0)
    loaded = [batch for rank in range(world) for batch in data.validation_loader(world, rank)]
    batches = [batch for batch in loaded if batch["index"] != [-1]]
    assert sorted(index for batch in batches for index in batch["index"]) == list(range(7))
    for batch in batches:
        assert numbers(batch) == [50 + index for index in batch["index"]]
        assert batch["name"] == [f"sample{50 + index}" for index in batch["index"]]
    per_rank = [sum(len(b["index"]) for b in data.validation_loader(world, rank)) for rank in range(world)]
    assert max(per_rank) - min(per_rank) <= 1
    for batch in loaded[len(batches) :]:  # a process without an image takes part in the sums with one that has no label
        assert (batch["mask"][0] == 255).all()
    assert len(loaded) == max(len(batches), world)


def test_validation_resizes_images_and_leaves_masks_as_they_are() -> None:
    val = Various(9)
    data = SegmentationData({"a": Numbered(12)}, val, size=(5, 10), num_workers=0)
    batches = list(data.val_dataloader())
    assert [len(batch["mask"]) for batch in batches] == [8, 1]
    for batch in batches:
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape[1:] == (3, 5, 10)
        for index, mask, image in zip(batch["index"], batch["mask"], batch["image"], strict=True):
            pixels, label, _ = val[index]
            assert mask.dtype == torch.uint8
            assert np.array_equal(mask, label)
            if index == 0:  # 10x20 to 5x10: blocks of four
                average = pixels.reshape(5, 2, 10, 2, 3).mean(axis=(1, 3))
                assert np.abs(image.permute(1, 2, 0).numpy() - average).max() <= 0.5


def test_without_a_size_images_keep_theirs() -> None:
    val = Various(4)
    train = {"a": Numbered(12)}
    data = SegmentationData(train, val, size=None, augment=street_pipeline(SIZE), num_workers=0)
    batches = list(data.val_dataloader())
    assert len(batches) == 4
    for index, batch in enumerate(batches):
        assert np.array_equal(batch["image"][0].permute(1, 2, 0), val[index][0])
        assert np.array_equal(batch["mask"][0], val[index][1])


# Cache


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_the_cache_changes_nothing_but_the_reading(cache: str, tmp_path: Path) -> None:
    options = {"augment": street_pipeline(SIZE)}
    plain, cached = two_domains(**options), two_domains(**options, cache=cache, cache_folder=tmp_path)
    sources = [*cached.train.values(), cached.val]
    for data in (plain, cached):
        data.setup("fit")
    reads = [source.reads.copy() for source in sources]
    for _ in range(2):
        assert same(list(cached.train_dataloader()), list(plain.train_dataloader()))
        assert same(list(cached.val_dataloader()), list(plain.val_dataloader()))
    assert np.array_equal(cached.class_pixels(), plain.class_pixels())
    cached.setup("fit")  # Lightning may call it again
    assert [source.reads for source in sources] == reads
    for source in sources:
        assert set(source.reads) == set(range(len(source)))


def test_training_is_the_same_from_files_caches_and_packs(camvid: Path, tmp_path: Path) -> None:
    """Every pixel and every draw, with worker processes too."""
    pack({"camvid": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "packed")
    files = {"camvid": CamVid(camvid)}, CamVid(camvid, "val")
    packed = {"camvid": Packed(tmp_path / "packed/train/camvid")}, Packed(tmp_path / "packed/val")
    batches, weights = [], []
    for (train, val), cache in ((files, "none"), (files, "ram"), (files, "disk"), (packed, "none")):
        for workers in (0, 2):
            data = SegmentationData(
                train, val, size=(24, 32), augment=street_pipeline((24, 32)), batch_size=4, num_workers=workers,
                cache=cache, cache_folder=tmp_path / "cache",
            )  # fmt: skip
            data.setup("fit")
            batches.append([*data.train_dataloader(), *data.val_dataloader(), data.class_pixels().tolist()])
            weights.append(trained_weights(data))
    assert len(batches) == 8
    for other, weight in zip(batches[1:], weights[1:], strict=True):
        assert same(batches[0], other)
        assert torch.equal(weights[0], weight)


def trained_weights(data: SegmentationData) -> Tensor:
    """A convolution after one epoch."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 11, 3, padding=1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for batch in data.train_dataloader():
        torch.nn.functional.cross_entropy(
            layer(batch["image"] / 255), batch["mask"].long(), ignore_index=255
        ).backward()
        optimizer.step()
    return layer.weight.detach()


def test_class_pixels_decode_no_image_of_a_pack(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack({"camvid": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "packed", Packing(jpeg_quality=90))
    packed = {"camvid": Packed(tmp_path / "packed/train/camvid")}, Packed(tmp_path / "packed/val")
    files = {"camvid": CamVid(camvid)}, CamVid(camvid, "val")
    monkeypatch.setattr("fcnseg.data.storage.packed.decode_image", None)
    expected = SegmentationData(*files, size=SIZE, batch_size=2).class_pixels()
    assert np.array_equal(SegmentationData(*packed, size=SIZE, batch_size=2).class_pixels(), expected)
    with pytest.raises(InputError, match="not callable"):
        packed[1][0]


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_one_process_of_a_host_fills_the_cache_for_all(cache: str, tmp_path: Path) -> None:
    """Lightning calls `prepare_data` in one of them before `setup` in each."""
    first, other = (two_domains(cache=cache, cache_folder=tmp_path) for _ in range(2))
    sources = [*other.train.values(), other.val]
    first.prepare_data()
    other.setup("fit")
    assert [dict(source.reads) for source in sources] == [{}, {}, {}]
    first.setup("fit")
    assert same(list(first.train_dataloader()), list(other.train_dataloader()))


def test_evaluation_caches_no_training_data() -> None:
    data = two_domains(cache="ram")
    data.setup("validate")
    assert [len(source.reads) for source in data.train.values()] == [0, 0]


# Class statistics


def brute_force(datasets: dict[str, tuple[Numbered, range, float]]) -> np.ndarray:
    """Pixels of each class, and pixels of the images that show it, pixel by pixel."""
    total = np.zeros((11, 2))
    for dataset, indices, share in datasets.values():
        for index in indices:
            pixels = [value for value in dataset.label(index).ravel().tolist() if value != 255]
            for c in set(pixels):
                total[c] += np.array([pixels.count(c), len(pixels)]) * share / len(indices)
    return total


def test_class_pixels_weigh_the_domains_as_a_batch_does() -> None:
    data = two_domains()
    expected = brute_force(
        {"real": (data.train["real"], range(60), 6), "synthetic": (data.train["synthetic"], range(30), 4)}
    )
    assert data.class_pixels() == pytest.approx(expected)


def test_class_pixels_weigh_the_sets_of_a_domain_as_they_are_drawn() -> None:
    few, many = Numbered(3), Numbered(40, first=100)
    data = SegmentationData({"real": Concat([few, many], [1, 3])}, few, size=SIZE)
    alone = [
        SegmentationData({"real": each}, few, size=SIZE, allow_overlap=True).class_pixels() for each in (few, many)
    ]
    np.testing.assert_allclose(data.class_pixels(), 0.25 * alone[0] + 0.75 * alone[1])


class Bare(Numbered):
    """Images without labels."""

    labelled = False

    def label(self, index: int) -> np.ndarray:
        return np.full(self.size, 255, np.uint8)


def test_images_without_labels_are_a_domain_that_class_frequencies_leave_out() -> None:
    train = {"real": Numbered(6), "target": Bare(4)}
    data = SegmentationData(train, Numbered(2), size=SIZE, batch_size=4, num_workers=0)
    for batch in data.train_dataloader():
        target = batch["domain"] == 1
        assert target.tolist() == [False, False, True, True]
        assert (batch["mask"][target] == 255).all()
        assert (batch["mask"][~target] != 255).any()
    alone = SegmentationData({"real": train["real"]}, Numbered(2), size=SIZE, batch_size=2)
    np.testing.assert_array_equal(data.class_pixels(), alone.class_pixels())
    assert not set(train["target"].reads) - {i for i in range(4)}
    before = sum(train["target"].reads.values())
    data.class_pixels()
    assert sum(train["target"].reads.values()) == before, "no mask of theirs is read"


def test_without_labels_nothing_is_trained_or_validated() -> None:
    with pytest.raises(InputError, match="train: no labels to learn from in 'target'; expected a labelled domain"):
        SegmentationData({"target": Bare(4)}, Numbered(2), size=SIZE)
    with pytest.raises(InputError, match="validation: its images have no labels to compare with"):
        SegmentationData({"real": Numbered(4)}, Bare(2), size=SIZE)
    with pytest.raises(InputError, match="validation: its images have no labels to compare with"):
        SegmentationData({}, Bare(2), size=SIZE)


def test_packs_and_caches_keep_what_has_no_label_and_how_sets_are_drawn(tmp_path: Path) -> None:
    row = Concat([Numbered(3), Numbered(4, first=50)], [2, 1])
    train = {"real": row, "target": Bare(2)}
    pack(train, Numbered(2), tmp_path / "pack")
    target, real = Packed(tmp_path / "pack" / "train" / "target"), Packed(tmp_path / "pack" / "train" / "real")
    assert not target.labelled
    assert (target.mask(0) == 255).all()
    for cache in ("ram", "disk"):
        data = SegmentationData(
            train, Numbered(2), size=SIZE, batch_size=4, cache=cache, cache_folder=tmp_path / "cache"
        )
        before = [data.batches().global_batch(step) for step in range(9)]
        data.setup("fit")
        assert [data.batches().global_batch(step) for step in range(9)] == before
        assert not data.train["target"].labelled  # type: ignore[attr-defined]
    packed = SegmentationData({"real": real, "target": target}, Numbered(2), size=SIZE, batch_size=4)
    assert [packed.batches().global_batch(step) for step in range(9)] == before


def test_class_pixels_weigh_pooled_domains_by_their_images() -> None:
    data = two_domains(mixing="pooled")
    expected = brute_force(
        {"real": (data.train["real"], range(60), 60), "synthetic": (data.train["synthetic"], range(30), 30)}
    )
    assert data.class_pixels() == pytest.approx(expected)


def test_pooled_batches_show_every_image_once_in_an_epoch() -> None:
    data = two_domains(mixing="pooled", augment=seed_in_green)
    batches = list(data.train_dataloader())
    assert [len(batch["image"]) for batch in batches] == [10] * 9
    numbers = torch.cat([batch["image"][:, 0, 0, 0] for batch in batches])
    assert sorted(numbers.tolist()) == [*range(60), *range(100, 130)]
    assert torch.equal(torch.cat([batch["domain"] for batch in batches]), (numbers >= 100).long())
    greens = {tuple(image[1].flatten().tolist()) for batch in batches for image in batch["image"]}
    assert len(greens) == 90, "each with an augmentation of its own"


def test_class_pixels_read_no_more_masks_than_the_limit_spread_evenly() -> None:
    data = two_domains()
    expected = brute_force(
        {
            "real": (data.train["real"], range(0, 60, 3), 6),
            "synthetic": (data.train["synthetic"], range(0, 30, 2), 4),
        }
    )
    assert data.class_pixels(limit=21) == pytest.approx(expected)
    assert [len(source.reads) for source in data.train.values()] == [20, 15]


def test_class_pixels_do_not_read_images_where_masks_can_be_had_alone() -> None:
    class MasksApart(Numbered):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
            raise AssertionError("read an image")

        def mask(self, index: int) -> np.ndarray:
            return self.label(index)

    data = SegmentationData({"a": MasksApart(10)}, Numbered(1), size=SIZE)
    assert data.class_pixels() == pytest.approx(brute_force({"a": (data.train["a"], range(10), 1)}))


# What is refused


def test_domains_of_different_label_spaces_are_refused() -> None:
    other = Numbered(5)
    other.label_space = LabelSpace("two", ("road", "rest"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(InputError, match="domain 'synthetic' has label space 'two', validation 'street11'"):
        SegmentationData({"real": Numbered(5), "synthetic": other}, Numbered(5), size=SIZE)
    with pytest.raises(InputError, match="domain 'real' has label space 'street11', validation 'two'"):
        SegmentationData({"real": Numbered(5)}, other, size=SIZE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number from 1 on"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected a whole number from 1 on"),
        ({"batch_size": "10"}, "batch_size='10': expected a whole number from 1 on"),
        ({"num_workers": -1}, "num_workers=-1: expected a whole number from 0 on"),
        ({"num_workers": 1.5}, "num_workers=1.5: expected a whole number from 0 on"),
        ({"prefetch_factor": 0}, "prefetch_factor=0: expected a whole number from 1 on"),
        ({"start_method": "thread"}, "start_method 'thread': expected one of .*spawn.*, null"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0 on"),
        ({"seed": None}, "seed=None: expected a whole number from 0 on"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0: expected a whole number from 1 on"),
        ({"steps_per_epoch": -3}, "steps_per_epoch=-3: expected a whole number from 1 on"),
        ({"cache": "disc"}, "cache 'disc': expected one of none, ram, disk"),
        ({"mixing": "blended"}, "mixing 'blended': expected one of balanced, pooled"),
        ({"cache_limit": 0}, "cache_limit=0: expected a number of GB above 0"),
        ({"cache_limit": "50GB"}, "cache_limit='50GB': expected a number of GB above 0"),
        ({"size": [5]}, r"size=\[5\]: expected \[height, width\]"),
        ({"resize": "squash"}, "resize=squash: expected one of keep, stretch, native"),
        ({"ratio": {"real": 6, "fake": 4}}, "ratio names real, fake; expected the domains real, synthetic"),
        ({"ratio": {"real": 6, "synthetic": 0}}, "expected a positive share for every domain"),
        ({"batch_size": 1}, "batch_size 1 leaves no sample for domain 'synthetic'"),
    ],
)
def test_wrong_values_are_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        two_domains(**wrong)


@pytest.mark.parametrize("size", [None, SIZE])
def test_without_training_domains_there_is_only_validation(size: tuple[int, int] | None) -> None:
    data = SegmentationData({}, Numbered(5), size=size, num_workers=0, cache="ram")
    data.setup("validate")
    assert [index for batch in data.val_dataloader() for index in batch["index"]] == list(range(5))
    with pytest.raises(InputError, match="expected at least one domain"):
        data.train_dataloader()


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size 10 is the global batch; expected at least 16"):
        of_rank(two_domains(), 16, 0)


def test_domains_share_equally_by_default() -> None:
    batch = next(iter(two_domains(ratio=None, steps_per_epoch=2).train_dataloader()))
    assert batch["domain"].tolist() == [0] * 5 + [1] * 5
    assert len(two_domains(ratio=None, steps_per_epoch=2).train_dataloader()) == 2
