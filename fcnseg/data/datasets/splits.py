"""Splitting frames into training and validation where a dataset has no official split."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from fcnseg.data.files.listing import stem
from fcnseg.data.files.path_list import PathList
from fcnseg.errors import InputError

Block = tuple[str, int]


def split_blocks(
    frames: Sequence[tuple[str, str]],
    split: str,
    *,
    val_share: float = 0.1,
    block: int = 50,
    seed: int = 0,
) -> list[int]:
    """Indices of the frames in a split, by blocks of consecutive frames.

    Neighbours in a video hardly differ, so a frame of validation must not have its neighbours in training. The
    frames of a sequence, in the order of their names, are cut into blocks; `val_share` of all blocks, drawn by a
    hash of seed, sequence and block, are for validation. Views of one frame, which share sequence and name, stay
    together. The order in which files are listed has no influence.

    Args:
        frames: (sequence, frame name) of every file.
        split: "train", "val" or "all".
        val_share: share of the blocks for validation, above 0 and below 1.
        block: frames in a block.
        seed: of the draw.

    Raises:
        InputError: for an unknown split, a share or block out of range, or fewer than two blocks.
    """
    _check(split, val_share, block)
    if split == "all":
        return list(range(len(frames)))
    places, names = defaultdict(list), defaultdict(list)
    for place, (sequence, name) in enumerate(frames):
        places[sequence].append(place)
        names[sequence].append(os.fsencode(name))
    val = np.zeros(len(frames), bool)
    for sequence, chosen in _validated(names, val_share, block, seed).items():
        val[places[sequence]] = chosen
    return np.flatnonzero(val == (split == "val")).tolist()


def split_files(
    files: Iterable[Path], split: str, *, val_share: float = 0.1, block: int = 50, seed: int = 0
) -> PathList:
    """The files of a split, by `split_blocks`, where all of them are one sequence."""
    files = PathList.of(files)
    _check(split, val_share, block)
    if split == "all":
        return files
    names = [os.fsencode(stem(name)) for _, inside in files.runs() for name in inside]
    val = _validated({"": names}, val_share, block, seed)[""]
    return PathList(files.text(int(i)) for i in np.flatnonzero(val == (split == "val")))


def _check(split: str, val_share: float, block: int) -> None:
    if split not in ("train", "val", "all"):
        raise InputError(f"split {split!r}: expected train, val or all")
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: expected a share above 0 and below 1")
    if block < 1:
        raise InputError(f"block={block}: expected at least one frame")


def _validated(names: Mapping[str, Sequence[bytes]], val_share: float, block: int, seed: int) -> dict[str, np.ndarray]:
    """Of each sequence, which of its frames are for validation.

    A frame's block is its rank among the distinct names of its sequence, divided by the block's length.
    """
    block_of, blocks, frames = {}, [], 0
    for sequence, members in names.items():
        distinct, ranks = np.unique(np.array(members), return_inverse=True)
        block_of[sequence] = ranks // block
        blocks += [(sequence, number) for number in range(-(-len(distinct) // block))]
        frames += len(distinct)
    if len(blocks) < 2:
        raise InputError(f"block={block}: {frames} frames make {len(blocks)} block; expected at least 2")
    count = min(max(1, round(val_share * len(blocks))), len(blocks) - 1)
    chosen = defaultdict(list)
    for sequence, number in sorted(blocks, key=lambda b: _draw(seed, b))[:count]:
        chosen[sequence].append(number)
    return {sequence: np.isin(numbers, chosen[sequence]) for sequence, numbers in block_of.items()}


def _draw(seed: int, block: Block) -> bytes:
    return blake2b(f"{seed}/{block[0]}/{block[1]}".encode()).digest()
