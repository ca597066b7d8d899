"""Whether training does on a GPU what it does elsewhere: precisions, resuming, two processes, loading."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from gpu_settings import Row, Settings, UnavailableError, all_finite, attempt
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning import Trainer, seed_everything
from same_training import Losses, compare

from fcnseg.commands.configuration import config_folder, register_models
from fcnseg.models.sharded import read_checkpoint
from fcnseg.runs.building import build_data, build_module, build_trainer
from fcnseg.runs.execution import silence_warnings

EPOCH, EPOCHS = 10, 3
"""Steps of an epoch, and epochs, of the training whose loading is timed; in the first one scenes are drawn."""

PATIENCE = 90
"""Seconds for two processes to train together."""

WAY = 1e-2
"""How far the weights of two processes may end from those of one, relative to the way that these have come."""

TRAININGS: dict[str, list[str]] = {
    "32-true": [],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "16-mixed": ["trainer.precision=16-mixed"],
    "16-mixed, gradients clipped at 1": ["trainer.precision=16-mixed", "trainer.gradient_clip_val=1"],
    "32-true, deterministic": ["trainer.deterministic=true"],
}
"""By name, the overrides of each training of the part `training`."""

SMALL = (
    "experiment=demo", "data.val.length=2", "data.num_workers=0", "trainer.precision=32-true",
    "trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0", "trainer.enable_progress_bar=false",
    "callbacks.best=null", "callbacks.early_stopping=null", "callbacks.progress=null", "logger=none", "name=gpu_report",
)  # fmt: skip
"""Of every training here, whose folder is thrown away."""


@dataclass(frozen=True)
class Trained:
    """A training that has ended: its trainer, what `same_training.compare` takes of it, and its peak of memory."""

    trainer: Trainer
    states: dict[str, Any]
    megabytes: float | None

    @property
    def losses(self) -> list[float]:
        return self.states["losses"]


def train(settings: Settings, folder: Path, overrides: list[str], resume: Path | None = None) -> Trained:
    """Train in this process as `fcnseg train` with these overrides does, without its report."""
    config = composed([*overrides, f"folder={folder}", f"trainer.accelerator={accelerator(settings)}"])
    silence_warnings()
    torch.use_deterministic_algorithms(False)  # Lightning turns them on for the whole process, and leaves them so
    seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, folder)
    data = build_data(config)
    module = build_module(config, data)
    began = {name: value.clone() for name, value in module.model.state_dict().items()}
    losses = Losses()
    trainer.callbacks.append(losses)
    if settings.cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, data, ckpt_path=resume and str(resume), weights_only=True)
    ended = {name: value.cpu() for name, value in module.model.state_dict().items()}
    megabytes = torch.cuda.max_memory_allocated() / 2**20 if settings.cuda else None
    return Trained(trainer, {"began": began, "ended": ended, "losses": losses.seen}, megabytes)


def composed(overrides: list[str]) -> Any:
    """The config of `fcnseg train` with these overrides."""
    register_models(overrides)
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("train", overrides)


def accelerator(settings: Settings) -> str:
    return "gpu" if settings.cuda else "cpu"


def small(settings: Settings, steps: int, *more: str) -> list[str]:
    """The overrides of a training of so many steps."""
    size = ",".join(map(str, settings.sizes.train_size))
    lengths = [f"data.train.{domain}.length={settings.sizes.scenes_per_domain}" for domain in ("real", "synthetic")]
    own = (f"data.size=[{size}]", f"model.width={settings.sizes.width}", f"trainer.max_steps={steps}")
    return [*SMALL, *lengths, *own, *more]


def training(settings: Settings) -> Iterator[Row]:
    """The losses of a training of the demo's network on the embedded scenes in every precision."""
    for name in TRAININGS:
        yield attempt({"training": name}, partial(_losses, settings, TRAININGS[name]))


