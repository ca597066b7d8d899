"""How gradients travel between the processes of a training."""

from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from fcnseg.errors import InputError

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
