"""The split by blocks: nothing lost, nothing twice, neighbours together, whatever the order of files."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnseg.data.datasets.splits import split_blocks, split_files
from fcnseg.errors import InputError

settings = st.fixed_dictionaries(
    {"val_share": st.floats(0.05, 0.95), "block": st.integers(1, 12), "seed": st.integers(0, 5)}
)


@st.composite
def frames(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Videos of 13 to 60 frames, long enough for two blocks, some frames in several views."""
    lengths = draw(st.lists(st.integers(13, 60), min_size=1, max_size=4))
    views = draw(st.integers(1, 3))
    return [(f"video{v}", f"{i:06d}") for v, n in enumerate(lengths) for _ in range(views) for i in range(n)]


@given(frames(), settings)
def test_the_parts_are_disjoint_and_complete(frames: list[tuple[str, str]], how: dict) -> None:
    train, val = (split_blocks(frames, split, **how) for split in ("train", "val"))
    assert sorted(train + val) == list(range(len(frames))) == split_blocks(frames, "all", **how)
    assert train
    assert val
    assert not {frames[i] for i in train} & {frames[i] for i in val}, "no frame is seen from both sides"


@given(frames(), settings)
def test_blocks_stay_together_and_validation_has_its_share(frames: list[tuple[str, str]], how: dict) -> None:
    val = {frames[i] for i in split_blocks(frames, "val", **how)}
    blocks = {}
    for video, name in set(frames):
        blocks.setdefault((video, int(name) // how["block"]), []).append((video, name) in val)
    assert all(len(set(sides)) == 1 for sides in blocks.values())
    chosen = sum(sides[0] for sides in blocks.values())
    assert chosen == pytest.approx(how["val_share"] * len(blocks), abs=1)


@given(frames(), settings, st.randoms(use_true_random=False))
def test_the_order_of_files_has_no_influence(frames: list[tuple[str, str]], how: dict, dice: random.Random) -> None:
    shuffled = dice.sample(frames, len(frames))
    for split in ("train", "val"):
        assert {frames[i] for i in split_blocks(frames, split, **how)} == {
            shuffled[i] for i in split_blocks(shuffled, split, **how)
        }


def test_a_seed_gives_one_split_for_ever_and_another_seed_another() -> None:
    files = [Path(f"{i:03d}.png") for i in range(100)]
    chosen = [
        sorted({int(p.stem) // 10 for p in split_files(files, "val", val_share=0.3, block=10, seed=seed)})
        for seed in range(4)
    ]
    assert chosen[0] == [3, 4, 7], "published scores depend on it"
    assert len(set(map(tuple, chosen))) > 1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"split": "test"}, "split 'test': expected train, val or all"),
        ({"val_share": 0.0}, "val_share=0.0: expected a share above 0 and below 1"),
        ({"val_share": 1}, "val_share=1: expected a share above 0 and below 1"),
        ({"block": 0}, "block=0: expected at least one frame"),
        ({"block": 10}, "block=10: 10 frames make 1 block; expected at least 2"),
    ],
)
def test_impossible_splits_are_refused(wrong: dict, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        split_blocks([("", str(i)) for i in range(10)], **{"split": "train", "block": 5, **wrong})
    assert str(caught.value) == reason
