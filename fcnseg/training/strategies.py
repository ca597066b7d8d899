"""How the weights of a training lie on its processes, and how gradients travel between them."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from fcnseg.errors import InputError
from fcnseg.models import FCN
from fcnseg.models.loading import rebuild
from fcnseg.models.product import ProductConv2d
from fcnseg.models.sharded import is_sharded
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining
from fcnseg.training.sharding import load_sharded, load_whole, save_sharded

COMPRESSIONS = {"none": None, "bfloat16": bf16_compress_hook}


class DataParallel(DDPStrategy):
    """Lightning's data-parallel training, with compressed gradients on any device.

    Every process has the whole network. Gradients are averaged bucket by bucket, each as soon as its part of the
    backward pass is done, while the pass goes on; of accumulated ones only the sums (Li et al., "PyTorch Distributed",
    VLDB 2020).

    Args:
        compress: "none", or "bfloat16": gradients travel in half the bytes, with 8 bits of mantissa instead of 24;
            weights stay in float32, and are no longer those of one process.
        options: those of `DDPStrategy` and `torch.nn.parallel.DistributedDataParallel`, such as `bucket_cap_mb`,
            `gradient_as_bucket_view` and `static_graph`.

    Raises:
        InputError: for another compression; and when training starts, for a static graph with accumulated gradients,
            where torch 2.15 ends in an internal error.
    """

    def __init__(self, *, compress: str = "none", **options: Any) -> None:
        if compress not in COMPRESSIONS:
            raise InputError(f"trainer.strategy.compress={compress}: expected {' or '.join(COMPRESSIONS)}")
        super().__init__(**options)
        self.compress = compress

    def configure_ddp(self) -> None:
        assert self.lightning_module is not None
        count = self.lightning_module.trainer.accumulate_grad_batches
        if self._ddp_kwargs.get("static_graph") and count > 1:
            raise InputError(
                f"trainer.strategy.static_graph=true: does not go with gradients of {count} micro-batches; expected "
                "false, or no data.device_batch_size and trainer.accumulate_grad_batches=1"
            )
        super().configure_ddp()
        hook = COMPRESSIONS[self.compress]
        if hook is not None:  # Lightning's own ddp_comm_hook is for GPUs alone
            assert isinstance(self.model, torch.nn.parallel.DistributedDataParallel)
            self.model.register_comm_hook(None, hook)


class FullySharded(ModelParallelStrategy):
    """Every process has its share of weights, gradients and the optimiser's state (torch's FSDP2 through Lightning).

    A layer's weights are gathered from all processes while it computes. A run goes on from its checkpoints on any
    number of processes, with `trainer=ddp` or on one too, and everything else reads them.

    Args:
        sharded_checkpoints: a folder into which every process writes its share, and no process has more than that in
            memory; all machines must share it. False: one plain file, which the first process writes, with everything
            in its memory meanwhile.
        options: those of `ModelParallelStrategy`, such as `process_group_backend`.
    """

    def __init__(self, *, sharded_checkpoints: bool = True, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=sharded_checkpoints, **options)
        self._beside: Any = None

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None) -> None:
        if not self._save_distributed_checkpoint:
            ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)
            return
        path, files = Path(self.broadcast(filepath)), self.checkpoint_io
        assert isinstance(files, AtomicCheckpointIO)
        if isinstance(files, BesideTraining):
            # A group of its own: what the processes agree on in the thread must not mix with what they train by.
            group = self._beside = self._beside or torch.distributed.new_group(backend="gloo")
            files.beside(checkpoint, lambda snapshot: save_sharded(snapshot, path, files, group))
        else:
            save_sharded(checkpoint, path, files)

    def teardown(self) -> None:
        self.checkpoint_io.teardown()  # which Lightning leaves out here: a checkpoint may still be being written
        super().teardown()

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(self.broadcast(checkpoint_path))
        assert self.model is not None
        assert self.lightning_module is not None
        load = load_sharded if is_sharded(path) else load_whole
        return load(path, self.model, self.optimizers, self.lightning_module.strict_loading)


def shard(model: FCN, mesh: DeviceMesh) -> None:
    """Divide a network over processes, its large convolutions each by itself, in place; nothing if it is divided.

    Where layers are computed as a product, on a processor, they return views, whose gradients FSDP2 would lose at the
    ReLU in place; they stay with what is left.
    """
    if isinstance(model, FSDPModule):
        return
    model.to(memory_format=torch.contiguous_format)  # the only one that FSDP2 takes
    views = ProductConv2d if mesh.device_type == "cpu" else ()
    for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d) and not isinstance(m, views)]:
        if layer.weight.numel() >= LARGE:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in ("logits", "each_network"):
        register_fsdp_forward_method(model, name)


LARGE = 2**18
"""Weights of a layer that is gathered by itself."""


def whole(model: FCN) -> FCN:
    """The network itself, or a copy of a divided one in the first process; every process must call this."""
    if not isinstance(model, FSDPModule):
        return model
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if torch.distributed.get_rank() > 0:
        return model
    copy = rebuild(model.spec.to_dict(), state, Path("training"), Path("training"))
    copy.provenance = model.provenance
    return copy
