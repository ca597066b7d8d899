"""Datasets made of others: what they hold, and what they pass on of what a dataset tells of itself."""

from itertools import pairwise
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fcnseg.data import CityScenes, Concat, Remapped, SegmentationData, Subset
from fcnseg.data.dataset import TOLD, image_files, read_mask, require_apart
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.storage.cache import DiskCached, Preloaded
from fcnseg.errors import InputError
from fcnseg.labels import STREET11

SCENES = CityScenes(8, size=(12, 16))


class Radar:
    """Images of two bands on a logarithmic scale, whose mean and deviation are known."""

    label_space = STREET11
    scaling, mean, std, clip = "decibel", (1.0, 2.0), (3.0, 4.0), 1.5
    mapping = SimpleNamespace(table=None)
    labelled, parts = True, ((1, 2.0), (3, 1.0))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return np.full((4, 4, 2), index, np.float32), np.full((4, 4), index, np.uint8), str(index)


def places(subset: Subset) -> list[int]:
    return [subset.place(index) for index in range(len(subset))]


@given(st.data(), st.integers(1, 400))
def test_a_subset_is_the_run_that_a_doubled_list_has_there(data: st.DataObject, length: int) -> None:
    first, count = data.draw(st.integers(0, length - 1)), data.draw(st.integers(1, length))
    subset = Subset(CityScenes(length), count / length, first / length)
    assert places(subset) == [*range(length), *range(length)][first : first + count]


@given(st.integers(1, 60), st.lists(st.floats(0.001, 1), min_size=2, max_size=5), st.floats(0, 0.999))
def test_larger_shares_hold_the_smaller_ones(length: int, shares: list[float], start: float) -> None:
    """So that the points of a learning curve differ in nothing but the amount of data."""
    runs = [places(Subset(CityScenes(length), share, start)) for share in sorted(shares)]
    assert all(more[: len(less)] == less for less, more in pairwise(runs))
    assert all(len(set(run)) == len(run) > 0 for run in runs)


def test_quarters_hold_every_sample_once() -> None:
    quarters = [places(Subset(SCENES, 0.25, start)) for start in (0, 0.25, 0.5, 0.75)]
    assert quarters == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert places(Subset(SCENES, 0.5, 0.75)) == [6, 7, 0, 1]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"sample {index} of 2"):
            Subset(SCENES, 0.25)[index]


def test_samples_and_masks_are_those_of_the_dataset() -> None:
    subset = Subset(Remapped(SCENES, "street11"), 0.25, 0.5)
    image, mask, name = subset[1]
    assert name == SCENES[5][2] == "synthetic-0-000005"
    assert np.array_equal(image, SCENES[5][0])
    assert np.array_equal(mask, read_mask(subset, 1))
    assert str(subset.mapping) == str(Remapped(SCENES, "street11").mapping)


def test_wrappers_pass_on_what_a_dataset_tells_of_itself() -> None:
    subset = Subset(Radar(), 1.0)
    assert [getattr(subset, name) for name in TOLD] == [getattr(Radar, name) for name in TOLD]
    remapped = Remapped(subset, "cityscapes19")
    assert [getattr(remapped, name) for name in TOLD[:3]] == [getattr(Radar, name) for name in TOLD[:3]]
    assert remapped.mapping.target.name == "cityscapes19", "the outer mapping is the one that masks went through last"
    facts = SegmentationData({"radar": remapped}, remapped, size=(4, 4)).image_facts()
    expected = {
        "in_channels": 2,
        "image_type": "float32",
        "scaling": "decibel",
        "mean": (1, 2),
        "std": (3, 4),
        "clip": 1.5,
    }
    assert facts == expected


def test_caches_pass_it_on_too(tmp_path: Path) -> None:
    """With cache=ram or disk a radar data set kept neither its scale nor its statistics."""
    for cached in (Preloaded(Radar()), DiskCached(Radar(), tmp_path)):
        assert [getattr(cached, name) for name in TOLD] == [getattr(Radar, name) for name in TOLD]
    data = SegmentationData({"radar": Radar()}, Radar(), size=(4, 4), cache="ram")
    before = data.image_facts()
    data.setup("fit")
    assert data.image_facts() == before


def test_processes_that_are_started_anew_share_what_is_in_memory() -> None:
    """They are handed a name of the memory, not its bytes."""
    preloaded = Preloaded(CityScenes(16, size=(120, 160)))
    size = 16 * 120 * 160 * 4
    assert len(ForkingPickler.dumps(preloaded)) < size / 8  # the label space's table of all 16-bit values is in it
    loader = DataLoader(preloaded, batch_size=None, sampler=[5], num_workers=1, multiprocessing_context="spawn")
    ((image, mask, name),) = loader
    expected = CityScenes(16, size=(120, 160))[5]
    assert np.array_equal(image, expected[0])
    assert np.array_equal(mask, expected[1])
    assert name == expected[2]


def test_datasets_in_a_row_are_one() -> None:
    others = CityScenes(3, seed=5, look="real", size=(6, 8))
    row = Concat([SCENES, others, Subset(SCENES, 0.25)])
    assert len(row) == 8 + 3 + 2
    expected = [*(SCENES[i] for i in range(8)), *(others[i] for i in range(3)), SCENES[0], SCENES[1]]
    for index, (image, mask, name) in enumerate(expected):
        assert row[index][2] == name
        assert np.array_equal(row[index][0], image)
        assert np.array_equal(row[index][1], mask)
        assert np.array_equal(row.mask(index), mask)
    for index in (-1, 13):
        with pytest.raises(IndexError, match=f"sample {index} of 13"):
            row[index]


