"""From a config to what it describes: data module, network with loss and optimiser, trainer."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ProgressBar
from pytorch_lightning.loggers import Logger
from torch import nn

from fcnseg.data import SegmentationData
from fcnseg.data.dataset import is_labelled
from fcnseg.data.storage.cache import LIMIT
from fcnseg.data.storage.packed import packed_nodes
from fcnseg.errors import InputError, causes
from fcnseg.inference.device import fast_precision
from fcnseg.models import FCN
from fcnseg.models.backbones import Chain
from fcnseg.models.spec import ModelSpec
from fcnseg.runs.adapting import add_targets
from fcnseg.training import SegmentationModule
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining
from fcnseg.training.hyperparameters import Hyperparameters
from fcnseg.training.losses import SegmentationLoss
from fcnseg.training.optimisation import scaled_rate
from fcnseg.training.precision import check_precision, use_tf32

KEYS = (
    "root", "split", "layout", "labels", "only", "packed", "parts", "domains", "window", "border", "overlap", "reading",
    "outside",
)  # fmt: skip
"""What of `config.data` says how to build it, and is no argument of `SegmentationData`."""

OURS = ("async_checkpoints", "checkpoint_activations", "compile", "tf32")
"""What of `config.trainer` is no argument of Lightning's."""

CLIENTS = ("wandb", "mlflow", "trackio")
"""Loggers whose clients are extras."""

COMPARED_WHOLE = ("model", "optimizer", "scheduler", "loss")
"""Groups of settings that all tell how a network was trained."""

