"""Checkpoints in a folder: the share of the tensors that each process held, in a file of its own.

`HEAD` is a file of torch.save with everything but the tensors, and with names and sizes of the others. These are
safetensors, in the layout of torch's distributed checkpoints (`torch.distributed.checkpoint.HuggingFaceStorageWriter`):
each has pieces of tensors, cut along their first dimension, and tells in its header where each of them begins. So no
file but the head is a pickle, and the head goes through `read_torch` as every other pickle does.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.models.pickles import read_torch

HEAD, SHARDS = "head.ckpt", "shards"
"""The file that is read first, and its entry with the bytes of the other files by their names."""

OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"
"""Where torch's layout has the place of a piece in its tensor."""

WEIGHTS, OPTIMIZERS = "state_dict", "optimizer_states"
"""What of a checkpoint holds tensors: entries of Lightning's, and what names in shards begin with."""

MOST_OF_HEADER = 2**24
"""Bytes of a shard's header; that of 2000 tensors with Adam's state has about 1 MB."""


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor, from `begins` on, in one of the files."""

    file: Path
    begins: int
    rows: int


def is_sharded(path: str | Path) -> bool:
    """Whether this is the folder of a checkpoint."""
    return (Path(path) / HEAD).is_file()


def files_of(path: str | Path) -> list[Path]:
    """The file of a checkpoint, or those that one in a folder is made of."""
    return [Path(path, name) for name in (*read_head(Path(path))[SHARDS], HEAD)] if is_sharded(path) else [Path(path)]


def read_checkpoint(
    path: str | Path, what: str = "no weights that can be read without executing code", optimizers: bool = True
) -> Any:
    """What a checkpoint holds, on the CPU, whether it is one file or a folder of shards.

    Args:
        path: of the file or folder.
        what: to say of a file that cannot be read.
        optimizers: whether the optimisers' state of a folder is wanted too, which is twice the weights with Adam.

    Raises:
        InputError: when it is missing, damaged or incomplete, or needs code to be executed.
    """
    if not is_sharded(path):
        return read_torch(path, what)
    folder = Path(path)
    head = read_head(folder)
    pieces = pieces_of(folder, head)
    wanted = [name for name in pieces if optimizers or name.startswith(f"{WEIGHTS}/")]
    tensors = {name: _joined(name, pieces[name]) for name in wanted}
    whole = put_together(folder, head, tensors)
    try:
        whole[OPTIMIZERS] = [by_number(state) for state in whole[OPTIMIZERS]] if optimizers else []
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / HEAD}: its optimiser has state of no parameter") from error
    return whole


def read_head(folder: Path) -> dict[str, Any]:
    """The head of a sharded checkpoint.

    Raises:
        InputError: when it is damaged, or is no such head.
    """
    head = read_torch(folder / HEAD, "no head of a sharded checkpoint")
    shards = head.get(SHARDS) if isinstance(head, dict) else None
    if not isinstance(shards, dict) or not all(
        isinstance(name, str) and re.fullmatch(r"[\w-]+\.safetensors", name, re.ASCII) and isinstance(size, int)
        for name, size in shards.items()
    ):
        raise InputError(f"{folder / HEAD}: no head of a sharded checkpoint; expected names and sizes of its files")
    return head


def pieces_of(folder: Path, head: Mapping[str, Any]) -> dict[str, list[Piece]]:
    """The pieces that each tensor is made of, in their order, by the shards' headers alone.

    Raises:
        InputError: when a shard is missing, damaged or left over from elsewhere, or a tensor is incomplete.
    """
    if surplus := {path.name for path in folder.glob("*.safetensors")} - set(head[SHARDS]):
        raise InputError(f"{folder / min(surplus)}: is no file of this checkpoint; expected {len(head[SHARDS])} shards")
    found: defaultdict[str, list[Piece]] = defaultdict(list)
    kinds: defaultdict[str, set[Any]] = defaultdict(set)
    for file, size in ((folder / name, size) for name, size in head[SHARDS].items()):
        _require_size(file, size)
        try:
            with safe_open(file, framework="pt") as shard:
                places = json.loads(shard.metadata()[OFFSETS[0]])
                for name in shard.keys():  # noqa: SIM118
                    values, (begins, *others) = shard.get_slice(name), places[name][OFFSETS[1]]
                    rows, *shape = values.get_shape()
                    if any(others) or rows < 1:
                        raise ValueError("pieces are rows of a tensor")
                    kinds[name].add((values.get_dtype(), *shape))
                    found[name].append(Piece(file, begins, rows))
        except Exception as error:  # whatever a damaged header leads to
            raise InputError(f"{file}: no shard of a checkpoint, or damaged") from error
    for name, pieces in found.items():
        pieces.sort(key=lambda piece: piece.begins)
        ends = [0, *(piece.begins + piece.rows for piece in pieces)]
        if len(kinds[name]) > 1 or [piece.begins for piece in pieces] != ends[:-1]:
            raise InputError(f"{folder}: {name} is not complete; expected pieces that follow one another")
    return dict(found)


def _require_size(file: Path, size: int) -> None:
    if not file.is_file():
        raise InputError(f"{file}: no such file; the checkpoint is not complete")
    with file.open("rb") as content:
        header = int.from_bytes(content.read(8), "little")
    if file.stat().st_size != size or header > min(size, MOST_OF_HEADER):
        raise InputError(f"{file}: no shard of a checkpoint, or damaged; expected {size} bytes")


def _joined(name: str, pieces: list[Piece]) -> Tensor:
    """A whole tensor out of its pieces."""
    parts = []
    for piece in pieces:
        with safe_open(piece.file, framework="pt") as shard:
            parts.append(shard.get_tensor(name))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def taken_apart(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What goes into the head, and what goes into shards: tensors of one dimension or more, by a name of parts.

    Args:
        checkpoint: of Lightning, in which the optimisers' state is by the parameters' names.
    """
    head, tensors = dict(checkpoint), {}
    head[WEIGHTS], weights = _divided(checkpoint[WEIGHTS])
    tensors.update({f"{WEIGHTS}/{name}": value for name, value in weights.items()})
    head[OPTIMIZERS] = []
    for number, optimizer in enumerate(checkpoint.get(OPTIMIZERS, [])):
        states = {}
        for parameter, state in optimizer["state"].items():
            states[parameter], values = _divided(state)
            prefix = f"{OPTIMIZERS}/{number}/{parameter}"
            tensors.update({f"{prefix}/{name}": value for name, value in values.items()})
        head[OPTIMIZERS].append({**optimizer, "state": states})
    return head, tensors


