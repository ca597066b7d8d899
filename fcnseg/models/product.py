"""The convolutions of the head: as matrix products, which is what they are fastest as on a processor, or as two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError

LIMIT = 2**29
"""Bytes of copied windows beyond which the convolution is left to torch, which copies none."""


class ProductConv2d(nn.Conv2d):
    """torch's convolution with stride 1 and zero padding, computed as windows times weights on a processor.

    Weights of 7x7x512x4096 are read once and in their order, where torch's convolutions first bring 400 MB of them
    into another one, in every call. The results are the same, to the last bit, in either layout, and fastest where
    weights and images are channels-last. Other devices and tracers get torch's.

    With a kernel of 1, where nothing is copied, it is a product for the sake of its gradients, too: in bfloat16 on
    processors with AMX those of torch 2.15's convolution write beyond their memory where 4096 channels become at most
    12, as in scores of CamVid's 11 classes.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self._pays(input):
            return super().forward(input)
        weights = self.weight.permute(0, 2, 3, 1).flatten(1)
        windows = _windows(input, int(self.kernel_size[0]), (int(self.padding[0]), int(self.padding[1])))
        columns = windows.flatten(3).flatten(0, 2).t()
        # Weights first: for the few outputs of one image that is 1.3 times faster than windows first.
        product = weights @ columns if self.bias is None else torch.addmm(self.bias[:, None], weights, columns)
        return product.unflatten(1, windows.shape[:3]).transpose(0, 1)

    def _pays(self, input: Tensor) -> bool:
        if input.device.type != "cpu" or torch.compiler.is_exporting() or torch.jit.is_tracing():
            return False
        if self.kernel_size == (1, 1):
            return True
        return not torch.compiler.is_compiling() and input[:, :1].numel() * self.weight[0].nbytes <= LIMIT


class LowRankConv2d(nn.Sequential):
    """A convolution whose (out, in * k * k) matrix of weights is U L: to `rank` channels, then to `out` with kernel 1.

    Truncated singular values make it of a trained layer (Girshick, Fast R-CNN, ICCV 2015, section 3.1); its parts are
    called as there, by what they are to the layer, such as fc6.L and fc6.U.
    """

    L: ProductConv2d
    U: ProductConv2d

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, rank: int) -> None:
        super().__init__()
        self.add_module("L", ProductConv2d(inputs, rank, kernel, padding=padding, bias=False))
        self.add_module("U", ProductConv2d(rank, outputs, 1))

    @property
    def padding(self) -> tuple[int, ...]:
        """That of the windows, at the ends of height and width."""
        return self.L.padding  # type: ignore[return-value]


def first_layer(
    inputs: int, outputs: int, kernel: int, padding: int, rank: int | None = None
) -> ProductConv2d | LowRankConv2d:
    """fc6, of a rank or whole.

    Raises:
        InputError: for a rank beyond the one that a whole layer has.
    """
    if rank is None:
        return ProductConv2d(inputs, outputs, kernel, padding=padding)
    if rank > (whole := min(outputs, inputs * kernel**2)):
        raise InputError(f"fc6_rank={rank}: expected at most {whole}, the rank of the whole fc6")
    return LowRankConv2d(inputs, outputs, kernel, padding, rank)


def _windows(x: Tensor, kernel: int, padding: tuple[int, int]) -> Tensor:
    """(N, C, H, W) to the (N, h, w, kernel, kernel, C) values that each output sees."""
    x = x.permute(0, 2, 3, 1)
    if any(padding):
        rows, columns = padding
        x = F.pad(x, (0, 0, columns, columns, rows, rows))
    return x.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(0, 1, 2, 4, 5, 3)