COMPARED = (
    *("seed", "lr_rule", "bias_lr_factor", "backbone_lr_factor", "frozen_batch_norm", "domain_statistics"),
    *("deep_supervision", "callbacks.ema.decay", "data.size", "data.resize", "data.batch_size", "data.ratio"),
    *("data.mixing", "data.domains", "data.parts", "data.paste", "trainer.max_epochs", "trainer.max_steps"),
    *("trainer.max_time", "trainer.precision", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val"),
)
"""Further settings that do."""


def build_data(config: DictConfig, train: bool = True) -> SegmentationData:
    """Instantiate `config.data`; without its training part where only validation is wanted.

    `data.root` and `data.split` are there for the datasets to refer to, and no arguments themselves; `data.packed`
    puts what `fcnseg data pack` has written in the place of the datasets; `data.parts` takes parts of some of them;
    `data.domains` names those to train on.
    """
    packed = config.data.get("packed")
    if OmegaConf.is_missing(config.data, "root") and packed is None:
        raise InputError("data.root: a value is missing; give it as data.root=PATH")
    arguments = OmegaConf.masked_copy(config.data, [key for key in config.data if key not in KEYS])
    arguments._set_parent(config)
    with open_dict(arguments):
        if packed is not None:
            arguments.update(packed_nodes(packed, arguments.get("cache_folder"), arguments.get("cache_limit", LIMIT)))
        if not train:
            arguments.update(train={}, ratio=None, augment=None)
        else:
            adaptation = config.get("adaptation")
            whole = None if adaptation is None else dict(arguments.train)
            if config.data.get("parts") is not None:
                _take_parts(arguments, config.data.parts)
            if config.data.get("domains") is not None:
                _keep(arguments, config.data.domains)
            if whole is not None:
                add_targets(arguments, whole, adaptation)
    return instantiate(arguments, _convert_="all")


def resize_as(config: DictConfig, spec: ModelSpec) -> None:
    """Let `config.data` prepare images as a trained network saw them."""
    with open_dict(config):
        if spec.input_size is None:
            config.data.resize = "native"
        else:
            config.data.update(size=list(spec.input_size), resize=spec.resize)


def leave_out_roots(config: DictConfig) -> None:
    """Set what is missing of `data.root` to null where a pack takes the datasets' place: nothing reads it."""
    if config.data.get("packed") is None:
        return
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = None
    elif OmegaConf.is_dict(roots := config.data.get("root")):
        for key in roots:
            if OmegaConf.is_missing(roots, key):
                roots[key] = None


def domain_names(config: DictConfig) -> list[str]:
    """The training domains of `config.data`, or of its pack, in their order."""
    packed = config.data.get("packed")
    return [str(name) for name in (config.data.train if packed is None else packed_nodes(packed)["train"])]


def _take_parts(arguments: DictConfig, parts: Any) -> None:
    """Put a `Subset` in the place of each of the domains named."""
    example = f"expected a mapping such as {{{next(iter(arguments.train))}: {{share: 0.25, start: 0.5}}}}"
    if not isinstance(parts, DictConfig):
        raise InputError(f"data.parts={parts}: {example}")
    for name, part in ((str(name), part) for name, part in parts.items()):
        if name not in arguments.train:
            raise InputError(f"data.parts.{name}: no such domain; expected one of {', '.join(arguments.train)}")
        if not isinstance(part, DictConfig) or "share" not in part or set(part) - {"share", "start"}:
            raise InputError(f"data.parts.{name}={part}: {example}")
        arguments.train[name] = {"_target_": "fcnseg.data.Subset", "dataset": arguments.train[name], **part}


def _keep(arguments: DictConfig, names: Any) -> None:
    """Leave the training domains of these names, and their shares."""
    known = ", ".join(arguments.train)
    if not isinstance(names, ListConfig) or not names or any(name not in arguments.train for name in names):
        raise InputError(f"data.domains={names}: expected a list of names out of {known}")
    for key in ("train", "ratio"):
        if arguments[key] is not None:
            arguments[key] = OmegaConf.masked_copy(arguments[key], [name for name in arguments[key] if name in names])


def build_module(config: DictConfig, data: SegmentationData) -> SegmentationModule:
    """The model with its loss, optimiser and schedule; classes and input size come from the data."""
    space = data.label_space
    facts = data.image_facts()
    if config.model.in_channels not in (3, facts["in_channels"]):  # 3 unless set
        raise InputError(f"model.in_channels={config.model.in_channels}: the images have {facts['in_channels']}")
    if any(config.model.get(key) is not None for key in ("mean", "std", "preparation")):
        facts = {key: value for key, value in facts.items() if key not in ("mean", "std", "clip")}
    model: FCN = instantiate(
        config.model,
        **facts,
        num_classes=space.num_classes,
        input_size=data.input_size,
        resize="stretch" if data.resize == "stretch" else "keep",
        label_space=space.to_dict(),
        _convert_="all",
    )
    frozen = config.get("frozen_batch_norm", False)
    if not isinstance(frozen, bool) or (frozen and config.model.weights is None):
        raise InputError(
            f"frozen_batch_norm={frozen}: keeps the statistics of trained weights; expected model.weights, or false"
        )
    # The memory layout that convolutions are fastest in, on CPUs and GPUs alike.
    model = model.to(memory_format=torch.channels_last)
    check_optimizer(config)
    if config.trainer.checkpoint_activations:
        if not isinstance(model.backbone, Chain):
            raise InputError(
                f"trainer.checkpoint_activations: {model.spec.name} is over a trunk of timm; expected false"
            )
        model.backbone.checkpoint_activations = True
    if config.trainer.compile:
        if config.deep_supervision:
            raise InputError("trainer.compile=true: does not go with deep_supervision; expected one or the other")
        model.compile()
    return SegmentationModule(
        model,
        loss=build_loss(config.loss, data),
        optimizer=build_optimizer(config),
        scheduler=build_schedule(config),
        bias_lr_factor=config.bias_lr_factor,
        backbone_lr_factor=config.get("backbone_lr_factor", 1.0),
        frozen_batch_norm=frozen,
        domain_statistics=config.domain_statistics,
        deep_supervision=config.deep_supervision,
        adaptation=instantiate(config.adaptation.method) if config.get("adaptation") else None,
        training_data={
            "train": {
                name: f"{len(dataset)} images{'' if is_labelled(dataset) else ' without labels'}"
                for name, dataset in data.train.items()
            },
            "validation": f"{len(data.val)} images",
        },
    )


def build_loss(config: DictConfig, data: SegmentationData) -> nn.Module:
    """The loss that the config names; a `SegmentationLoss` is told the domains and how to count the classes' pixels."""
    kind = get_object(config._target_)
    told: dict[str, Any] = {}
    if isinstance(kind, type) and issubclass(kind, SegmentationLoss):
        told = {"class_pixels": data.class_pixels, "domains": list(data.train)}
    return instantiate(config, **told, _convert_="all")


def build_optimizer(config: DictConfig) -> Any:
    """What makes the optimiser: not a fused one where gradients of 16-bit floats are clipped, which it refuses."""
    clipped = config.trainer.get("gradient_clip_val") and str(config.trainer.precision) in ("16-mixed", "16")
    settings: dict[str, Any] = {"fused": False} if clipped and config.optimizer.get("fused") else {}
    rate = learning_rate(config)
    return instantiate(config.optimizer, **settings, **({} if rate is None else {"lr": rate}))


def learning_rate(config: DictConfig) -> float | None:
    """What `optimizer.lr` comes to for batches of this size by `lr_rule`; None without a rule.

    Raises:
        InputError: when rule, rate and loss do not fit one another.
    """
    rule, rate = config.get("lr_rule", "none"), config.optimizer.get("lr")
    if rule == "none":
        return None
    if not isinstance(rate, int | float):
        raise InputError(f"lr_rule={rule}: scales optimizer.lr, which is {rate}; expected a number")
    if config.loss.get("reduction") == "sum":
        raise InputError(f"lr_rule={rule}: a summed loss grows with the batch by itself; expected lr_rule=none")
    return scaled_rate(rate, rule, config.data.batch_size, config.lr_reference_batch)


def check_optimizer(config: DictConfig) -> None:
    """Make the optimiser over a number, for it to refuse its settings before anything is trained or written."""
    try:
        instantiate(config.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {str(error).splitlines()[0]}") from error


def build_schedule(config: DictConfig) -> Any:
    """The function of `config.scheduler`; None for a constant rate over an unknown number of steps.

    Raises:
        InputError: when the schedule needs a number of steps and the training has none.
    """
    trainer = config.trainer
    endless = trainer.max_epochs == -1 or (trainer.max_epochs is None and trainer.max_time is not None)
    if config.scheduler is None or trainer.max_steps != -1 or not endless or trainer.fast_dev_run:
        return instantiate(config.scheduler)
    if config.scheduler.get("_target_") == "fcnseg.training.optimisation.constant":
        return None
    raise InputError(
        "scheduler: divides the number of steps, and the training has none; "
        "expected trainer.max_steps, trainer.max_epochs or scheduler=constant"
    )


def build_trainer(config: DictConfig, folder: Path) -> Trainer:
    callbacks = [instantiate(c) for c in (config.callbacks or {}).values() if c is not None]
    loggers = [build_logger(str(name), c) for name, c in (config.logger or {}).items() if c is not None]
    if loggers:
        callbacks.append(Hyperparameters(varied_settings(config)))
    else:
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    if not config.trainer.get("enable_progress_bar", True):
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if config.trainer.precision == "auto":
        config.trainer.precision = fast_precision()
    check_precision(config.trainer.precision)
    use_tf32(config.trainer.tf32)
    return instantiate(
        OmegaConf.masked_copy(config.trainer, [key for key in config.trainer if key not in OURS]),
        callbacks=callbacks,
        logger=loggers,
        # Without a bar among the callbacks Lightning takes one of its own.
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        plugins=[BesideTraining() if config.trainer.get("async_checkpoints") else AtomicCheckpointIO()],
        default_root_dir=str(folder),
    )


def build_logger(name: str, config: DictConfig) -> Logger:
    """What `config` describes.

    Raises:
        InputError: where its client is not installed.
    """
    try:
        return instantiate(config)
    except InstantiationException as error:
        if name in CLIENTS and any(isinstance(cause, ModuleNotFoundError) for cause in causes(error)):
            raise InputError(f"logger={name}: is not installed; pip install 'fcnseg[{name}]'") from error
        raise


def varied_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that runs are compared by, but for those that are null, each by its name on the command line.

    What a group makes goes by the group's name ("optimizer": "SGD"), as does what was chosen in another one ("data":
    "camvid"). Lists and mappings are given as text.
    """
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    found = {group: chosen.get(group) for group in ("data", "data/augment", "regime", "adaptation")}
    found |= {key: OmegaConf.select(config, key) for key in COMPARED}
    for group in COMPARED_WHOLE:
        values: Any = OmegaConf.to_container(config[group], resolve=True) if config.get(group) else {}
        for key, value in values.items():
            if key == "_target_":
                found[group] = str(value).rpartition(".")[2]
            elif not key.startswith("_"):
                found[f"{group}.{key}"] = value
    plain = (str, int, float, bool)
    return {key: value if isinstance(value, plain) else str(value) for key, value in found.items() if value is not None}


def check_statistics(config: DictConfig, data: SegmentationData, processes: int) -> None:
    """Refuse separate statistics where a process, or a micro-batch, may be without a domain's sample.

    Raises:
        InputError: when a process may have no sample of a domain.
    """
    parts = processes * data.micro_batches
    if config.domain_statistics == "separate" and parts > 1 and len(data.train) > 1:
        if data.mixing == "pooled":
            raise InputError(
                "domain_statistics=separate: needs data.mixing=balanced with several processes or micro-batches"
            )
        if (least := min(data.batches().counts)) < parts:
            each = f"{processes} processes" + (f" with {data.micro_batches} micro-batches" if parts > processes else "")
            raise InputError(
                f"domain_statistics=separate: a batch has {least} samples of a domain for {each}; "
                "expected one for each; raise data.batch_size"
            )
