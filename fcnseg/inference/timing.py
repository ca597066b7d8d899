"""What a benchmark times: the forms and precisions of a network, and what one call of it does."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.models import FCN, optimise
from fcnseg.models.backbones import Chain
from fcnseg.models.optimised import PRECISIONS


def plain(model: FCN, precision: str) -> nn.Module:
    """As it was built or loaded."""
    return model


def channels_last(model: FCN, precision: str) -> nn.Module:
    """With the weights in the layout of memory that training uses."""
    return model.to(memory_format=torch.channels_last)


def checkpointed(model: FCN, precision: str) -> nn.Module:
    """As with trainer.checkpoint_activations."""
    if isinstance(model.backbone, Chain):
        model.backbone.checkpoint_activations = True
    return channels_last(model, precision)


def compiled_training(model: FCN, precision: str) -> nn.Module:
    """As with trainer.compile."""
    model.compile()
    return channels_last(model, precision)


FORMS: dict[str, Callable[[FCN, str], nn.Module]] = {
    "plain": plain,
    "channels_last": channels_last,
    "checkpointed": checkpointed,
    "compiled_training": compiled_training,
    "optimised": optimise,  # what `Predictor` and evaluation use
    "compiled": partial(optimise, compile=True),
}
"""By name, what makes of a model, which it may change, and a precision the network that is timed; on the device."""

FOR_INFERENCE = ("optimised", "compiled")
"""Forms that cannot be trained."""


def forward(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """Inference as `Predictor` and evaluation do it, up to the logits."""
    with torch.inference_mode():
        network(images, reuse=True)


def step(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """Forward and backward with cross-entropy, without the optimiser."""
    F.cross_entropy(network(images), masks).backward()


WHAT: dict[str, Callable[[nn.Module, Tensor, Tensor], None]] = {"forward": forward, "step": step}
"""By name, what one call does with (N, C, H, W) normalised images and (N, H, W) masks."""

FORWARDS = {"forward": 1, "step": 3}
"""How many forwards' multiply-adds a call takes: the gradients by weights and by inputs cost one each."""


@dataclass(frozen=True)
class Case:
    """What one call is of.

    Attributes:
        form, precision, what: names in `FORMS`, `PRECISIONS` and `WHAT`.
        size: (height, width) of the images in pixels.
        batch: how many they are.
    """

    form: str
    precision: str
    what: str
    size: tuple[int, int]
    batch: int


def random_batch(case: Case, channels: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) float32 images and (N, H, W) int64 masks, the same whenever they are drawn."""
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randn(case.batch, channels, *case.size, generator=generator, device=device)
    return images, torch.randint(classes, (case.batch, *case.size), generator=generator, device=device)


def call(case: Case, network: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Carry out one call; returns the seconds that it took until the device was done.

    Raises:
        InputError: for images that are too few and too small to train on with batch normalisation.
    """
    dtype = PRECISIONS[case.precision]
    with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        _finish(images.device)
        began = time.perf_counter()
        try:
            WHAT[case.what](network, images, masks)
        except ValueError as error:
            raise InputError(f"what={case.what}, size={list(case.size)}, batch={case.batch}: {error}") from error
        _finish(images.device)
        return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch, oneDNN or CUDA's libraries say that there is no more memory.

    Sizes whose bytes cannot be counted in 64 bits are among them.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "ALLOC_FAILED", "verflow")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
