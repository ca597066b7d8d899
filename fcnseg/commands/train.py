"""`fcnseg train`: build data, model and trainer from the config, fit, and report."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.commands.common import build_data, hush, output_folder, relative
from fcnseg.commands.regimes import apply_regime
from fcnseg.commands.resuming import AUTO, score_if_finished, stopped_at
from fcnseg.commands.stages import (
    Stage,
    check_new,
    check_settings,
    check_stages,
    finished_score,
    keep_metrics,
    last_checkpoint,
    plan,
    resumed_folder,
    save_config,
    write_totals,
)
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate, write_report
from fcnseg.models import FCN, load_checkpoint
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import AtomicCheckpointIO
from fcnseg.training.precision import fast_precision


def run(config: DictConfig) -> float | None:
    """Train once, or stage after stage; returns the mean IoU of the last weights, for sweepers to maximise."""
    hush()
    apply_regime(config)
    folder, resume = output_folder(), config.resume
    if resume == AUTO:
        if (score := score_if_finished(config, folder)) is not None:
            return score
        stopped = stopped_at(config, folder)
        config.resume = stopped and str(stopped)
    if config.stages is not None:
        return run_stages(config, folder)
    if config.resume is not None and not Path(config.resume).is_file():
        is_folder = Path(config.resume).is_dir()
        reason = "a folder; expected a checkpoint, or settings with stages" if is_folder else "no such checkpoint"
        raise InputError(f"resume={config.resume}: {reason}")
    if resume is not None:
        keep_metrics(folder)
    with say_how_to_go_on(last_checkpoint(folder)):
        return train(config, folder, config.resume)


def run_stages(config: DictConfig, folder: Path) -> float | None:
    """Train the stages that are left; returns what the last one reached."""
    if config.resume is not None:
        new, folder = folder, resumed_folder(config.resume)
        if new.resolve() != folder.resolve():
            with suppress(OSError):  # Hydra's folder for this run: not used, and empty
                new.rmdir()
        check_settings(config, folder)
    config.folder = str(folder)
    stages = plan(config, folder)
    if config.resume is None:
        check_new(folder, stages)
    check_stages(stages)
    if config.resume is None:
        save_config(config, folder)
    score = None
    with say_how_to_go_on(folder):
        for number, stage in enumerate(stages, start=1):
            announce_stage(stage, number, len(stages))
            if not stage.finished:
                keep_metrics(stage.folder)
                score = train(stage.config, stage.folder, stage.checkpoint)
    write_totals(folder, stages)
    return finished_score(stages[-1].folder) if stages[-1].finished else score


def train(config: DictConfig, folder: Path, resume: str | Path | None) -> float | None:
    """One training, from its beginning or from a checkpoint, to the scores of its last weights."""
    seed_everything(config.seed, workers=True, verbose=False)
    data = build_data(config)
    module = build_module(config, data)
    if resume is not None:
        check_resume(str(resume), module.model)
    trainer = build_trainer(config, folder)
    check_statistics(config, data, trainer.world_size)
    save_config(config, folder)
    announce(trainer, module.model, data)
    started = time.monotonic()
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return report(trainer, module.model, data, folder, seconds=time.monotonic() - started)


@contextmanager
def say_how_to_go_on(resume: Path) -> Iterator[None]:
    """Name what `resume` takes, if it is there, when an interruption passes."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning ends an interrupted run with the latter
        if getattr(rank_zero_only, "rank", 0) == 0 and resume.exists():
            print(f"\ninterrupted; go on with the same settings and resume={relative(resume)}", file=sys.stderr)
        raise


def build_module(config: DictConfig, data: SegmentationData) -> SegmentationModule:
    """The model with its loss, optimiser and schedule; classes and input size come from the data."""
    space = data.label_space
    facts = data.image_facts()
    if config.model.in_channels not in (3, facts["in_channels"]):  # 3 unless set
        raise InputError(f"model.in_channels={config.model.in_channels}: the images have {facts['in_channels']}")
    if config.model.mean is not None or config.model.std is not None:
        facts = {key: value for key, value in facts.items() if key not in ("mean", "std")}
    model: FCN = instantiate(
        config.model,
        **facts,
        num_classes=space.num_classes,
        input_size=data.size,
        label_space=space.to_dict(),
        _convert_="all",
    )
    # The memory layout that convolutions are fastest in, on CPUs and GPUs alike.
    model = model.to(memory_format=torch.channels_last)
    return SegmentationModule(
        model,
        loss=instantiate(config.loss, class_pixels=data.class_pixels, domains=list(data.train), _convert_="all"),
        optimizer=instantiate(config.optimizer),
        scheduler=instantiate(config.scheduler),
        bias_lr_factor=config.bias_lr_factor,
        domain_statistics=config.domain_statistics,
        training_data={
            "train": {name: f"{len(dataset)} images" for name, dataset in data.train.items()},
            "validation": f"{len(data.val)} images",
        },
    )


