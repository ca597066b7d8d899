"""`fcnseg evaluate`: score a model on a dataset."""

from omegaconf import DictConfig, open_dict

from fcnseg.commands.common import require_value
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate, write_report
from fcnseg.inference.device import default_device
from fcnseg.models import from_pretrained
from fcnseg.runs.building import build_data
from fcnseg.runs.folder import output_folder, relative


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    model = from_pretrained(checkpoint).to(default_device(config.device))
    with open_dict(config):
        config.data.size = list(model.spec.input_size) if model.spec.input_size else None
    data = build_data(config, train=False)
    classes = tuple((model.spec.label_space or {}).get("classes", data.label_space.classes))
    if classes != data.label_space.classes:
        raise InputError(
            f"{checkpoint}: predicts {', '.join(classes)}; the data has {', '.join(data.label_space.classes)}"
        )
    for key, value in data.image_facts().items():
        if key not in ("mean", "std") and value != (expected := getattr(model.spec, key)):
            raise InputError(f"{checkpoint}: takes images with {key}={expected}; the data has {value}")
    data.setup("validate")
    folder = output_folder()
    evaluation = evaluate(model, data.validation_loader())
    write_report(evaluation, model, data, folder, {"checkpoint": checkpoint})
    print(f"scores and pictures  {relative(folder)}")
