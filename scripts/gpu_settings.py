"""What every part of the GPU report shares: its settings and sizes, how a case is tried, and how a call is timed."""

import gc
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A line of a part's table; with "error" or "skipped" where a case failed or cannot be had, "ok" where it is judged."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        scenes: how many images the shipped model segments.
        scenes_per_domain: how many images of each domain there are to train on.
        steps: of each training of the part `training`.
        resumed: steps of those that are resumed from their middle, and of those on two processes.
        width: factor on the channels of the networks that are trained.
        train_size: (height, width) of their images.
        matrix: rows of the square matrices, halved until three pairs of them fit.
        products: how many are timed.
        full_width: factor on the channels of the networks that are timed.
        image, batch: (height, width) and number of the images that they take.
        inferences, training_steps: how many are timed, after `warm_up`.
        warm_up: calls before the first that is timed.
        rounds: of the peers.
        loaded: (height, width) of the images of a training whose loading is timed.
        backend: of torch.compile for training steps.
    """

    scenes: int = 20
    scenes_per_domain: int = 40
    steps: int = 50
    resumed: int = 20
    width: float = 0.25
    train_size: tuple[int, int] = (180, 240)
    matrix: int = 8192
    products: int = 50
    full_width: float = 1.0
    image: tuple[int, int] = (512, 512)
    batch: int = 16
    inferences: int = 20
    training_steps: int = 10
    warm_up: int = 3
    rounds: int = 5
    loaded: tuple[int, int] = (360, 480)
    backend: str = "inductor"


FULL = Sizes()
TINY = Sizes(
    scenes=2, scenes_per_domain=12, steps=8, resumed=6, width=0.05, train_size=(48, 64), matrix=128, products=5,
    full_width=0.05, image=(64, 64), batch=2, inferences=2, training_steps=2, warm_up=1, rounds=1, loaded=(48, 64),
    backend="aot_eager",  # inductor's kernels for gradients take as long as half of all other parts
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a part is told.

    Attributes:
        device: "cuda" or "cpu".
        sizes: `FULL`, or `TINY` for a dry run.
        oracle: the folder with OpenCV's scores.
        ceilings: TFLOP/s of matrix products by precision, where they have been measured.
    """

    device: str
    sizes: Sizes
    oracle: Path
    ceilings: dict[str, float] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"


class UnavailableError(Exception):
    """Raised where a case cannot be had here, with the reason."""


def attempt(case: Row, job: Callable[[], Row]) -> Row:
    """The case with what the job found, the reason for which it was skipped, or the last line of its error."""
    try:
        return case | job()
    except UnavailableError as reason:
        return case | {"skipped": str(reason)}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return case | {"error": last_line(error)}
    finally:
        free()


def last_line(error: BaseException) -> str:
    """What kind of error it is, and the last line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def free() -> None:
    """Give the device's memory back that no tensor holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def milliseconds(call: Callable[[int], object], settings: Settings, repeats: int) -> float:
    """The median of a call, which is told its number, by the device's own clock where it has one."""
    import torch

    for number in range(settings.sizes.warm_up):
        call(number)
    if not settings.cuda:
        return statistics.median(_by_the_clock(call, number) for number in range(repeats))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for number, (began, ended) in enumerate(events):
        began.record()
        call(number)
        ended.record()
    torch.cuda.synchronize()
    return statistics.median(began.elapsed_time(ended) for began, ended in events)


def _by_the_clock(call: Callable[[int], object], number: int) -> float:
    began = time.perf_counter()
    call(number)
    return (time.perf_counter() - began) * 1000


def all_finite(values: Iterable[float]) -> bool:
    return all(math.isfinite(value) for value in values)
