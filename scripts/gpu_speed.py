"""How fast a GPU is: matrix products, FCN-8s over VGG-16 against them, and the networks that it is compared with."""

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product

import torch
import torch.nn.functional as F
from benchmark_peers import CLASSES, NETWORKS
from benchmark_peers import compare as compare_peers
from gpu_settings import Row, Settings, UnavailableError, attempt, free, milliseconds
from torch import Tensor, nn

from fcnseg.models import FCN, create_model, optimise
from fcnseg.models.summary import summarise
from fcnseg.training.precision import use_tf32

NAME = "fcn8s_vgg16"
INPUTS = 3
"""Sets of inputs that calls take in turn, so that no cache holds the next one's."""

PRODUCTS = {"bf16": torch.bfloat16, "fp16": torch.float16, "TF32": torch.float32, "fp32": torch.float32}
"""By precision, the type of the matrices."""

PRECISIONS = {"fp32": "32-true", "TF32": "32-true", "bf16": "bf16-mixed"}
"""By precision, Lightning's name of what a network is timed in."""

FORWARDS = {"training step": 3, "inference": 1, "inference, reusing": 1}
"""How many forwards' multiply-adds a call takes: the gradients by weights and by inputs cost one each."""


def ceiling(settings: Settings) -> Iterator[Row]:
    """The rate of large matrix products in every precision."""
    for precision in PRODUCTS:
        yield attempt({"precision": precision}, partial(_product, settings, precision))


def _product(settings: Settings, precision: str) -> Row:
    _prepare(settings, precision)
    size = settings.sizes.matrix
    while True:
        try:
            taken = _product_ms(settings, size, PRODUCTS[precision])
        except torch.OutOfMemoryError:
            if size <= 128:
                raise
            size //= 2
            free()
        else:
            return {"size": size, "milliseconds": taken, "tflops": 2 * size**3 / taken / 1e9}


def _product_ms(settings: Settings, size: int, dtype: torch.dtype) -> float:
    pairs = [[torch.randn(size, size, device=settings.device).to(dtype) for _ in range(2)] for _ in range(INPUTS)]
    out = torch.empty(size, size, device=settings.device, dtype=dtype)
    taken = milliseconds(lambda i: torch.mm(*pairs[i % INPUTS], out=out), settings, settings.sizes.products)
    if not out.isfinite().all():
        raise ArithmeticError("a product of random matrices is not finite")
    return taken


def _prepare(settings: Settings, precision: str) -> None:
    if precision == "TF32" and not settings.cuda:
        raise UnavailableError("TF32 needs a GPU")
    torch.manual_seed(0)
    use_tf32(precision == "TF32")


def throughput(settings: Settings) -> Iterator[Row]:
    """Training steps and inference of FCN-8s over VGG-16, channels-last, in both paddings and every precision."""
    batch = settings.sizes.batch
    for padding, precision in product(("same", "caffe"), PRECISIONS):
        whats = [("training step", batch), ("inference", batch), ("inference", 1)]
        if padding == "caffe":
            whats += [("inference, reusing", batch), ("inference, reusing", 1)]
        for what, number in whats:
            case = {"padding": padding, "precision": precision, "what": what, "batch": number}
            yield attempt(case, partial(_timed, settings, padding, precision, what, number))


def compiled(settings: Settings) -> Iterator[Row]:
    """The same by torch.compile, in bf16 with padding "same" alone, since every compilation takes its time."""
    for what in ("inference", "training step"):
        case = {"padding": "same", "precision": "bf16", "what": what, "batch": settings.sizes.batch}
        yield attempt(case, partial(_timed, settings, "same", "bf16", what, settings.sizes.batch, True))


def _timed(settings: Settings, padding: str, precision: str, what: str, batch: int, compiled: bool = False) -> Row:
    _prepare(settings, precision)
    sizes = settings.sizes
    model = copy.deepcopy(_network(padding, sizes.full_width)).to(settings.device)
    operations = 2 * FORWARDS[what] * batch * summarise(model, sizes.image).multiply_adds
    sets = [_batch(settings, batch) for _ in range(INPUTS)]
    if what == "training step":
        repeats, call = sizes.training_steps, _training_step(settings, model, precision, sets, compiled)
    else:
        network = optimise(model, PRECISIONS[precision], compile=compiled)
        del model  # the memory of its float32 weights would count
        repeats, call = sizes.inferences, _inference(network, what == "inference, reusing", sets)
    if settings.cuda:
        torch.cuda.reset_peak_memory_stats()
    taken = milliseconds(call, settings, repeats)
    if not call(0).isfinite().all():
        raise ArithmeticError("what was timed is not finite")
    if compiled and what == "inference" and network.compiled is None:
        raise RuntimeError("not compiled; the reason is in the warning above")
    rate = operations / taken / 1e9
    limit = settings.ceilings.get(precision) if what != "inference, reusing" else None
    return {
        "milliseconds": taken,
        "images_per_second": batch / taken * 1000,
        "tflops": rate if what != "inference, reusing" else None,  # it computes less than its multiply-adds
        "share": rate / limit if limit else None,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if settings.cuda else None,
    }


@cache
def _network(padding: str, width: float) -> FCN:
    """The network with random scores too: those of a new one are zeros, with which a device may be faster."""
    model = create_model(NAME, num_classes=CLASSES, padding=padding, width=width)
    for name, parameter in model.named_parameters():
        if name.startswith("score_") and name.endswith("weight"):
            nn.init.normal_(parameter, std=0.01)
    return model


def _batch(settings: Settings, number: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(number, 3, *settings.sizes.image, device=settings.device)
    masks = torch.randint(CLASSES, (number, *settings.sizes.image), device=settings.device)
    return images.to(memory_format=torch.channels_last), masks


def _training_step(
    settings: Settings, model: FCN, precision: str, sets: list[tuple[Tensor, Tensor]], compiled: bool
) -> Callable[[int], Tensor]:
    """Forward, backward and a fused step of SGD."""
    network: nn.Module = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)
    if compiled:
        network.compile(backend=settings.sizes.backend)

    def step(number: int) -> Tensor:
        images, masks = sets[number % len(sets)]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(settings.device, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        loss = F.cross_entropy(logits, masks)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _inference(network: nn.Module, reuse: bool, sets: list[tuple[Tensor, Tensor]]) -> Callable[[int], Tensor]:
    def infer(number: int) -> Tensor:
        with torch.inference_mode():
            return network(sets[number % len(sets)][0], reuse=reuse)

    return infer


def peers(settings: Settings) -> Iterator[Row]:
    """The networks of scripts/benchmark_peers.py in bf16, each in its better layout of memory."""
    for what in ("forward", "step"):
        case = {"what": what, "batch": settings.sizes.batch}
        found = attempt(case, partial(_peers, settings, what))
        yield from [case | row for row in found["rows"]] if "rows" in found else [found]


def _peers(settings: Settings, what: str) -> Row:
    _prepare(settings, "bf16")
    sizes = settings.sizes
    networks = {name: make(sizes.full_width).to(settings.device) for name, make in NETWORKS.items()}
    images, masks = _batch(settings, sizes.batch)
    rows = compare_peers(what, networks, images, masks, "bf16", sizes.rounds)
    seconds = {row["network"]: float(row["seconds"]) for row in rows}
    return {
        "rows": [
            {
                "network": row["network"],
                "layout": row["layout"],
                "milliseconds": seconds[row["network"]] * 1000,
                "images_per_second": sizes.batch / seconds[row["network"]],
                "times_plain": row["ratio"],
            }
            for row in rows
        ]
    }
