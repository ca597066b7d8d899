"""Carrying out a run: training once or in stages, from the beginning or from where it stopped, to its report."""

import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.data import SegmentationData
from fcnseg.data.dataset import is_labelled
from fcnseg.errors import InputError, mistake
from fcnseg.models import FCN
from fcnseg.models.loading import checkpoint_spec
from fcnseg.models.sharded import is_sharded
from fcnseg.reports import images_wanted
from fcnseg.runs.alone import PATIENCE, alone_in
from fcnseg.runs.building import (
    build_data,
    build_module,
    build_trainer,
    check_statistics,
    learning_rate,
    leave_out_roots,
)
from fcnseg.runs.folder import check_new, check_settings, last_checkpoint, relative, save_config
from fcnseg.runs.heartbeat import Lost
from fcnseg.runs.limits import check_resources, in_one_line
from fcnseg.runs.processes import Training, know_rank, meet, preparing, training_together, trainings
from fcnseg.runs.records import finished_score, keep_metrics, report, write_totals
from fcnseg.runs.regimes import apply_regime, regime_name
from fcnseg.runs.resuming import AUTO, score_if_finished, stopped_at
from fcnseg.runs.stages import Stage, check_stages, check_unused, plan, resumed_folder
from fcnseg.runs.surroundings import note_session


def execute(config: DictConfig, folder: Path) -> float | None:
    """Train once, or stage after stage; returns the mean IoU of the last weights.

    Args:
        config: the whole config of `fcnseg train`, without its part `hydra`.
        folder: of the run.

    Raises:
        InputError: for settings that do not fit one another, the data or what is in the folder, or where another
            process trains in it.
    """
    goes_on = config.resume not in (None, AUTO)
    where = resumed_folder(config.resume) if goes_on and config.stages is not None else folder
    with alone_in(where, patience=0 if config.resume is None else PATIENCE):
        return _execute(config, folder)


def _execute(config: DictConfig, folder: Path) -> float | None:
    silence_warnings()
    know_rank()
    config.folder = str(folder)
    leave_out_roots(config)
    images_wanted(config)  # refuses what is none before anything is done
    apply_regime(config)
    resume = config.resume
    if resume == AUTO:
        if (score := score_if_finished(config, folder)) is not None:
            return score
        stopped = stopped_at(config, folder)
        config.resume = stopped and str(stopped)
    elif resume is None or (config.stages is None and not Path(resume).resolve().is_relative_to(folder.resolve())):
        check_new(config, folder)
    if config.stages is not None:
        return run_stages(config, folder)
    if config.resume is not None and not Path(config.resume).is_file() and not is_sharded(config.resume):
        is_folder = Path(config.resume).is_dir()
        reason = "a folder; expected a checkpoint, or settings with stages" if is_folder else "no such checkpoint"
        raise InputError(f"resume={config.resume}: {reason}")
    if resume is not None:
        keep_metrics(folder)
    with say_how_to_go_on(last_checkpoint(folder)):
        return train(Training(config, folder, config.resume))


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
        check_unused(folder, stages)
    check_stages(stages)
    if config.resume is None:
        save_config(config, folder)
    score = None
    with say_how_to_go_on(folder):
        for number, stage in enumerate(stages, start=1):
            announce_stage(stage, number, len(stages))
            if not stage.finished:
                keep_metrics(stage.folder)
                resume = None if stage.checkpoint is None else str(stage.checkpoint)
                score = train(Training(stage.config, stage.folder, resume))
    write_totals(folder, stages, images_wanted(config))
    return finished_score(stages[-1].folder) if stages[-1].finished else score


def join(training: Training) -> None:
    """Take part in a training that another process has begun and reports on."""
    silence_warnings()
    know_rank()
    train(training)


def join_all() -> bool:
    """Take part in all trainings of the process beside which this one was started; returns whether one failed."""
    failed = False
    for training in trainings():
        try:
            join(training)
        except Exception as error:
            failed = True
            if mistake(error) is None:  # else the first process hears of it, and shows it
                traceback.print_exc()
    return failed


