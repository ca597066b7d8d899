"""Making the file of each format."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import fcnseg
from fcnseg.errors import InputError
from fcnseg.export import mobile, quantising
from fcnseg.export.graph import Graph, example, round_down, traced
from fcnseg.inference.exported.network import IMAGES, KEY, LOGITS, MASK, VERSION, need
from fcnseg.inference.exported.programs import EXTRA
from fcnseg.models import FCN, optimise

OPSET = 20
"""Of ONNX."""

Calibration = Callable[[], Iterator[np.ndarray]]
"""Gives (1, C, h, w) float32 images as the exported network takes them, anew in each call."""


@dataclass(frozen=True)
class Recipe:
    """How a network is exported.

    Attributes:
        format: a name in `FORMATS`.
        precision: "32-true"; "bf16-mixed" or "16-mixed", in which convolutions are computed or weights are kept; or
            "int8", quantised after training with images to calibrate by.
        normalise: whether images go in with the values of their files; else normalised, see the spec.
        argmax: whether masks come out; else logits.
        size: (height, width) of all images, for the formats of `ONE_SIZE`, whose compilers take no open ones.

    Raises:
        InputError: for an unknown format, a precision that it does not have, or a size that it has no use for.
    """

    format: str
    precision: str = "32-true"
    normalise: bool = True
    argmax: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format={self.format}: expected one of {', '.join(FORMATS)}")
        known = PRECISIONS_OF[self.format]
        if self.precision not in known:
            raise InputError(f"format={self.format}, precision={self.precision}: expected one of {', '.join(known)}")
        if (self.format in ONE_SIZE) != (self.size is not None):
            fixed = f"{', '.join(ONE_SIZE)} take images of one size, others of any"
            raise InputError(f"format={self.format}, size={self.size}: {fixed}")


def export(model: FCN, recipe: Recipe, output: Path, calibration: Calibration | None = None) -> None:
    """Write a network's file.

    Args:
        model: any network; it stays as it is.
        recipe: what is written.
        output: the file, whose ending tells the format as well.
        calibration: images for int8.

    Raises:
        InputError: for another ending, a package that is missing, or int8 without images.
        OSError: when the file cannot be written; nothing is left under its name.
    """
    maker = FORMATS[recipe.format][0]
    require_fitting(recipe, output, calibration is not None)
    facts = json.dumps(facts_of(model, recipe))
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder, _quiet():
        made = Path(folder) / output.name
        maker(model, recipe, made, facts, calibration)
        companions = sorted(path for path in Path(folder).iterdir() if path.stem == made.stem and path != made)
        for path in (*companions, made):  # weights before the file that refers to them
            path.replace(output.with_suffix(path.suffix))


def require_fitting(recipe: Recipe, output: Path, calibrated: bool) -> None:
    """Refuse an ending of another format, and int8 without images.

    Raises:
        InputError: saying what is expected.
    """
    suffix = FORMATS[recipe.format][1]
    if output.suffix.lower() != suffix:
        raise InputError(f"output={output}: format={recipe.format} is written as {suffix}")
    if recipe.precision == "int8" and not calibrated:
        raise InputError("precision=int8: needs images to calibrate by; give data=NAME data.root=PATH")


def facts_of(model: FCN, recipe: Recipe) -> dict[str, Any]:
    """What the file tells of itself."""
    return {
        "format_version": VERSION,
        "library": "fcnseg",
        "fcnseg_version": fcnseg.__version__,
        "architecture": model.spec.to_dict(),
        "normalise": recipe.normalise,
        "argmax": recipe.argmax,
        "precision": recipe.precision,
        "tiling": None if recipe.size else model.tiling(),
        "size": recipe.size,
        "provenance": {key: value for key, value in model.provenance.items() if _is_json(value)},
    }


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def onnx(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    """Through torch's exporter; 16 bits and int8 by onnxruntime's tools."""
    package, *_ = [need(name) for name in ("onnx", "onnxscript", "onnxruntime")]
    program = traced(Graph(optimise(model), recipe.normalise, recipe.argmax))
    name = MASK if recipe.argmax else LOGITS
    made = torch.onnx.export(
        program, input_names=[IMAGES], output_names=[name], opset_version=OPSET, dynamo=True, verbose=False
    )
    assert made is not None
    content = made.model_proto
    round_down(content)
    package.save(content, path)
    if recipe.precision == "16-mixed":
        quantising.half_onnx(path)
    elif recipe.precision == "int8":
        assert calibration is not None
        quantising.int8_onnx(path, calibration())
    content = package.load(path)
    content.metadata_props.add(key=KEY, value=facts)
    package.save(content, path)


def openvino(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    """From the ONNX file, whose sizes are open; int8 by NNCF."""
    ov = need("openvino")
    source = path.with_name("source.onnx")
    plain = Recipe("onnx", "32-true", recipe.normalise, recipe.argmax)
    onnx(model, plain, source, facts, None)
    made = ov.convert_model(source)
    source.unlink()
    if recipe.precision == "int8":
        assert calibration is not None
        made = quantising.int8_openvino(made, calibration)
    made.set_rt_info(facts, [KEY])
    ov.save_model(made, path, compress_to_fp16=recipe.precision != "32-true")


def torch_export(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    program = traced(Graph(optimise(model, recipe.precision), recipe.normalise, recipe.argmax))
    torch.export.save(program, path, extra_files={EXTRA: facts})


def aoti(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    """Compiled for this machine's processor or GPU."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise InputError("format=aoti: needs a C++ compiler, g++ or clang++")
    program = traced(Graph(optimise(model, recipe.precision), recipe.normalise, recipe.argmax), recipe.size)
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs={"aot_inductor.metadata": {KEY: facts}}
    )


def executorch(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    graph = mobile.plainly_laid_out(Graph(optimise(model), recipe.normalise, recipe.argmax))
    mobile.write_executorch(traced(graph, recipe.size, 1), path, facts)


def litert(model: FCN, recipe: Recipe, path: Path, facts: str, calibration: Calibration | None) -> None:
    assert recipe.size is not None
    graph = mobile.plainly_laid_out(Graph(optimise(model), recipe.normalise, recipe.argmax))
    mobile.write_litert(graph, example(graph, recipe.size), path, facts)


Maker = Callable[[FCN, Recipe, Path, str, Calibration | None], None]

FORMATS: dict[str, tuple[Maker, str]] = {
    "onnx": (onnx, ".onnx"),
    "openvino": (openvino, ".xml"),
    "torch_export": (torch_export, ".pt2"),
    "aoti": (aoti, ".pt2"),
    "litert": (litert, ".tflite"),
    "executorch": (executorch, ".pte"),
}
"""By name, what makes a file, and its ending."""

PRECISIONS_OF: dict[str, Sequence[str]] = {
    "onnx": ("32-true", "16-mixed", "int8"),
    "openvino": ("32-true", "bf16-mixed", "16-mixed", "int8"),
    "torch_export": ("32-true", "bf16-mixed", "16-mixed"),
    "aoti": ("32-true", "bf16-mixed", "16-mixed"),
    "litert": ("32-true",),
    "executorch": ("32-true",),
}

ONE_SIZE = ("aoti", "litert", "executorch")
"""Formats of images of one size; the last two take them one by one."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
