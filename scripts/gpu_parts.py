"""The parts of scripts/gpu_report.py: each gives rows of plain values."""

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import benchmark_peers
import numpy as np
import torch
import torch.nn.functional as F
from peers import NETWORKS
from reference_networks import CLASSES, MODELS, SIZES, WIDTH, seeded_image, seeded_network
from torch import Tensor

import fcnseg
from fcnseg.data import CityScenes
from fcnseg.models import FCN, optimise, summarise
from fcnseg.training.precision import use_tf32

ORACLE = Path(__file__).parents[1] / "tests" / "models" / "oracle"
DTYPES = {"32-true": None, "tf32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions, and what autocast computes in; float32 means TF32 in "tf32" alone."""

Row = dict[str, Any]


@dataclass
class Setup:
    """Where and how large; and what one part tells another.

    Attributes:
        device: "cuda" or "cpu".
        tiny: small networks and images.
        budget: seconds after which nothing begins.
        oracle: folder of OpenCV's scores.
        ceilings: TFLOP/s of matrix products by precision, once measured.
    """

    device: str
    tiny: bool
    budget: float
    oracle: Path = ORACLE
    ceilings: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def precisions(self) -> list[str]:
        return list(DTYPES) if self.cuda else ["32-true", "bf16-mixed"]

    def spent(self) -> bool:
        return time.monotonic() - self.began >= self.budget


@contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    use_tf32(name == "tf32")
    with torch.autocast(device, DTYPES[name], enabled=DTYPES[name] is not None):
        yield


def median_seconds(setup: Setup, call: Callable[[], object], least: int = 5, enough: float = 1.0) -> float:
    """Of one call: after two that warm up, as many as take `enough` seconds, and at least `least`."""
    taken: list[float] = []
    for turn in range(10_000):
        finish(setup)
        began = time.perf_counter()
        call()
        finish(setup)
        if turn >= 2:
            taken.append(time.perf_counter() - began)
        if len(taken) >= least and (setup.tiny or sum(taken) > enough):
            break
    return statistics.median(taken)


def finish(setup: Setup) -> None:
    if setup.cuda:
        torch.cuda.synchronize()


def correctness(setup: Setup) -> list[Row]:
    rows: list[Row] = []
    for network in MODELS:
        net = seeded_network(network, CLASSES, WIDTH)
        model = fcnseg.create_model(MODELS[network], num_classes=net.classes, padding="caffe", width=net.width).eval()
        fcnseg.load_caffe_weights(model, net.blobs, prepare=False, verbose=False)
        model = model.to(setup.device)
        expected = np.load(setup.oracle / f"{network}.npz")
        for name in setup.precisions:
            differences = [difference(model, size, expected["{}x{}".format(*size)], name, setup) for size in SIZES]
            rows.append({"what": MODELS[network], "precision": name, "difference": max(differences)})
            if name == "32-true" and max(differences) > 1e-4:
                raise ArithmeticError(f"{MODELS[network]} is {max(differences):.2g} of the largest score away")
    return rows + [demo_masks(setup, name) for name in setup.precisions]


def difference(model: FCN, size: tuple[int, int], expected: np.ndarray, name: str, setup: Setup) -> float:
    """The largest, as a share of the largest score."""
    images = torch.from_numpy(seeded_image(*size)).to(setup.device)
    with torch.inference_mode(), precision(name, setup.device):
        return float(np.abs(model(images).cpu().numpy() - expected).max() / np.abs(expected).max())


def demo_masks(setup: Setup, name: str) -> Row:
    """How many pixels have another class than in float32 on the CPU."""
    scenes = CityScenes(2 if setup.tiny else 10, seed=7, look="real")
    model = fcnseg.from_pretrained("demo")
    expected = [fcnseg.Predictor(model, device="cpu")(scenes[i][0]).mask for i in range(len(scenes))]
    with precision("tf32" if name == "tf32" else "32-true", setup.device):
        kept = "32-true" if name == "tf32" else name
        predictor = fcnseg.Predictor(fcnseg.from_pretrained("demo"), device=setup.device, precision=kept)
        found = [predictor(scenes[i][0]).mask for i in range(len(scenes))]
    share = float(np.mean([(a != b).mean() for a, b in zip(found, expected, strict=True)]))
    return {"what": "masks of the shipped model", "precision": name, "difference": share}


def ceiling(setup: Setup) -> list[Row]:
    rows = []
    for name in setup.precisions:
        size = 256 if setup.tiny else 8192
        a, b = (torch.randn(size, size, device=setup.device, dtype=DTYPES[name]) for _ in range(2))
        with precision(name, setup.device):
            seconds = median_seconds(setup, lambda a=a, b=b: a @ b)  # type: ignore[misc]
        setup.ceilings[name] = 2 * size**3 / seconds / 1e12
        rows.append({"precision": name, "size": size, "TFLOP/s": setup.ceilings[name]})
    return rows


def speed(setup: Setup) -> list[Row]:
    batch, side, width = (2, 64, 0.1) if setup.tiny else (16, 512, 1.0)
    rows = []
    for padding in ("same", "caffe"):
        for name in setup.precisions:
            for what, images, compiled in (
                ("step", batch, False), ("forward", batch, False), ("forward", 1, False),
                ("step", batch, True), ("forward", batch, True),
            ):  # fmt: skip
                if setup.spent() or (compiled and (padding, name) != ("same", "bf16-mixed")):
                    continue
                model = fcnseg.create_model("fcn8s_vgg16", num_classes=21, padding=padding, width=width)
                place = {"what": what, "padding": padding, "precision": name, "batch": images, "compiled": compiled}
                rows.append(place | timed(setup, model, what, (images, 3, side, side), name, compiled))
    return rows


def timed(setup: Setup, model: FCN, what: str, shape: tuple[int, ...], name: str, compiled: bool) -> Row:
    images = torch.randn(shape, device=setup.device).to(memory_format=torch.channels_last)
    masks = torch.randint(0, 21, (shape[0], *shape[2:]), device=setup.device)
    operations = 2 * summarise(model, (shape[2], shape[3])).multiply_adds * shape[0] * (3 if what == "step" else 1)
    model = model.to(setup.device).to(memory_format=torch.channels_last)
    call = training_step(model, images, masks, compiled) if what == "step" else inference(model, images, name, compiled)
    with precision(name, setup.device):
        if setup.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(setup, call)
    rate = operations / seconds / 1e12
    share = rate / setup.ceilings[name] if name in setup.ceilings else None
    memory = torch.cuda.max_memory_allocated() / 2**30 if setup.cuda else None
    return {"images/s": shape[0] / seconds, "TFLOP/s": rate, "share of ceiling": share, "GiB": memory}


def training_step(model: FCN, images: Tensor, masks: Tensor, compiled: bool) -> Callable[[], None]:
    """Forward, backward and optimiser, as `fcnseg train` has them."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    network = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), masks).backward()
        optimizer.step()

    return step


def inference(model: FCN, images: Tensor, name: str, compiled: bool) -> Callable[[], Tensor]:
    network = optimise(model, "32-true" if name == "tf32" else name, compile=compiled)

    def forward() -> Tensor:
        with torch.inference_mode():
            return network(images, reuse=True)

    return forward


def peers(setup: Setup) -> list[Row]:
    batch, side, width = (1, 64, 0.1) if setup.tiny else (16, 512, 1.0)
    images = torch.randn(batch, 3, side, side, device=setup.device)
    masks = torch.randint(0, 21, (batch, side, side), device=setup.device)
    networks = {name: make(width).to(setup.device) for name, make in NETWORKS.items()}
    rows = []
    for what in benchmark_peers.WHAT:
        for row in benchmark_peers.compare(what, networks, images, masks, "bf16", 1 if setup.tiny else 5):
            rate = batch / row["seconds"]
            rows.append({"what": what, "network": row["network"], "images/s": rate, "times plain": row["ratio"]})
    return rows


def train(setup: Setup, folder: Path, *overrides: str) -> dict[str, Tensor]:
    """A short training by the command line in a process of its own; returns the weights at its end."""
    size, width = ("[48,64]", 0.05) if setup.tiny else ("[180,240]", 0.25)
    accelerator = "gpu" if setup.cuda else "cpu"
    command = [
        sys.executable, "-m", "fcnseg", "train", "data=citygen", "model=fcn8s_vgg16_bn", f"model.width={width}",
        f"data.size={size}", "data.batch_size=4", "data.num_workers=0", "data.train.real.length=16",
        "data.train.synthetic.length=16", "data.val.length=4", "data.steps_per_epoch=100", "optimizer=sgd",
        "scheduler=constant", "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1",
        f"trainer.accelerator={accelerator}", "logger.tensorboard=null", "callbacks.progress=null",
        "trainer.enable_progress_bar=false", f"hydra.run.dir={folder}", *overrides,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
    return torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def training(setup: Setup) -> list[Row]:
    steps = 4 if setup.tiny else 50
    runs = [(name, ()) for name in setup.precisions if name != "tf32"]
    runs += [("16-mixed", ("trainer.gradient_clip_val=1",))] if setup.cuda else []
    runs += [("32-true", ("trainer.deterministic=true",))]
    rows = []
    for name, more in runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            train(setup, folder, f"trainer.max_steps={steps}", f"trainer.precision={name}", *more)
            with (folder / "metrics.csv").open(newline="") as file:
                losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
        last = statistics.mean(losses[-max(1, steps // 5) :])
        if not np.isfinite(losses).all() or not (setup.tiny or last < losses[0]):
            raise ArithmeticError(f"{name} {' '.join(more)}: the loss went from {losses[0]:g} to {last:g}")
        rows.append({"precision": name, "with": " ".join(more), "steps": steps, "first loss": losses[0], "last": last})
    return rows


def resuming(setup: Setup) -> list[Row]:
    half = 2 if setup.tiny else 10
    rows = []
    for name in ("32-true",) if setup.tiny else ("32-true", "bf16-mixed"):
        settings = (f"trainer.precision={name}", "trainer.deterministic=true")
        with tempfile.TemporaryDirectory() as scratch:
            whole = train(setup, Path(scratch, "whole"), *settings, f"trainer.max_steps={2 * half}")
            train(setup, Path(scratch, "run"), *settings, f"trainer.max_steps={half}")
            resume = f"resume={Path(scratch, 'run/checkpoints/last.ckpt')}"
            resumed = train(setup, Path(scratch, "run"), *settings, f"trainer.max_steps={2 * half}", resume)
        rows.append({"precision": name, "steps": 2 * half, "distance": distance(whole, resumed)})
    return rows


def processes(setup: Setup) -> list[Row]:
    if setup.cuda and torch.cuda.device_count() < 2:
        return [{"processes": 2, "why not": "one GPU"}]
    steps = f"trainer.max_steps={2 if setup.tiny else 20}"
    several = ("trainer=ddp", "trainer.devices=2") if setup.cuda else ("trainer=ddp_cpu",)
    with tempfile.TemporaryDirectory() as scratch:
        one, two = (train(setup, Path(scratch, str(len(more))), *more, steps) for more in ((), several))
    return [{"processes": 2, "distance": distance(one, two)}]


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Between all weights and statistics, as a share of their length."""
    first, second = (torch.cat([values.double().flatten() for values in weights.values()]) for weights in (a, b))
    return float((first - second).norm() / first.norm())
