"""Measuring networks on this machine: latency, throughput, memory and arithmetic, by size, batch, precision and form.

from fcnseg.inference.benchmark import Settings, benchmark
measured = benchmark({"mine": model}, Settings(size=[(360, 480)], batch=[1, 4]))
measured.to_dict()["rows"]
"""

import copy
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor, nn

from fcnseg.errors import InputError
from fcnseg.inference.device import default_device
from fcnseg.inference.footprint import Footprints
from fcnseg.inference.measured import Benchmark, Row, machine_facts
from fcnseg.inference.timing import (
    FOR_INFERENCE,
    FORMS,
    FORWARDS,
    PRECISIONS,
    WHAT,
    Case,
    call,
    is_out_of_memory,
    random_batch,
)
from fcnseg.models import FCN
from fcnseg.models.summary import summarise

OUT_OF_MEMORY = "out of memory"

T = TypeVar("T")

_Batches = dict[tuple[int, int], tuple[tuple[Tensor, Tensor] | None, str]]
"""Images and masks, or why there are none, by the number of channels and of classes."""


@dataclass(frozen=True)
class Settings:
    """What is measured: every combination of the lists.

    Attributes:
        size: (height, width) of images, in pixels.
        batch: images of one call.
        precision, form, what: names in `PRECISIONS`, `FORMS` and `WHAT` of `fcnseg.inference.timing`.
        rounds: calls of each that are timed, after one that warms up.
        threads: that torch computes with on a processor; its own choice by default.
        memory: whether memory is measured, which on a processor takes one more call, in a process of its own.

    Raises:
        InputError: for an unknown name or a number that is not positive.
    """

    size: Sequence[tuple[int, int]] = ((360, 480),)
    batch: Sequence[int] = (1,)
    precision: Sequence[str] = ("32-true",)
    form: Sequence[str] = ("plain",)
    what: Sequence[str] = ("forward",)
    rounds: int = 5
    threads: int | None = None
    memory: bool = True

    def __post_init__(self) -> None:
        for name, known in (("precision", PRECISIONS), ("form", FORMS), ("what", WHAT)):
            for value in getattr(self, name):
                if value not in known:
                    raise InputError(f"{name}={value}: expected one of {', '.join(known)}")
        if "step" in self.what and (frozen := [form for form in self.form if form in FOR_INFERENCE]):
            raise InputError(f"form={frozen[0]}: is for inference alone; expected what=forward")
        for size in self.size:
            if len(size) != 2 or not all(map(_is_positive, size)):
                raise InputError(f"size={list(size)}: expected a height and a width in pixels, such as [360,480]")
        counts = [("batch", value) for value in self.batch] + [("rounds", self.rounds)]
        for name, count in [*counts, *([] if self.threads is None else [("threads", self.threads)])]:
            if not _is_positive(count):
                raise InputError(f"{name}={count}: expected a whole number from 1 on")
        for name in ("size", "batch", "precision", "form", "what"):
            if not getattr(self, name):
                raise InputError(f"{name}=[]: expected one value at least")

    @property
    def groups(self) -> list[tuple[str, tuple[int, int], int]]:
        """What, size and batch of all that is compared in the same rounds."""
        return list(product(self.what, [(height, width) for height, width in self.size], self.batch))

    @property
    def calls(self) -> int:
        """Of each model: how often `benchmark` calls `advance`."""
        return len(self.groups) * len(self.form) * len(self.precision) * (self.rounds + 1)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def benchmark(
    models: Mapping[str, FCN],
    settings: Settings,
    *,
    device: str | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Benchmark:
    """Measure models side by side.

    All that have what, size and batch in common take turns: every round calls each once, so that a machine that
    becomes faster or slower is so for all of them. They are in the device's memory together.

    Args:
        models: by the names that the rows shall have; copies of them are measured.
        settings: what is measured.
        device: "cpu", "cuda", ...; the first GPU, or else the CPU, by default.
        advance: called `settings.calls` times for each model.

    Returns:
        A row for each model in each case; where a case has no memory, its row says so and the others go on.

    Raises:
        InputError: for a device that is not there, or no models.
    """
    if not models:
        raise InputError("model=[]: expected one model at least")
    where = default_device(device)
    on_processor = settings.memory and where.type == "cpu"
    with _threads(settings.threads), Footprints() if on_processor else nullcontext() as footprints:
        forms = list(product(models.items(), settings.form, settings.precision))
        networks = [_Network(name, model, form, precision) for (name, model), form, precision in forms]
        for network in networks:
            network.place(where)
        rows: list[Row] = []
        for group in settings.groups:
            cases = [_Trial(network, Case(network.form, network.precision, *group)) for network in networks]
            _measure(cases, settings, where, footprints, advance)
            rows += [trial.row() for trial in cases]
        return Benchmark(machine_facts(where), tuple(rows))


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _attempt(job: Callable[[], T]) -> tuple[T | None, str]:
    """What the job returns and "", or None and why there is nothing where memory was too little for it."""
    try:
        return job(), ""
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # of what the error held on to
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None, OUT_OF_MEMORY


@dataclass
class _Network:
    """A model in one form and precision."""

    name: str
    model: FCN
    form: str
    precision: str
    module: nn.Module | None = None
    problem: str = ""

    def place(self, device: torch.device) -> None:
        make = FORMS[self.form]
        self.module, self.problem = _attempt(lambda: make(copy.deepcopy(self.model).to(device).eval(), self.precision))


@dataclass
class _Trial:
    """A network in one case, and what has been measured of it so far."""

    network: _Network
    case: Case
    problem: str = ""
    memory: int | None = None
    gflop: float | None = None
    seconds: list[float] = field(default_factory=list)

    def row(self) -> Row:
        spec = self.network.model.spec
        about = (self.network.name, spec.padding, self.case)
        if self.problem:
            return Row(*about, gflop=self.gflop, problem=self.problem)
        return Row(*about, tuple(self.seconds), self.memory, self.gflop)


def _measure(
    trials: Sequence[_Trial],
    settings: Settings,
    device: torch.device,
    footprints: Footprints | None,
    advance: Callable[[], None],
) -> None:
    """Let the trials of a group take turns. Memory comes first: what has none ends a process of its own."""
    for trial in trials:
        trial.problem = trial.network.problem
        trial.gflop, problem = _attempt(partial(_gflop, trial))
        trial.problem = trial.problem or problem
        if footprints is not None and not trial.problem:
            footprint = footprints(trial.network.model.spec, trial.case)
            trial.memory = footprint.bytes
            trial.problem = OUT_OF_MEMORY if footprint.out_of_memory else ""
    batches: _Batches = {}
    for turn in range(settings.rounds + 1):
        for trial in trials:
            if not trial.problem:
                batch = _batch(batches, trial, device)
                if batch is not None:
                    _take_turn(trial, batch, turn, settings.memory)
            advance()


def _gflop(trial: _Trial) -> float:
    case = trial.case
    multiply_adds = summarise(trial.network.model, case.size).multiply_adds
    return 2 * multiply_adds * case.batch * FORWARDS[case.what] / 1e9


def _batch(batches: _Batches, trial: _Trial, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The images and masks that all trials of a group with as many channels and classes share."""
    spec = trial.network.model.spec
    key = (spec.in_channels, spec.num_classes)
    if key not in batches:
        batches[key] = _attempt(partial(random_batch, trial.case, *key, device))
    batch, trial.problem = batches[key]
    return batch


def _take_turn(trial: _Trial, batch: tuple[Tensor, Tensor], turn: int, memory: bool) -> None:
    module = trial.network.module
    assert module is not None
    module.train(trial.case.what == "step")
    job = partial(call, trial.case, module, *batch)
    if turn == 0 and memory and batch[0].is_cuda:
        growth, trial.problem = _attempt(partial(_growth_on_gpu, job, batch[0].device))
        held = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers(), *batch))
        trial.memory = None if growth is None else held + growth
    else:
        seconds, trial.problem = _attempt(job)
        if turn and seconds is not None:
            trial.seconds.append(seconds)
    module.zero_grad(set_to_none=True)  # the others may want the memory


def _growth_on_gpu(job: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that the job adds at most to those that are there."""
    ones = torch.ones(8, 8, device=device)
    ones @ ones  # whoever multiplies first allocates the workspace for all
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    job()
    return torch.cuda.max_memory_allocated(device) - before