def _losses(settings: Settings, overrides: list[str]) -> Row:
    if "trainer.precision=16-mixed" in overrides and not settings.cuda:
        raise UnavailableError("16-mixed needs a GPU")
    with tempfile.TemporaryDirectory() as folder:
        trained = train(settings, Path(folder), small(settings, settings.sizes.steps, *overrides))
    losses, part = trained.losses, max(1, len(trained.losses) // 5)
    finite = all_finite(losses)
    falls = finite and statistics.mean(losses[-part:]) < statistics.mean(losses[:part])
    whole = len(losses) == settings.sizes.steps
    found = {"steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1], "finite": finite, "falls": falls}
    return found | {"peak_mb": trained.megabytes, "ok": whole and falls}


def resuming(settings: Settings) -> Iterator[Row]:
    """How far a training that was resumed from its middle ends from one that was not interrupted."""
    for deterministic in (True, False):
        yield attempt({"deterministic": deterministic}, partial(_resumed, settings, deterministic))


def _resumed(settings: Settings, deterministic: bool) -> Row:
    steps, middle = settings.sizes.resumed, settings.sizes.resumed // 2
    keep = [f"callbacks.last.every_n_train_steps={middle}", "callbacks.last.filename='{step}'"]
    keep.append("+callbacks.last.save_top_k=-1")  # or the last checkpoint would take the place of the middle's
    overrides = small(settings, steps, *keep, f"trainer.deterministic={str(deterministic).lower()}")
    with tempfile.TemporaryDirectory() as folder:
        whole = train(settings, Path(folder, "whole"), overrides)
        checkpoint = Path(folder, "whole", "checkpoints", f"step={middle}.ckpt")
        rest = train(settings, Path(folder, "rest"), overrides, resume=checkpoint)
    ours, others = whole.states["ended"], rest.states["ended"]
    apart = max(float((ours[name].double() - others[name].double()).abs().max()) for name in ours)
    equal = all(torch.equal(ours[name], others[name]) for name in ours)
    found = {"steps": len(whole.losses), "resumed_steps": len(rest.losses), "max_difference": apart, "equal": equal}
    went_on = len(whole.losses) == steps and len(rest.losses) == steps - middle
    return found | {"ok": went_on and (equal if deterministic else all_finite([apart]))}


def processes(settings: Settings) -> Iterator[Row]:
    """How far the weights of two processes end from those of one, whole in each and divided over both."""
    devices = torch.cuda.device_count() if settings.cuda else 0
    backend = "nccl" if devices > 1 else "gloo"
    shared = f"{min(devices, 2)} {'GPUs' if devices > 1 else 'GPU'}" if settings.cuda else "CPU"
    for strategy in ("ddp_cpu", "fsdp"):
        case = {"processes": 2, "strategy": strategy.removesuffix("_cpu"), "on": shared, "backend": backend}
        yield attempt(case, partial(_together, settings, strategy, backend))


def _together(settings: Settings, strategy: str, backend: str) -> Row:
    """By SGD without batch normalisation, in which roundings are magnified least, and without TF32."""
    if strategy == "fsdp" and settings.cuda and backend != "nccl":
        raise UnavailableError("needs two GPUs")
    plain = ["model=fcn8s_vgg16", "optimizer=sgd", "optimizer.lr=2e-4", "scheduler=constant", "trainer.tf32=false"]
    overrides = small(settings, settings.sizes.resumed, *plain)
    with tempfile.TemporaryDirectory() as folder:
        several = _two_processes(settings, [*overrides, f"trainer={strategy}"], backend, Path(folder, "two"))
        one = train(settings, Path(folder, "one"), overrides)
    ended = {name: several[f"model.{name}"].cpu() for name in one.states["ended"]}
    weights, way, _ = compare(one.states, {"ended": ended, "losses": one.losses})
    return {"steps": len(one.losses), "of_weights": weights, "of_way": way, "ok": way <= WAY}


def _two_processes(settings: Settings, overrides: list[str], backend: str, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that `fcnseg train` ends with as one process on each of two machines, which are this one."""
    running = _start_two(settings, overrides, backend, folder)
    wait_for_all(running, PATIENCE)
    weights: dict[str, torch.Tensor] = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return weights


def _start_two(
    settings: Settings, overrides: list[str], backend: str, folder: Path
) -> dict[str, subprocess.Popen[bytes]]:
    """Two processes of one training, by the files that they write to."""
    together = ["trainer.num_nodes=2", "trainer.devices=1", f"trainer.accelerator={accelerator(settings)}"]
    together += [f"trainer.strategy.process_group_backend={backend}"]
    command = [sys.executable, "-m", "fcnseg", "train", *overrides, *together, f"hydra.run.dir={folder}"]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "OMP_NUM_THREADS": "1"}
    meeting["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PL_")} | meeting
    visible = clean.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")
    folder.mkdir()
    running = {}
    for rank in range(2):
        own = {"NODE_RANK": str(rank)} | ({"CUDA_VISIBLE_DEVICES": visible[rank]} if backend == "nccl" else {})
        with open(folder.with_name(f"errors of {rank}"), "w") as errors:
            running[errors.name] = subprocess.Popen(command, env=clean | own, stdout=errors, stderr=errors)
    return running


def lost(settings: Settings) -> Iterator[Row]:
    """How long one process goes on waiting for another one that is killed, and whether it says so."""
    backend = "nccl" if settings.cuda and torch.cuda.device_count() > 1 else "gloo"
    yield attempt({"processes": 2, "backend": backend}, partial(_left_alone, settings, backend))


def _left_alone(settings: Settings, backend: str) -> Row:
    endless = small(settings, 10**6, "trainer=ddp_cpu", "callbacks.last.every_n_train_steps=1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "two")
        (shown, first), (_, second) = _start_two(settings, endless, backend, folder).items()
        try:
            deadline = time.monotonic() + PATIENCE
            while not (folder / "checkpoints" / "last.ckpt").exists():
                if time.monotonic() > deadline or first.poll() is not None:
                    raise RuntimeError(f"no step in {PATIENCE:.0f} s: {Path(shown).read_text()[-3000:]}")
                time.sleep(0.1)
            second.kill()
            began = time.monotonic()
            code = first.wait(PATIENCE)
        finally:
            first.kill()
            second.kill()
        said = any(line.startswith("fcnseg: rank 1 on ") for line in Path(shown).read_text().splitlines())
        return {"seconds_to_the_end": time.monotonic() - began, "ok": code == 1 and said}


def wait_for_all(running: dict[str, subprocess.Popen], seconds: float) -> None:
    """Wait for processes of one training, by the files that they write to; when one fails the others are ended.

    Raises:
        RuntimeError: with what the one that failed, or was not done in time, has written.
    """
    deadline = time.monotonic() + seconds
    try:
        while any(process.poll() is None for process in running.values()):
            if any(process.poll() for process in running.values()) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for path, process in running.items():
            if process.poll():
                raise RuntimeError(Path(path).read_text()[-3000:].strip() or f"exit code {process.returncode}")
        for path, process in running.items():
            if process.poll() is None:
                raise RuntimeError(f"{Path(path).read_text()[-3000:]}\nended after {seconds:.0f} s, not done")
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def loading(settings: Settings) -> Iterator[Row]:
    """How long a training of the whole network waits for its batches, once every scene has been drawn."""
    yield attempt({"precision": "bf16-mixed"}, partial(_waits, settings))


def _waits(settings: Settings) -> Row:
    size = ",".join(map(str, settings.sizes.loaded))
    more = ["model=fcn8s_vgg16", f"model.width={settings.sizes.full_width}", f"data.size=[{size}]", "optimizer=sgd"]
    more += ["trainer.precision=bf16-mixed", "+trainer.profiler=simple", "data.num_workers=null"]
    overrides = [*small(settings, EPOCHS * EPOCH, *more), f"data.steps_per_epoch={EPOCH}"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(settings, Path(folder), overrides).trainer
    recorded = trainer.profiler.recorded_durations
    if len(recorded["run_training_epoch"]) != EPOCHS:
        raise RuntimeError(f"{len(recorded['run_training_epoch'])} epochs; expected {EPOCHS}")
    epochs, waits = recorded["run_training_epoch"], recorded["[_TrainingEpochLoop].train_dataloader_next"]
    wait, whole = sum(waits[len(waits) // EPOCHS :]), sum(epochs[1:])
    steps = EPOCH * (EPOCHS - 1)
    workers = trainer.train_dataloader.num_workers
    return {"workers": workers, "wait_ms": wait / steps * 1000, "step_ms": whole / steps * 1000, "share": wait / whole}