def test_datasets_that_differ_make_no_row() -> None:
    with pytest.raises(InputError, match="datasets: expected at least one"):
        Concat([])
    with pytest.raises(InputError, match="label spaces 'street11' and 'cityscapes19' differ"):
        Concat([SCENES, Remapped(SCENES, "cityscapes19")])
    with pytest.raises(InputError, match="scalings None, decibel differ"):
        Concat([SCENES, Radar()])


def test_sets_in_a_row_may_have_weights_by_name_or_in_order() -> None:
    named = Concat({"drawn": SCENES, "few": Subset(SCENES, 0.25)}, {"few": 3, "drawn": 1})
    assert named.parts == Concat([SCENES, Subset(SCENES, 0.25)], [1, 3]).parts == ((8, 1), (2, 3))
    assert not hasattr(Concat({"drawn": SCENES}), "parts"), "without weights all samples are drawn alike"
    assert Remapped(named, "street11").parts == named.parts
    within = Concat([SCENES, named], [1, 4])
    assert within.parts == ((8, 1), (8, 1.0), (2, 3.0)), "a weight is divided as those within it are"
    assert Concat([SCENES, named]).parts == ((8, 8), (8, 2.5), (2, 7.5)), "by size, where it has none"


def test_a_share_of_sets_with_weights_is_a_share_of_each() -> None:
    row = Concat([SCENES, Subset(SCENES, 0.5)], [1, 1])
    half = Subset(row, 0.5, 0.75)
    assert [half.place(i) for i in range(len(half))] == [6, 7, 0, 1, 11, 8]
    assert half.parts == ((4, 1), (2, 1))


@pytest.mark.parametrize(
    ("datasets", "weights", "complaint"),
    [
        ([SCENES, SCENES], [1], r"weights \[1\]: expected one for each of the 2 datasets"),
        ([SCENES], {"a": 1}, "weights {'a': 1}: expected one for each of the 1 datasets"),
        ({"a": SCENES, "b": SCENES}, {"a": 1}, "weights {'a': 1}: expected one for each of the datasets a, b, by name"),
        ({"a": SCENES}, [1], r"weights \[1\]: expected one for each of the datasets a, by name"),
        ([SCENES], [0], r"weights \[0\]: expected numbers above 0"),
        ([SCENES], ["1"], r"weights \['1'\]: expected numbers above 0"),
        ([SCENES], [float("inf")], r"weights \[inf\]: expected numbers above 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(datasets: object, weights: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Concat(datasets, weights)


@pytest.mark.parametrize("share", [0, -1, 1.5, "half", True])
def test_a_share_out_of_range_is_refused(share: object) -> None:
    with pytest.raises(InputError, match=f"share={share}: expected a part of a dataset, above 0 and at most 1"):
        Subset(SCENES, share)


@pytest.mark.parametrize("start", [-0.1, 1, "end"])
def test_a_start_out_of_range_is_refused(start: object) -> None:
    with pytest.raises(InputError, match=f"start={start}: expected where the part begins, from 0 to below 1"):
        Subset(SCENES, 0.5, start)


def paths(*names: str, folder: str = "somewhere") -> Pairs:
    return Pairs([Path(folder, f"{n}.png") for n in names], [Path(folder, f"{n}_l.png") for n in names], STREET11)


def test_image_files_are_told_through_all_wrappers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = Concat([paths("a", "b"), Remapped(paths("c", "d"), "street11")])
    assert list(image_files(both)) == [str(tmp_path / "somewhere" / f"{n}.png") for n in "abcd"]
    assert list(image_files(Subset(both, 0.5, 0.25))) == [str(tmp_path / "somewhere" / f"{n}.png") for n in "bc"]
    assert list(image_files(Subset(both, 0.75, 0.5))) == [str(tmp_path / "somewhere" / f"{n}.png") for n in "cda"]
    assert list(image_files(Subset(SCENES, 0.5))) == list(image_files(SCENES)) == []


def test_files_on_both_sides_are_refused_however_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    val = paths("b", "x", "c", folder=str(tmp_path / "somewhere"))
    mixed = Concat([paths("a"), paths("b", "c", "d")])
    with pytest.raises(InputError) as caught:
        require_apart({"apart": paths("e"), "mixed": mixed, "drawn": SCENES}, val)
    assert str(caught.value).startswith(
        f"{tmp_path}/somewhere/b.png: both in training domain 'mixed' and in validation (2 of 3 validation images are)"
    )
    require_apart({"a": Subset(mixed, 0.25), "d": Subset(mixed, 0.25, 0.75)}, val)
    require_apart({"a": paths("a", folder="elsewhere")}, SCENES)
    with pytest.raises(InputError, match="both in training domain 'mixed'"):
        SegmentationData({"mixed": mixed}, val, size=(4, 4))
    assert len(SegmentationData({"mixed": mixed}, val, size=(4, 4), allow_overlap=True).val) == 3
