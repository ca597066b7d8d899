"""`fcnseg evaluate`: score a model on a dataset."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnseg.atomic import replacing
from fcnseg.commands.common import require_value
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import Protocol, write_report
from fcnseg.evaluation.calibration import Drawn, calibration_of, draw_batches, require_probabilities, save_reliability
from fcnseg.evaluation.evaluator import collected, score_batches
from fcnseg.evaluation.report import write_json
from fcnseg.inference.device import devices_of
from fcnseg.inference.exported import Exported, is_exported, load_exported
from fcnseg.inference.processes import Tell, on_devices
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, from_pretrained, optimise
from fcnseg.models.spec import ModelSpec
from fcnseg.reports import finish, images_wanted
from fcnseg.reports.files import EVALUATION
from fcnseg.runs.building import build_data, resize_as
from fcnseg.runs.folder import output_folder, relative
from fcnseg.runs.surroundings import note_session


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    images = images_wanted(config)
    protocol: Protocol | None = instantiate(config.get("protocol"), _convert_="all")
    device = "cpu" if is_exported(checkpoint) and config.device == "auto" else str(config.device)
    devices = devices_of(device, config.devices)
    model = _model(checkpoint, config, devices[0])
    resize_as(config, model.spec)
    data = build_data(config, train=False)
    _require_classes(checkpoint, model.spec, data.label_space)
    if protocol is not None:
        protocol.reported(data.label_space)  # refuses other classes before anything is computed
    for key, value in data.image_facts().items():
        if key not in ("mean", "std", "clip") and value != (expected := getattr(model.spec, key)):
            raise InputError(f"{checkpoint}: takes images with {key}={expected}; the data has {value}")
    if config.calibrate:
        require_probabilities(model)
    data.setup("validate")
    folder = output_folder()
    facts: dict[str, Any] = {"checkpoint": checkpoint, "precision": str(config.precision)}
    batches = data.validation_batches()
    with closing(_found(config, model, data, devices[: len(batches)])) as found:
        evaluation = collected(islice(found, len(batches)), len(batches))
        if config.calibrate:
            facts |= {"calibration": _calibrated(chain.from_iterable(found), folder)}
    note_session(folder, {"val": data.val})
    _save_settings(config, folder)
    write_report(evaluation, model, data, folder, facts, protocol=protocol)
    finish(folder, images, evaluation, model, data)
    print(f"scores and pictures  {relative(folder)}")


def _save_settings(config: DictConfig, folder: Path) -> None:
    """Write all values resolved, unless some are missing that only a training needs."""
    try:
        settings = OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException:
        settings = OmegaConf.to_yaml(config)
    with replacing(folder / EVALUATION) as temporary:
        temporary.write_text(settings)


def _found(
    config: DictConfig, model: FCN | Exported, data: SegmentationData, devices: Sequence[str]
) -> Generator[Any, None, None]:
    """What is scored of each batch, and then what is drawn from each, by one process or by one for each device."""
    if len(devices) > 1:
        yield from on_devices(devices, partial(_share, config), data.validation_batches())
        return
    yield from score_batches(model, data.validation_loader())
    if config.calibrate:
        yield from draw_batches(model, data.validation_loader())


def _share(config: DictConfig, device: str, batches: Sequence[tuple[int, range]], tell: Tell) -> None:
    """The part of one of several processes."""
    model = _model(config.checkpoint, config, device)
    data = build_data(config, train=False)
    data.setup("validate")
    loader = data.loader_of([indices for _, indices in batches])
    for (number, _), found in zip(batches, score_batches(model, loader), strict=True):
        tell(number, found)
    if config.calibrate:
        every = len(data.validation_batches())
        for (number, _), drawn in zip(batches, draw_batches(model, loader), strict=True):
            tell(every + number, drawn)


def _calibrated(images: Iterable[Drawn], folder: Path) -> dict[str, Any]:
    """Write calibration.json and reliability.png; what metrics.json is to have of it."""
    found = calibration_of(images)
    write_json(folder / "calibration.json", found.to_dict())
    save_reliability(found, folder / "reliability.png")
    print(
        f"temperature {found.temperature:.3f}: calibration error {found.ece_before:.2%} to {found.ece_after:.2%}, "
        f"log likelihood {-found.nll_before:.3f} to {-found.nll_after:.3f}, on images that it was not fitted on"
    )
    return {key: value for key, value in found.to_dict().items() if not key.startswith("bins")}


def _model(checkpoint: str, config: DictConfig, device: str) -> FCN | Exported:
    if not is_exported(checkpoint):
        model = from_pretrained(checkpoint).to(device)
        return optimise(model, str(config.precision), bool(config.compile))
    if config.compile or config.precision != "32-true":
        raise InputError(f"precision={config.precision}: {checkpoint} is as it was exported")
    return load_exported(checkpoint, device)


def _require_classes(checkpoint: str, spec: ModelSpec, data: LabelSpace) -> None:
    """Refuse a model whose classes are not the data's: by their names, or by their number where it tells no names."""
    named, wanted = tuple((spec.label_space or {}).get("classes", ())), ", ".join(data.classes)
    if named and named != data.classes:
        raise InputError(f"{checkpoint}: predicts {', '.join(named)}; the data has {wanted}")
    if spec.num_classes != data.num_classes:
        raise InputError(
            f"{checkpoint}: predicts {spec.num_classes} classes; the data has {data.num_classes}: {wanted}"
        )
