"""Checkpoints that each process writes its own share of, and reads its own share from: torch's distributed ones.

Which process writes what, and which file a process reads what from after their number has changed, is worked out by
`torch.distributed.checkpoint`; no process has more in memory than its share, and one tensor of it once more.
"""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.futures import Future
from torch.optim import Optimizer

from fcnseg.atomic import remove, write_through
from fcnseg.errors import InputError, vanished
from fcnseg.models.pickles import read_torch
from fcnseg.models.sharded import (
    HEAD,
    OFFSETS,
    OPTIMIZERS,
    SHARDS,
    WEIGHTS,
    by_name,
    pieces_of,
    put_together,
    read_head,
    taken_apart,
)
from fcnseg.training.checkpoints import AtomicCheckpointIO, require_finite, write

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names that safetensors has for types of values."""

Written = tuple[str, int]
"""Name and bytes of a shard."""


def save_sharded(checkpoint: Mapping[str, Any], path: Path, files: AtomicCheckpointIO, group: Any = None) -> None:
    """Write a checkpoint as a folder, every process its share; all of them must call this.

    It is written beside its target, forced to the disk, read back by its headers, and then put in the target's place.

    Args:
        checkpoint: of Lightning, with tensors that are divided over the processes.
        path: of the folder; all processes must reach it.
        files: keeps the checkpoint before.
        group: the processes; None: those of the training.

    Raises:
        InputError: in all processes, what went wrong in one of them.
    """
    head, tensors = taken_apart(checkpoint)
    temporary = path.with_name(f".{path.name}")

    def begin() -> None:
        files.require_home(path)
        remove(temporary)  # of a job that was killed
        temporary.mkdir(parents=True)

    def end(shards: dict[str, int]) -> None:
        write({**head, SHARDS: shards}, temporary / HEAD)
        write_through(temporary / HEAD)
        write_through(temporary)
        files.put(temporary, path)

    try:
        dcp.save(dict(tensors), storage_writer=_Writer(temporary, begin, end), process_group=group)
    except CheckpointException as error:
        cause = _first(error)
        if isinstance(cause, OSError):
            raise InputError(vanished(cause, path) or f"{path}: {cause.strerror}") from cause
        raise cause from None


def _first(error: CheckpointException) -> BaseException:
    """What went wrong in the first of the processes in which something did."""
    return error.failures[min(error.failures)][0]


class _Writer(HuggingFaceStorageWriter):
    """Writes tensor by tensor into one safetensors file for each process; torch's own has all of them twice in memory.

    Args:
        folder: of the files.
        begin: is called by the first process, before any of them writes.
        end: is called by it when all have written, with the files' names and bytes.
    """

    def __init__(self, folder: Path, begin: Callable[[], None], end: Callable[[dict[str, int]], None]) -> None:
        super().__init__(str(folder), save_distributed=True)
        self.folder, self.begin, self.end = folder, begin, end

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self.begin()
        return super().prepare_global_plan(plans)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[Written]]:  # type: ignore[override]
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: not there on {socket.gethostname()}; sharded checkpoints need a folder that all "
                "machines share, or trainer.strategy.sharded_checkpoints=false"
            )
        pieces = {
            item.index.fqn: (item.tensor_data.chunk.offsets, planner.resolve_data(item))
            for item in plan.items
            if item.tensor_data is not None and item.tensor_data.chunk.sizes.numel()
        }
        path = self.folder / f"shard-{plan.storage_data['shard_index']:05}.safetensors"
        done: Future[list[Written]] = Future()
        done.set_result([(path.name, write_pieces(path, pieces))] if pieces else [])
        return done

    def finish(self, metadata: Metadata, results: list[list[Written]]) -> None:  # type: ignore[override]
        self.end(dict(chain.from_iterable(results)))


def write_pieces(path: Path, pieces: Mapping[str, tuple[Sequence[int], Any]]) -> int:
    """Write pieces of tensors, each with the place of its first value in the whole; returns the file's bytes.

    Raises:
        InputError: for weights that are not finite.
        OSError: when the disk is full, for instance, of which safetensors' own writer says nothing.
    """
    places = {name: {OFFSETS[1]: list(place)} for name, (place, _) in pieces.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", OFFSETS[0]: json.dumps(places)}}
    end = 0
    for name, (_, values) in pieces.items():
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": DTYPES[values.dtype], "shape": list(values.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (_, values) in pieces.items():
            if name.startswith(WEIGHTS):
                require_finite({WEIGHTS: {name.partition("/")[2]: values}}, path.parent)
            file.write(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    write_through(path)
    return 8 + len(text) + end


def load_sharded(folder: Path, module: nn.Module, optimizers: Sequence[Optimizer], strict: bool) -> dict[str, Any]:
    """Read each process's share of weights and optimisers' state into them; all processes must call this.

    Returns:
        The rest of the checkpoint.

    Raises:
        InputError: when it is damaged or incomplete, or of other tensors.
    """
    head = read_head(folder)
    saved = pieces_of(folder, head)
    states = [get_optimizer_state_dict(module, optimizer) for optimizer in optimizers]
    _, tensors = taken_apart({WEIGHTS: get_model_state_dict(module), OPTIMIZERS: states})
    if missing := sorted(tensors.keys() - saved.keys()):
        raise InputError(f"{folder}: {missing[0]} is missing")
    try:
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise InputError(f"{folder}: {str(_first(error)).splitlines()[0]}") from error
    found = put_together(folder, head, tensors)
    set_model_state_dict(module, found.pop(WEIGHTS), options=StateDictOptions(strict=strict))
    for optimizer, state in zip(optimizers, found.pop(OPTIMIZERS), strict=True):
        set_optimizer_state_dict(module, optimizer, state)
    return found


def load_whole(path: Path, module: nn.Module, optimizers: Sequence[Optimizer], strict: bool) -> dict[str, Any]:
    """The same from a checkpoint in one file, which each process leaves on the disk but for its share.

    Lightning's own takes the numbers of an optimiser's parameters for their order in the network. They are that in its
    groups.
    """
    found: dict[str, Any] = read_torch(path, mmap=True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=strict)
    set_model_state_dict(module, found.pop(WEIGHTS), options=options)
    for optimizer, state in zip(optimizers, found.pop(OPTIMIZERS), strict=True):
        named = by_name(state, get_optimizer_state_dict(module, optimizer))
        set_optimizer_state_dict(module, optimizer, named, options=options)
    return found
