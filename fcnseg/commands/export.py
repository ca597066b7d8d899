"""`fcnseg export`: a network as a file for another runtime, proved before it is called done."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.table import Table

from fcnseg.atomic import replacing
from fcnseg.commands.common import require_value, require_writable, unwritable
from fcnseg.data import SegmentationData, SegmentationDataset
from fcnseg.data.resizing import framed_image
from fcnseg.errors import InputError
from fcnseg.export import FORMATS, Proof, Recipe, export, prove
from fcnseg.export.making import Calibration, require_fitting
from fcnseg.export.picture import side_by_side
from fcnseg.export.proof import AGREEMENT, name_of_refused, stand_ins
from fcnseg.export.triton import config_text
from fcnseg.inference.exported import load_exported
from fcnseg.models import FCN, from_pretrained
from fcnseg.models.sharded import is_sharded, read_checkpoint
from fcnseg.runs.building import build_data, resize_as
from fcnseg.training.checkpoints import write

OTHERS = "triton", "checkpoint"
"""Formats that are more, or less, than the network in one file."""

PICTURED = 2
"""Images that are shown beside each other."""

ELSEWHERE = {
    "tensorrt": "build it from ONNX on the machine with the GPU: trtexec --onnx=model.onnx "
    "--minShapes=images:1x3x64x64 --optShapes=images:1x3x480x640 --maxShapes=images:8x3x1080x1920 "
    "--saveEngine=model.plan",
    "coreml": "left out: Core ML's converter reads no ONNX any more, and its files run on Apple's machines alone",
}
"""Formats that are asked for and not made here, and what there is instead."""


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    output = Path(require_value(config, "output", "model.onnx"))
    if config.format == "checkpoint":
        write_plain(Path(checkpoint), output)
        return
    recipe = recipe_of(config)
    triton = config.format == "triton"
    if not triton:
        require_fitting(recipe, output, config.get("data") is not None)
    require_writable(output if triton else output.parent)
    model = from_pretrained(checkpoint).eval()
    data = data_of(config, model)
    try:
        if triton:
            proof = write_repository(model, recipe, output, data, config)
        else:
            proof = write_proved(model, recipe, output, data, config)
    except OSError as error:
        raise unwritable(output, error) from error
    print(f"{output}  {size_of(output)}")
    if proof.mean_iou is not None:
        print(f"mean IoU  {proof.mean_iou[0]:.4f} in PyTorch, {proof.mean_iou[1]:.4f} exported")


def write_plain(checkpoint: Path, output: Path) -> None:
    """Make one plain file of a sharded checkpoint, that of any training: with the optimiser's state, to go on from.

    Raises:
        InputError: when it is none, or the file cannot be written.
    """
    if not is_sharded(checkpoint):
        raise InputError(f"checkpoint={checkpoint}: expected the folder of a sharded checkpoint for format=checkpoint")
    if output.suffix != ".ckpt" or output.is_dir():
        raise InputError(f"output={output}: expected a file, such as model.ckpt")
    require_writable(output.parent)
    try:
        with replacing(output, durable=True) as temporary:
            write(read_checkpoint(checkpoint), temporary)
    except OSError as error:
        raise unwritable(output, error) from error
    print(f"{output}  {size_of(output)}")


def recipe_of(config: DictConfig) -> Recipe:
    """
    Raises:
        InputError: for what is not made here, saying what there is instead.
    """
    name = str(config.format)
    if name == "tensorrt" and (find_spec("tensorrt") is None or not torch.cuda.is_available()):
        missing = "a GPU" if not torch.cuda.is_available() else "the package tensorrt"
        raise InputError(f"format=tensorrt: {missing} is missing; {ELSEWHERE[name]}")
    if name in ELSEWHERE:
        raise InputError(f"format={name}: {ELSEWHERE[name]}")
    if name not in (*FORMATS, *OTHERS):
        raise InputError(f"format={name}: expected one of {', '.join((*FORMATS, *OTHERS))}")
    kind = "onnx" if name == "triton" else name
    size = tuple(config.size) if config.size is not None else None
    return Recipe(kind, str(config.precision), bool(config.normalise), bool(config.argmax), size)


def data_of(config: DictConfig, model: FCN) -> SegmentationData | None:
    """What images are calibrated and compared with; None where none was named."""
    if config.get("data") is None:
        return None
    resize_as(config, model.spec)
    with open_dict(config):
        config.data.augment = None
    data = build_data(config)
    data.setup("validate")
    return data


def write_proved(model: FCN, recipe: Recipe, output: Path, data: SegmentationData | None, config: DictConfig) -> Proof:
    """Write the file, compare it with the network, and put it in its place.

    Raises:
        InputError: when it does not hold; it is kept under another name.
    """
    least = AGREEMENT[recipe.precision] if config.agreement is None else float(config.agreement)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        made = Path(folder) / output.name
        images = (
            calibration(model, recipe, data, int(config.calibration_images)) if recipe.precision == "int8" else None
        )
        export(model, recipe, made, images)
        real = stand_ins(model.spec) if data is None else spread_images(data.val)
        exported = load_exported(made)
        proof = prove(exported, model, real, least, None if data is None else data.validation_loader())
        print_proof(proof, recipe)
        picture = side_by_side(exported, model, real[:: -(-len(real) // PICTURED)])
        target = output if proof.holds else name_of_refused(output)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == output.suffix):
            path.replace(target.with_suffix(path.suffix))
        with replacing(target.with_name(f"{target.name}.json")) as temporary:
            temporary.write_text(json.dumps(proof.to_dict(), indent=2))
        with replacing(target.with_name(f"{target.name}.png")) as temporary:
            picture.save(temporary, format="PNG")
    if not proof.holds:
        worst = min(each.agreement for each in proof.sizes)
        raise InputError(
            f"output={output}: {worst:.2%} of the pixels keep their class, less than agreement={least}; "
            f"kept as {target}"
        )
    return proof


def spread_images(dataset: SegmentationDataset, count: int = 6) -> list[np.ndarray]:
    """Some images from all over a dataset: neighbours in a video are much alike."""
    count = min(count, len(dataset))
    return [dataset[i * len(dataset) // count][0] for i in range(count)]


def calibration(model: FCN, recipe: Recipe, data: SegmentationData | None, count: int) -> Calibration | None:
    """Images of the training data as the exported network takes them; None without data."""
    if data is None:
        return None
    datasets = list(data.train.values()) or [data.val]

    def images() -> Iterator[np.ndarray]:
        every = ((dataset, index) for index in range(max(map(len, datasets))) for dataset in datasets)
        spread = max(sum(map(len, datasets)) // count, 1)
        for dataset, index in islice(every, 0, count * spread, spread):
            pixels = framed_image(dataset[index % len(dataset)][0], model.spec.input_size, model.spec.resize)
            batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float()
            yield (batch if recipe.normalise else model.normalise(batch)).numpy()

    return images


def write_repository(
    model: FCN, recipe: Recipe, output: Path, data: SegmentationData | None, config: DictConfig
) -> Proof:
    """OUTPUT/NAME/1/model.onnx and OUTPUT/NAME/config.pbtxt; the former last, without which Triton loads nothing."""
    folder = output / model.spec.name
    proof = write_proved(model, recipe, folder / "1" / "model.onnx", data, config)
    with replacing(folder / "config.pbtxt") as temporary:
        temporary.write_text(config_text(folder / "1" / "model.onnx", model.spec.name))
    return proof


def print_proof(proof: Proof, recipe: Recipe) -> None:
    table = Table(title=f"{recipe.format}, {recipe.precision}, against PyTorch in 32-true")
    for name in ("size", "pixels of the same class", "largest difference of logits"):
        table.add_column(name, justify="right")
    for each in proof.sizes:
        difference = "" if each.difference is None else f"{each.difference:.1e} of the largest"
        table.add_row(f"{each.size[0]}x{each.size[1]}", f"{each.agreement:.4%}", difference)
    Console().print(table)


def size_of(output: Path) -> str:
    files = [output, output.with_suffix(".bin")] if output.suffix == ".xml" else [output]
    files = [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else files
    return f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB"
