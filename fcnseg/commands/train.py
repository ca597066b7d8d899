"""`fcnseg train`: build data, model and trainer from the config, fit, and report."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.commands.common import build_data, hush, output_folder, relative
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate, write_report
from fcnseg.files import replacing
from fcnseg.models import FCN, load_checkpoint
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import AtomicCheckpointIO
from fcnseg.training.precision import fast_precision


def run(config: DictConfig) -> float | None:
    """Train once; returns the last validation's mean IoU, for sweepers to maximise."""
    hush()
    seed_everything(config.seed, workers=True, verbose=False)
    folder = output_folder()
    if config.resume is not None and not Path(config.resume).is_file():
        raise InputError(f"resume={config.resume}: no such checkpoint")
    data = build_data(config)
    module = build_module(config, data)
    if config.resume is not None:
        check_resume(config.resume, module.model)
    trainer = build_trainer(config, folder)
    save_config(config, folder)
    announce(trainer, module.model, data)
    started = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=config.resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # Lightning ends an interrupted run with the latter
        last = folder / "checkpoints" / "last.ckpt"
        if trainer.is_global_zero and last.is_file():
            print(f"\ninterrupted; go on with the same settings and resume={relative(last)}", file=sys.stderr)
        raise
    report(trainer, module.model, data, folder, seconds=time.monotonic() - started)
    return module.last_scores.mean_iou if module.last_scores else None


def build_module(config: DictConfig, data: SegmentationData) -> SegmentationModule:
    """The model with its loss, optimiser and schedule; classes and input size come from the data."""
    space = data.label_space
    model: FCN = instantiate(
        config.model,
        num_classes=space.num_classes,
        input_size=data.size,
        label_space=space.to_dict(),
        _convert_="all",
    )
    # The memory layout that convolutions are fastest in, on CPUs and GPUs alike.
    model = model.to(memory_format=torch.channels_last)
    return SegmentationModule(
        model,
        loss=instantiate(config.loss, class_pixels=data.class_pixels),
        optimizer=instantiate(config.optimizer),
        scheduler=instantiate(config.scheduler),
        bias_lr_factor=config.bias_lr_factor,
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
def save_config(config: DictConfig, folder: Path) -> None:
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(config, resolve=True))


@rank_zero_only
def announce(trainer: Trainer, model: FCN, data: SegmentationData) -> None:
    """Say in three lines what is about to be trained."""
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    shares = ", ".join(f"{count} {name}" for name, count in zip(data.train, data.batches().counts, strict=True))
    sizes = ", ".join(f"{len(dataset)} {name}" for name, dataset in data.train.items())
    print(f"model       {model.spec.name}, {millions:.1f} M parameters, {data.label_space.num_classes} classes")
    print(f"data        train on {sizes} (a batch: {shares}), validate on {len(data.val)}")
    print(f"trainer     {trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}")


@rank_zero_only
def report(trainer: Trainer, model: FCN, data: SegmentationData, folder: Path, seconds: float) -> None:
    """Score the weights that training ended with, and write scores and pictures."""
    device = trainer.strategy.root_device
    evaluation = evaluate(model.to(device), data.validation_loader())
    facts: dict[str, Any] = {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
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