def _divided(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.dim()}
    return {name: value for name, value in values.items() if name not in tensors}, tensors


def put_together(folder: Path, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The checkpoint again that was taken apart; some of its tensors may be left out.

    Raises:
        InputError: naming `folder`, where head and tensors are not of one checkpoint.
    """
    try:
        whole = {key: value for key, value in head.items() if key != SHARDS}
        whole[WEIGHTS] = dict(head[WEIGHTS])
        whole[OPTIMIZERS] = [
            {**optimizer, "state": {name: dict(state) for name, state in optimizer["state"].items()}}
            for optimizer in head[OPTIMIZERS]
        ]
        for place, value in tensors.items():
            kind, *names = place.split("/")
            if kind == WEIGHTS:
                whole[WEIGHTS]["/".join(names)] = value
            else:
                number, parameter, name = names
                whole[OPTIMIZERS][int(number)]["state"][parameter][name] = value
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: head and shards are not of one checkpoint") from error
    return whole


def by_number(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state with numbers for the parameters' names, in the order of its groups, as torch's own has."""
    numbers = {name: number for number, name in enumerate(_parameters(optimizer))}
    return _renamed(optimizer, numbers)


def by_name(optimizer: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round: with the names that are at the same places in the groups of `like`."""
    return _renamed(optimizer, dict(zip(_parameters(optimizer), _parameters(like), strict=True)))


def _parameters(optimizer: Mapping[str, Any]) -> list[Any]:
    return list(chain.from_iterable(group["params"] for group in optimizer["param_groups"]))


def _renamed(optimizer: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [names[each] for each in group["params"]]} for group in optimizer["param_groups"]]
    return {"state": {names[each]: state for each, state in optimizer["state"].items()}, "param_groups": groups}
