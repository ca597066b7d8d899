"""Splitting frames into training and validation where a dataset has no official split."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

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
    if split not in ("train", "val", "all"):
        raise InputError(f"split {split!r}: expected train, val or all")
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: expected a share above 0 and below 1")
    if block < 1:
        raise InputError(f"block={block}: expected at least one frame")
    if split == "all":
        return list(range(len(frames)))
    block_of = _blocks(frames, block)
    blocks = sorted(set(block_of.values()), key=lambda b: _draw(seed, b))
    if len(blocks) < 2:
        raise InputError(f"block={block}: {len(block_of)} frames make {len(blocks)} block; expected at least 2")
    count = min(max(1, round(val_share * len(blocks))), len(blocks) - 1)
    val = set(blocks[:count])
    return [i for i, frame in enumerate(frames) if (block_of[frame] in val) == (split == "val")]


def split_files(
    files: Iterable[Path], split: str, *, val_share: float = 0.1, block: int = 50, seed: int = 0
) -> PathList:
    """The files of a split, by `split_blocks`, where all of them are one sequence."""
    files = PathList.of(files)
    frames = [("", stem(name)) for _, names in files.runs() for name in names]
    return PathList(files.text(i) for i in split_blocks(frames, split, val_share=val_share, block=block, seed=seed))


def _blocks(frames: Sequence[tuple[str, str]], block: int) -> dict[tuple[str, str], Block]:
    """The block of every distinct frame: its sequence, and its rank among the names divided by the block's length."""
    names = defaultdict(set)
    for sequence, name in frames:
        names[sequence].add(name)
    return {
        (sequence, name): (sequence, rank // block)
        for sequence, members in names.items()
        for rank, name in enumerate(sorted(members))
    }


def _draw(seed: int, block: Block) -> bytes:
    return blake2b(f"{seed}/{block[0]}/{block[1]}".encode()).digest()