def train(training: Training) -> float | None:
    """One training, from its beginning or from a checkpoint, to the scores of its last weights."""
    config, folder, resume = training.config, training.folder, training.resume
    seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, folder)
    meeting = meet(trainer)
    with preparing(training, meeting) as training:
        data = build_data(config)
        data.divide_batches(trainer)
        module = build_module(config, data)
        trainer.strategy.precision_plugin.convert_module(module)  # Lightning reads a checkpoint into it before it does
        if resume is not None:
            check_resume(resume, module.model)
        check_statistics(config, data, trainer.world_size)
        check_resources(trainer, module, data, folder)
        save_config(config, folder)
        note_session(folder, {**data.train, "val": data.val}, learning_rate(config))
    announce(trainer, module.model, data, folder)
    announce_scaling(config, trainer, data)
    started = time.monotonic()
    with training_together(trainer, training, meeting), in_one_line(folder):
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        seconds = time.monotonic() - started
        return report(trainer, module, data, folder, seconds, images_wanted(config))


@contextmanager
def say_how_to_go_on(resume: Path) -> Iterator[None]:
    """Name what `resume` takes, if it is there, when an interruption passes."""
    try:
        yield
    except Lost:
        raise
    except (KeyboardInterrupt, SystemExit):  # Lightning ends an interrupted run with the latter
        if getattr(rank_zero_only, "rank", 0) == 0 and resume.exists():
            print(f"\ninterrupted; go on with the same settings and resume={relative(resume)}", file=sys.stderr)
        raise


def check_resume(path: str, model: FCN) -> None:
    """Refuse a checkpoint of another model before Lightning trips over its weights.

    Raises:
        InputError: naming the first setting that differs.
    """
    saved, ours = checkpoint_spec(path).to_dict(), model.spec.to_dict()
    for key, value in ours.items():
        if value != saved[key]:
            raise InputError(f"resume={path}: its model has {key}={saved[key]}, this run {key}={value}")


@rank_zero_only
def announce_stage(stage: Stage, number: int, count: int) -> None:
    state = "finished" if stage.finished else "goes on" if stage.checkpoint else "begins"
    print(f"\nstage       {stage.name}, {number} of {count}, {state}")


@rank_zero_only
def announce(trainer: Trainer, model: FCN, data: SegmentationData, folder: Path) -> None:
    """Say in a few lines what is about to be trained, how, and where it goes."""
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sizes = ", ".join(
        f"{len(dataset)} {name}{'' if is_labelled(dataset) else ' without labels'}"
        for name, dataset in data.train.items()
    )
    print(f"model       {model.spec.name}, {millions:.1f} M parameters, {data.label_space.num_classes} classes")
    print(f"data        train on {sizes} (a batch: {data.batches()}), validate on {len(data.val)}")
    if (regime := regime_name()) is not None:
        print(f"regime      {regime}")
    for name, dataset in {**data.train, "val": data.val}.items():
        if mapping := getattr(dataset, "mapping", None):
            print(f"classes of {name}: {mapping}")
    print(f"trainer     {trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}")
    print(f"folder      {relative(folder)}")


@rank_zero_only
def announce_scaling(config: DictConfig, trainer: Trainer, data: SegmentationData) -> None:
    """Say what follows from the size of a batch, where settings let something follow."""
    if data.micro_batches > 1:
        at_once = -(-data.batch_size // (trainer.world_size * data.micro_batches))
        print(f"micro-batch {data.micro_batches} of up to {at_once} for each process make a batch of {data.batch_size}")
    if (rate := learning_rate(config)) is not None:
        print(
            f"rate        {rate:g} for batches of {data.batch_size}, by lr_rule={config.lr_rule} "
            f"from {config.optimizer.lr:g} for {config.lr_reference_batch}"
        )


def silence_warnings() -> None:
    """Leave out the frameworks' remarks on which a user need not act; their warnings otherwise stay."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Experiment logs directory .* exists",  # it is the run's folder, new and ours
        "The number of training batches .* is smaller than the logging interval",
        "The '.*_dataloader' does not have many workers",  # see default_workers
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        "FSDP2-wrapped module .* returned a view tensor",  # the logits, which nothing changes in place
        ".*recommended.*sync_dist=True",  # those values are equal on all ranks already
        "The `srun` command is available",  # it need not be used
        "`ModelCheckpoint\\(monitor=.*could not find the monitored key",  # before the first validation
    ):
        warnings.filterwarnings("ignore", message=message)
