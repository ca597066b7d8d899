"""A network's form for inference alone: the same scores, sooner."""

import copy
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fcnseg.errors import InputError
from fcnseg.models.backbones import Chain
from fcnseg.models.fcn import FCN
from fcnseg.user_cache import user_cache

PRECISIONS: dict[str, torch.dtype | None] = {
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""What convolutions are computed in; None: in the network's own type."""


class OptimisedFCN(FCN):
    """What `optimise` makes of a network. It computes no gradients, and can be neither trained nor saved."""

    autocast: torch.dtype | None
    compiled: Callable[..., Tensor] | None

    def forward(self, images: Tensor, reuse: bool = False) -> Tensor:
        """As that of `FCN`."""
        with torch.no_grad(), self.in_precision(images.device.type):
            if self.compiled is None:
                return super().forward(images, reuse)
            try:
                with _frozen_weights():
                    return self.compiled(self, images)
            except Exception as error:
                scores = super().forward(images, reuse)  # raises in its turn where the images are to blame
                self.compiled = None
                reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
                warnings.warn(f"not compiled, which changes the time alone: {reason}", stacklevel=2)
                return scores

    def in_precision(self, device: str) -> AbstractContextManager:
        return torch.autocast(device, self.autocast, enabled=self.autocast is not None)

    def train(self, mode: bool = True) -> "OptimisedFCN":
        if mode:
            self._refuse()
        return super().train(mode)

    def _packed(self, dtype: str) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError("this network was optimised for inference; train or save the one that it was made of")


def optimise(model: FCN, precision: str = "32-true", compile: bool = False) -> OptimisedFCN:
    """A network's form for inference alone, in evaluation mode, as a copy that shares what it can of the weights.

    Batch normalisation becomes part of the convolutions of our own trunks, memory is laid out channels-last, and
    weights are kept in the type that they are used in, which autocast would convert them to in every call.

    Args:
        model: the network, which stays as it is; an optimised one is returned as it is.
        precision: "32-true" gives the network's own scores up to roundings (and in its own type, which may be
            float64); "bf16-mixed" or "16-mixed" computes convolutions in 16 bits, as autocast does.
        compile: by torch.compile with frozen weights, when a size is first seen: for seconds to a minute, and less
            where the user's cache folder has the kernels already. Where that fails a warning says so. Nothing is
            then reused between images with padding "caffe".

    Raises:
        InputError: for another precision.
    """
    if isinstance(model, OptimisedFCN):
        return model
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    network: Any = _sharing_copy(model).eval()
    network.__class__ = OptimisedFCN
    network.autocast, network.compiled = PRECISIONS[precision], _compiled() if compile else None
    if isinstance(network.backbone, Chain):
        fold_normalisation(network.backbone)
    if network.autocast is not None:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(network.autocast)
    return network.to(memory_format=torch.channels_last)


def fold_normalisation(chain: Chain) -> None:
    """Make batch normalisation in evaluation mode a part of the convolutions before it (Ioffe and Szegedy 2015)."""
    layers = list(chain.named_children())
    for (before, convolution), (name, layer) in pairwise(layers):
        if isinstance(layer, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            setattr(chain, before, fuse_conv_bn_eval(convolution, layer))
            delattr(chain, name)


def _sharing_copy(model: FCN) -> FCN:
    """A copy with parameters of its own, whose values are the model's."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    shared |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    return copy.deepcopy(model, shared)


def _compiled() -> Callable[..., Tensor]:
    # torch's own choice is the temporary folder.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "kernels"))
    return torch.compile(FCN.forward)


def _frozen_weights() -> AbstractContextManager:
    """Compile with weights as constants, in the order that the kernels read them; `options` of torch.compile do not."""
    import torch._inductor.config as inductor

    return inductor.patch(freezing=True)
