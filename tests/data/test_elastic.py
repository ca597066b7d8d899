"""Batches for any number of processes, from any step on, and from any kind of dataset."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from fcnseg.data import CamVid, CityScenes, Concat
from fcnseg.data.bgc import BalancedBatchSampler, count_micro_batches
from fcnseg.data.datamodule import SegmentationData
from fcnseg.data.dataset import Sample, SegmentationDataset
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack
from fcnseg.data.streams import SampleRef
from fcnseg.data.transforms import street_pipeline
from fcnseg.errors import InputError

SIZE = (32, 48)
LENGTHS = {"real": 25, "synthetic": 7}
RATIO = {"real": 6, "synthetic": 4}

domains = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 10)), min_size=1, max_size=3)
"""(length, share in the ratio) of one to three domains."""


# The sampler


class Ranks:
    """The samplers of several processes, moved through the epochs as Lightning moves them.

    `of` holds (length, share in the ratio) of each domain; the first batch is that after `done` others.
    """

    def __init__(self, world: int, of: list[tuple[int, int]], batch_size: int, steps: int, done: int = 0) -> None:
        lengths = {str(i): length for i, (length, _) in enumerate(of)}
        ratio = {str(i): share for i, (_, share) in enumerate(of)}
        self.steps, self.done = steps, done
        self.samplers = [
            BalancedBatchSampler(
                lengths, ratio, batch_size, steps=steps, num_replicas=world, rank=rank, done=lambda: self.done
            )
            for rank in range(world)
        ]

    def batches(self, until: int) -> Iterator[list[list[SampleRef]]]:
        """What the processes draw in each step; every epoch ends after its last step, wherever it was entered."""
        while self.done < until:
            epoch, passed = divmod(self.done, self.steps)
            for sampler in self.samplers:
                sampler.set_epoch(epoch)
            for parts in islice(zip(*self.samplers, strict=True), min(self.steps - passed, until - self.done)):
                yield list(parts)
            self.done = min((epoch + 1) * self.steps, until)


def assume_valid(of: list[tuple[int, int]], batch_size: int, world: int) -> None:
    """A sample of every domain in each batch, and one for every process."""
    assume(batch_size >= world)
    assume(all(batch_size * share >= sum(share for _, share in of) for _, share in of))


def together(parts: list[list[SampleRef]]) -> list[tuple[int, int, int]]:
    return sorted((draw.domain, draw.index, draw.count) for draw in chain(*parts))


@given(
    domains, st.integers(1, 30), st.integers(1, 6), st.integers(1, 6), st.integers(1, 7), st.integers(0, 20),
    st.integers(0, 20),
)  # fmt: skip
def test_any_number_of_ranks_goes_on_from_any_step(of, batch_size, before, after, steps, stopped, saved) -> None:
    """Stopped anywhere, the run goes on from its last checkpoint with any number of processes: no batch is lost."""
    assume(saved <= stopped)
    assume_valid(of, batch_size, max(before, after))
    begun = list(Ranks(before, of, batch_size, steps).batches(stopped))[:saved]
    ended = list(Ranks(after, of, batch_size, steps, done=saved).batches(21))
    whole = list(Ranks(1, of, batch_size, steps).batches(21))
    assert [together(parts) for parts in begun + ended] == [together(parts) for parts in whole]
    for domain in range(len(of)):
        counts = [draw.count for parts in whole for draw in chain(*parts) if draw.domain == domain]
        assert counts == list(range(len(counts))), "none is drawn twice or left out"


@given(domains, st.integers(1, 30), st.integers(1, 8), st.integers(0, 50))
def test_every_rank_has_its_part_of_every_domain_to_less_than_one_sample(of, batch_size, world, step) -> None:
    """Also where the processes do not divide the batch, or the ratio not the batch."""
    assume_valid(of, batch_size, world)
    (parts,) = Ranks(world, of, batch_size, steps=1, done=step).batches(step + 1)
    exact = Counter(draw.domain for draw in chain(*parts))
    for part in parts:
        assert abs(len(part) - batch_size / world) < 1
        for domain, count in exact.items():
            assert abs(sum(draw.domain == domain for draw in part) - count / world) < 1


@given(domains, st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(0, 50))
def test_micro_batches_are_within_their_limit_and_hold_each_domain_evenly(of, batch_size, world, at_once, step) -> None:
    """Those of all processes together are the batch, none of them is empty or larger, and they come in steps."""
    assume_valid(of, batch_size, world)
    try:
        count = count_micro_batches(batch_size, world, at_once)
    except InputError:
        assert at_once == 1
        assert batch_size % world
        return
    ratio = {str(i): share for i, (_, share) in enumerate(of)}
    lengths = {str(i): length for i, (length, _) in enumerate(of)}
    whole = BalancedBatchSampler(lengths, ratio, batch_size, steps=1).global_batch(step)
    parts = []
    for rank in range(world):
        sampler = BalancedBatchSampler(
            lengths, ratio, batch_size, steps=2, num_replicas=world, rank=rank, done=lambda: step, micro_batches=count
        )
        batches = list(sampler)
        assert len(batches) == len(sampler) == 2 * count
        parts += batches[:count]
    assert together(parts) == together([whole])
    for part in parts:
        assert 1 <= len(part) <= at_once
        for domain, share in Counter(draw.domain for draw in whole).items():
            assert abs(sum(draw.domain == domain for draw in part) - share / len(parts)) < 1


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (1, [(6, 4)]),
        (2, [(3, 2), (3, 2)]),
        (3, [(2, 2), (2, 1), (2, 1)]),
        (4, [(2, 1), (2, 1), (1, 1), (1, 1)]),
        (5, [(2, 0), (1, 1), (1, 1), (1, 1), (1, 1)]),
        (10, [(1, 0)] * 6 + [(0, 1)] * 4),
    ],
)
def test_six_to_four_by_hand(world: int, expected: list[tuple[int, int]]) -> None:
    (parts,) = Ranks(world, [(60, 6), (30, 4)], 10, steps=1).batches(1)
    assert [tuple(sum(draw.domain == domain for draw in part) for domain in (0, 1)) for part in parts] == expected


# The loaders


class Noted:
    """A dataset that notes the names that were read."""

    def __init__(self, dataset: SegmentationDataset, names: list[str]) -> None:
        self.dataset, self.names, self.label_space = dataset, names, dataset.label_space

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        self.names.append(sample[2])
        return sample


def scenes() -> dict[str, SegmentationDataset]:
    return {look: CityScenes(length, seed=1, look=look, size=SIZE) for look, length in LENGTHS.items()}


def bgc(train: dict[str, SegmentationDataset], workers: int = 0) -> SegmentationData:
    val = next(iter(train.values()))
    return SegmentationData(
        train, val, size=SIZE, ratio=RATIO, augment=street_pipeline(SIZE), num_workers=workers, seed=3
    )


def of_rank(data: SegmentationData, world: int, rank: int, done: int = 0) -> list[dict[str, Any]]:
    """The batches of one epoch of one process of several, after `done` batches."""
    progress = SimpleNamespace(total_batch_idx=done - 1)
    data.trainer = SimpleNamespace(world_size=world, global_rank=rank, fit_loop=progress)  # type: ignore[assignment]
    return list(data.train_dataloader())


def shown(batches: tuple[dict[str, Any], ...]) -> list[tuple[int, bytes, bytes]]:
    """Domain, image and mask of every sample that several processes see in one step."""
    keys = ("domain", "image", "mask")
    return sorted(
        (int(domain), image.numpy().tobytes(), mask.numpy().tobytes())
        for batch in batches
        for domain, image, mask in zip(*(batch[key] for key in keys), strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_one_process_with_ten_two_with_five_and_five_with_two_see_the_same(workers: int) -> None:
    """Every pixel after augmentation, in the same step, over an epoch and from the midst of it into the next."""
    data = bgc(scenes(), workers)
    for done in (0, 3):
        alone, two, five = (
            list(zip(*(of_rank(data, world, rank, done) for rank in range(world)), strict=True)) for world in (1, 2, 5)
        )
        assert len(alone) == LENGTHS["real"] // 6
        for step, (ten, fives, twos) in enumerate(zip(alone, two, five, strict=True)):
            assert [len(batch["image"]) for batch in (*ten, *fives, *twos)] == [10] + [5] * 2 + [2] * 5
            assert shown(ten) == shown(fives) == shown(twos), (done, step)


def test_sets_with_weights_are_seen_alike_by_any_number_of_processes() -> None:
    """A real domain of two sets, the small one half of it: the pixels that each number of processes sees in a step."""
    small = CityScenes(3, seed=9, look="photo", size=SIZE)
    train = scenes() | {"real": Concat({"city": scenes()["real"], "small": small}, {"city": 1, "small": 1})}
    data = bgc(train)
    for done in (0, 3):
        alone, two, five = (
            list(zip(*(of_rank(data, world, rank, done) for rank in range(world)), strict=True)) for world in (1, 2, 5)
        )
        for ten, fives, twos in zip(alone, two, five, strict=True):
            assert shown(ten) == shown(fives) == shown(twos)


def test_a_later_start_leaves_out_what_is_done() -> None:
    data = bgc(scenes())
    first, later = of_rank(data, 2, 1), of_rank(data, 2, 1, done=3)
    assert shown((first[3],)) == shown((later[0],))
    assert all(shown((early,)) != shown((later[0],)) for early in first[:3])


# Kinds of datasets


def written(dataset: SegmentationDataset, root: Path) -> CamVid:
    """The samples as files, in CamVid's layout."""
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    for image, mask, name in (dataset[index] for index in range(len(dataset))):
        Image.fromarray(image).save(root / "train" / f"{name}.png")
        labels = np.where(mask == 255, 11, mask).astype(np.uint8)
        Image.fromarray(labels).save(root / "trainannot" / f"{name}.png")
    return CamVid(root)


def test_files_packs_and_embedded_scenes_give_one_sequence(tmp_path: Path) -> None:
    """The same names and pixels in the same batches, which follow from lengths and seed alone."""
    embedded = scenes()
    files: dict[str, SegmentationDataset] = {
        name: written(dataset, tmp_path / name) for name, dataset in embedded.items()
    }
    pack(files, files["real"], tmp_path / "packed")
    packed: dict[str, SegmentationDataset] = {name: Packed(tmp_path / "packed" / "train" / name) for name in files}
    expected = [
        list(embedded.values())[draw.domain][draw.index][2]
        for batch in BalancedBatchSampler(LENGTHS, RATIO, 10, seed=3, steps=8)
        for draw in batch
    ]
    seen = []
    for kind in (embedded, files, packed):
        names: list[str] = []
        data = bgc({name: Noted(dataset, names) for name, dataset in kind.items()})
        batches = [batch for done in (0, 4) for batch in of_rank(data, 1, 0, done)]
        assert [Path(name).stem for name in names] == expected
        seen.append([shown((batch,)) for batch in batches])
    assert seen[0] == seen[1] == seen[2]
