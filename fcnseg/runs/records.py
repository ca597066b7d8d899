"""What a run writes down: scores and pictures of a training, totals over its stages, curves of interrupted ones."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.atomic import replacing
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate, write_report
from fcnseg.evaluation.report import write_json
from fcnseg.memory import peak_memory
from fcnseg.models import FCN
from fcnseg.reports import finish, finish_stages
from fcnseg.runs.folder import relative
from fcnseg.runs.stages import Stage
from fcnseg.training import SegmentationModule
from fcnseg.training.micro_batches import batch_number
from fcnseg.training.strategies import whole


def report(
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationData,
    folder: Path,
    seconds: float,
    images: int | None = None,
) -> float | None:
    """Score the weights that training ended with, and write scores, pictures and the page; returns their mean IoU.

    Where the last validation was of these weights, its scores are taken. Every process must call this; the first one
    reports.

    Args:
        seconds: that training took.
        images: how many the page shows at most; None: no page.
    """
    return _report(whole(module.model), trainer, module, data, folder, seconds, images)


@rank_zero_only
def _report(
    model: FCN,
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationData,
    folder: Path,
    seconds: float,
    images: int | None,
) -> float:
    model = model.to(trainer.strategy.root_device)
    evaluation = module.current_evaluation(len(data.val)) or evaluate(model, data.validation_loader())
    facts: dict[str, Any] = {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "images_seen": data.batches().seen(batch_number(trainer) + 1),
        "train_seconds": round(seconds, 1),
        "peak_memory": _peak_memory(model.device),
        "checkpoints": {},
    }
    keep_best(trainer)
    for keeper in trainer.checkpoint_callbacks:
        if isinstance(keeper, ModelCheckpoint) and keeper.best_model_path:
            score = None if keeper.best_model_score is None else float(keeper.best_model_score)
            facts["checkpoints"][Path(keeper.best_model_path).stem] = {
                "path": relative(keeper.best_model_path),
                keeper.monitor or "step": trainer.global_step if keeper.monitor is None else score,
            }
    write_report(evaluation, model, data, folder, facts)
    finish(folder, images, evaluation, model, data)
    print(f"scores and pictures  {relative(folder)}")
    for checkpoint in facts["checkpoints"].values():
        told = [f"   {key} {value:.3f}" for key, value in checkpoint.items() if isinstance(value, float)]
        print(f"checkpoint           {checkpoint['path']}{''.join(told)}")
    return finished_score(folder)


def keep_best(trainer: Trainer) -> None:
    """Where a training has ended before its first validation, take its last weights for the best."""
    keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, ModelCheckpoint)]
    last = next((Path(k.best_model_path) for k in keepers if k.monitor is None and k.best_model_path), None)
    for keeper in keepers:
        if keeper.monitor is not None and not keeper.best_model_path and last is not None and last.is_file():
            path = last.with_name(f"{keeper.filename or 'best'}{last.suffix}")
            with replacing(path) as temporary:
                shutil.copyfile(last, temporary)
            keeper.best_model_path = str(path)


def _peak_memory(device: torch.device) -> dict[str, int]:
    """The most bytes that the first process has had, on the host and on its GPU, as far as something tells."""
    found = {"host": peak_memory(), "gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}
    return {name: size for name, size in found.items() if size is not None}


def finished_score(folder: Path) -> float:
    """The mean IoU that a finished training wrote down.

    Raises:
        InputError: when its file is damaged.
    """
    path = folder / "metrics.json"
    try:
        return float(json.loads(path.read_text())["mean_iou"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged; expected the scores of a finished run, of which mean_iou is one") from error


@rank_zero_only
def write_totals(folder: Path, stages: list[Stage], images: int | None = None) -> None:
    """Write the metrics.json of a whole run: the last stage's, with what all stages took, together and one by one.

    Its page follows, see `report`.
    """
    reports = {stage.name: json.loads((stage.folder / "metrics.json").read_text()) for stage in stages}
    seen: Counter[str] = Counter()
    for report in reports.values():
        seen.update(report["images_seen"])
    totals = {
        "step": sum(report["step"] for report in reports.values()),
        "images_seen": dict(seen),
        "train_seconds": round(sum(report["train_seconds"] for report in reports.values()), 1),
        "stages": {
            name: {key: report[key] for key in ("step", "images_seen", "mean_iou")} for name, report in reports.items()
        },
    }
    write_json(folder / "metrics.json", reports[stages[-1].name] | totals)
    finish_stages(folder, images)


@rank_zero_only
def keep_metrics(folder: Path) -> None:
    """Set the curves of an interrupted training aside as metrics.1.csv, ...: the logger begins its file anew."""
    current = folder / "metrics.csv"
    if current.is_file():
        current.rename(folder / f"metrics.{len(list(folder.glob('metrics.*.csv'))) + 1}.csv")
