"""A trained fc6 as two smaller convolutions: most of a VGG's weights and a good part of its time are in that layer.

from fcnseg.models.low_rank import responses
small = fcnseg.factorise(model, rank=512)
small = fcnseg.factorise(model, rank=512, spectrum=responses(model, batches))   # by what fc6 says of images
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.models.build import build
from fcnseg.models.fcn import FCN
from fcnseg.models.product import LowRankConv2d


@dataclass(frozen=True)
class Spectrum:
    """In which directions of its `out` channels the outputs of an fc6 vary, and by how much.

    Attributes:
        values: (out,) the squared singular values, largest first.
        basis: (out, out) orthonormal columns, the directions.
        centre: (out,) what the outputs vary around.
    """

    values: Tensor
    basis: Tensor
    centre: Tensor

    def lost(self, rank: int) -> float:
        """The share of the sum of squares that an fc6 of this rank leaves out, 0 to 1."""
        total = float(self.values.sum())
        return float(self.values[rank:].sum()) / total if total else 0.0

    @classmethod
    def of(cls, products: Tensor, centre: Tensor) -> "Spectrum":
        """Of an (out, out) matrix of products; what is below zero by rounding counts as zero."""
        values, basis = torch.linalg.eigh(products.double())
        return cls(values.flip(0).clamp(min=0).float(), basis.flip(1).float(), centre)


def singular_values(model: FCN) -> Spectrum:
    """The spectrum of fc6's weights alone, its singular value decomposition.

    By the eigenvectors of W W^T: of VGG-16's (4096, 25088) weights that is one product and a 4096 x 4096 matrix, all
    ranks at once and to rounding. torch.linalg.svd would compute 25088-long vectors as well; torch.svd_lowrank takes
    half the time at rank 512, but is approximate and random, and tells nothing of what is left out.

    Raises:
        InputError: for a model whose fc6 has a rank already.
    """
    weights, bias = _whole(model)
    return Spectrum.of(weights @ weights.T, bias)


@torch.inference_mode()
def responses(model: FCN, batches: Iterable[Tensor]) -> Spectrum:
    """The spectrum of fc6's outputs on images, for factors that keep what images make vary.

    Their principal components (Zhang, Zou, He and Sun, "Accelerating Very Deep Convolutional Networks", PAMI 2016,
    section 3.1): of all matrices of a rank, these leave the least squared error of fc6 on these images, as the singular
    values do where inputs vary equally in all directions.

    Args:
        batches: (N, C, h, w) images in file values. Every place on the grid of fc6 is a sample, of which there should
            be several times as many as the rank.

    Raises:
        InputError: for a model whose fc6 has a rank already, or no images.
    """
    channels = len(_whole(model)[0])
    products, total, count = torch.zeros(channels, channels), torch.zeros(channels), 0
    near: Tensor | None = None  # the mean, which takes most of the digits if it is in the products

    def add(layer: torch.nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        nonlocal count, near
        samples = outputs.movedim(1, -1).flatten(0, -2).float().cpu()
        near = samples.mean(0) if near is None else near
        samples = samples - near
        products.addmm_(samples.T, samples)
        total.add_(samples.sum(0))
        count += len(samples)

    training, handle = model.training, model.fc6.register_forward_hook(add)
    try:
        model.eval()
        for images in batches:
            model.logits(images.to(model.mean.device))
    finally:
        handle.remove()
        model.train(training)
    if near is None:
        raise InputError("batches: expected one image at least")
    centre = total / count
    return Spectrum.of(products - count * torch.outer(centre, centre), near + centre)


@torch.no_grad()
def factorise(model: FCN, rank: int, spectrum: Spectrum | None = None, verbose: bool = True) -> FCN:
    """A copy of a trained model whose fc6 is a convolution to `rank` channels and one of kernel 1 from there.

    Of the full rank its scores are the model's up to roundings. Below it they differ, which a short training makes up
    for in part: `fcnseg train model.fc6_rank=RANK model.weights=FOLDER`, where the copy was saved.

    Args:
        model: with a whole fc6; it stays as it is.
        rank: channels between the two, from 1 to those of fc6.
        spectrum: `responses` of images; by default the weights' own `singular_values`.
        verbose: print what is left out.

    Returns:
        The copy, on the model's device, in evaluation mode, with `fc6_rank` in its spec. Its provenance tells the
        share that was left out.

    Raises:
        InputError: for a rank out of range, or a model whose fc6 has one already.
    """
    weights, bias = _whole(model)
    small = build(replace(model.spec, fc6_rank=rank))
    spectrum = spectrum or singular_values(model)
    basis, centre = spectrum.basis[:, :rank], spectrum.centre
    fc6 = small.fc6
    assert isinstance(fc6, LowRankConv2d)
    state = {name: values for name, values in model.state_dict().items() if not name.startswith("fc6.")}
    state["fc6.L.weight"] = (basis.T @ weights).view_as(fc6.L.weight)
    state["fc6.U.weight"] = basis.reshape(fc6.U.weight.shape)
    state["fc6.U.bias"] = centre + basis @ (basis.T @ (bias - centre))
    small.load_state_dict(state)
    said = f"fc6 of rank {rank}, {100 * spectrum.lost(rank):.2g} % of its squares left out"
    source = model.provenance.get("weights_source")
    small.provenance = model.provenance | {"weights_source": f"{source}, {said}" if source else said}
    if verbose:
        before, after = (sum(p.numel() for p in layer.parameters()) for layer in (model.fc6, fc6))
        print(f"{said}: {after / 1e6:.3g} million weights instead of {before / 1e6:.3g} million")
    return small.to(model.mean.device).eval()


def _whole(model: FCN) -> tuple[Tensor, Tensor]:
    """The (out, in * k * k) weights and (out,) biases of an fc6 that is one convolution, in float32 on the CPU."""
    if isinstance(model.fc6, LowRankConv2d):
        raise InputError(f"fc6_rank={model.spec.fc6_rank}: fc6 has been factorised; expected a model with a whole one")
    weight, bias = (model.get_parameter(f"fc6.{name}").detach().cpu().float() for name in ("weight", "bias"))
    return weight.flatten(1), bias