def check_resume(path: str, model: FCN) -> None:
    """Refuse a checkpoint of another model before Lightning trips over its weights.

    Raises:
        InputError: naming the first setting that differs.
    """
    saved, ours = load_checkpoint(path).spec.to_dict(), model.spec.to_dict()
    for key, value in ours.items():
        if value != saved[key]:
            raise InputError(f"resume={path}: its model has {key}={saved[key]}, this run {key}={value}")


def check_statistics(config: DictConfig, data: SegmentationData, processes: int) -> None:
    """Refuse separate statistics where processes that synchronise them would wait for one without a domain's sample.

    Raises:
        InputError: when a process may have no sample of a domain.
    """
    if config.domain_statistics == "separate" and processes > 1 and len(data.train) > 1:
        if data.mixing == "pooled":
            raise InputError("domain_statistics=separate: needs data.mixing=balanced with several processes")
        if (least := min(data.batches().counts)) < processes:
            raise InputError(
                f"domain_statistics=separate: a batch has {least} samples of a domain for {processes} processes; "
                "expected one for each; raise data.batch_size"
            )


def build_trainer(config: DictConfig, folder: Path) -> Trainer:
    callbacks = [instantiate(c) for c in (config.callbacks or {}).values() if c is not None]
    loggers = [instantiate(c) for c in (config.logger or {}).values() if c is not None]
    if config.trainer.precision == "auto":
        config.trainer.precision = fast_precision()
    return instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
    )


@rank_zero_only
def announce_stage(stage: Stage, number: int, count: int) -> None:
    state = "finished" if stage.finished else "goes on" if stage.checkpoint else "begins"
    print(f"\nstage       {stage.name}, {number} of {count}, {state}")


@rank_zero_only
def announce(trainer: Trainer, model: FCN, data: SegmentationData) -> None:
    """Say in three lines what is about to be trained."""
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sizes = ", ".join(f"{len(dataset)} {name}" for name, dataset in data.train.items())
    print(f"model       {model.spec.name}, {millions:.1f} M parameters, {data.label_space.num_classes} classes")
    print(f"data        train on {sizes} (a batch: {data.batches()}), validate on {len(data.val)}")
    for name, dataset in {**data.train, "val": data.val}.items():
        if mapping := getattr(dataset, "mapping", None):
            print(f"classes of {name}: {mapping}")
    print(f"trainer     {trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}")


@rank_zero_only
def report(trainer: Trainer, model: FCN, data: SegmentationData, folder: Path, seconds: float) -> float:
    """Score the weights that training ended with, and write scores and pictures; returns their mean IoU."""
    device = trainer.strategy.root_device
    evaluation = evaluate(model.to(device), data.validation_loader())
    facts: dict[str, Any] = {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "images_seen": data.batches().seen(trainer.fit_loop.total_batch_idx + 1),
        "train_seconds": round(seconds, 1),
        "checkpoints": {},
    }
    for keeper in trainer.checkpoint_callbacks:
        if isinstance(keeper, ModelCheckpoint) and keeper.best_model_path:
            score = None if keeper.best_model_score is None else float(keeper.best_model_score)
            facts["checkpoints"][Path(keeper.best_model_path).stem] = {
                "path": relative(keeper.best_model_path),
                keeper.monitor or "step": trainer.global_step if keeper.monitor is None else score,
            }
    write_report(evaluation, model, data, folder, facts)
    print(f"scores and pictures  {relative(folder)}")
    for checkpoint in facts["checkpoints"].values():
        print(f"checkpoint           {checkpoint['path']}")
    return finished_score(folder)
