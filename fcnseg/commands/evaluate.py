"""`fcnseg evaluate`: score a model on a dataset."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from fcnseg.commands.common import require_value
from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import Protocol, evaluate, write_report
from fcnseg.evaluation.calibration import calibrate, save_reliability
from fcnseg.evaluation.report import write_json
from fcnseg.inference.device import default_device
from fcnseg.inference.exported import Exported, is_exported, load_exported
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, from_pretrained, optimise
from fcnseg.models.spec import ModelSpec
from fcnseg.runs.building import build_data, resize_as
from fcnseg.runs.folder import output_folder, relative


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    protocol: Protocol | None = instantiate(config.get("protocol"), _convert_="all")
    model = _model(checkpoint, config)
    resize_as(config, model.spec)
    data = build_data(config, train=False)
    _require_classes(checkpoint, model.spec, data.label_space)
    if protocol is not None:
        protocol.reported(data.label_space)  # refuses other classes before anything is computed
    for key, value in data.image_facts().items():
        if key not in ("mean", "std", "clip") and value != (expected := getattr(model.spec, key)):
            raise InputError(f"{checkpoint}: takes images with {key}={expected}; the data has {value}")
    data.setup("validate")
    folder = output_folder()
    evaluation = evaluate(model, data.validation_loader())
    facts: dict[str, Any] = {"checkpoint": checkpoint, "precision": str(config.precision)}
    if config.calibrate:
        facts |= {"calibration": _calibrated(model, data, folder)}
    write_report(evaluation, model, data, folder, facts, protocol=protocol)
    print(f"scores and pictures  {relative(folder)}")


def _calibrated(model: FCN | Exported, data: SegmentationData, folder: Path) -> dict[str, Any]:
    """Write calibration.json and reliability.png; what metrics.json is to have of it."""
    found = calibrate(model, data.validation_loader())
    write_json(folder / "calibration.json", found.to_dict())
    save_reliability(found, folder / "reliability.png")
    print(
        f"temperature {found.temperature:.3f}: calibration error {found.ece_before:.2%} to {found.ece_after:.2%}, "
        f"log likelihood {-found.nll_before:.3f} to {-found.nll_after:.3f}, on images that it was not fitted on"
    )
    return {key: value for key, value in found.to_dict().items() if not key.startswith("bins")}


def _model(checkpoint: str, config: DictConfig) -> FCN | Exported:
    if not is_exported(checkpoint):
        model = from_pretrained(checkpoint).to(default_device(config.device))
        return optimise(model, str(config.precision), bool(config.compile))
    if config.compile or config.precision != "32-true":
        raise InputError(f"precision={config.precision}: {checkpoint} is as it was exported")
    return load_exported(checkpoint, None if config.device == "auto" else config.device)


def _require_classes(checkpoint: str, spec: ModelSpec, data: LabelSpace) -> None:
    """Refuse a model whose classes are not the data's: by their names, or by their number where it tells no names."""
    named, wanted = tuple((spec.label_space or {}).get("classes", ())), ", ".join(data.classes)
    if named and named != data.classes:
        raise InputError(f"{checkpoint}: predicts {', '.join(named)}; the data has {wanted}")
    if spec.num_classes != data.num_classes:
        raise InputError(
            f"{checkpoint}: predicts {spec.num_classes} classes; the data has {data.num_classes}: {wanted}"
        )
