"""The rungs of the speed ladder: what one may change, in one line each, and the trainings that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from fcnseg.errors import InputError
from fcnseg.models.backbones import scaled

REFERENCE = "reference"
"""The rung that all others are compared with."""


@dataclass(frozen=True)
class Settings:
    """What the networks of a ladder have in common.

    Attributes:
        trunk: of the networks that are not said to have another: vgg16_bn, vgg16, ...
        width: factor on channel counts.
        size: (height, width) of images, in pixels.
    """

    trunk: str = "vgg16_bn"
    width: float = 0.25
    size: tuple[int, int] = (180, 240)

    @property
    def units(self) -> int:
        """Of the narrower heads, and the rank of the factors: an eighth of fc6."""
        return scaled(512, self.width)

    @property
    def half(self) -> tuple[int, int]:
        return self.size[0] // 2, self.size[1] // 2


@dataclass(frozen=True)
class Rung:
    """One row of the ladder.

    Attributes:
        name: for --rows.
        advice: what somebody who asks how to go faster is told.
        override: the line that does it.
        training: in `trainings`, whose weights it takes; "" where it is not measured.
        form: how the network is computed: "plain", "optimised", "compiled", "onnx" or "openvino".
        precision: "32-true", "bf16-mixed"; or "int8" of an exported one.
        factors: of fc6, by the singular values of its "weights", or by its "responses" to training images.
        device: "cuda" where that is the point; elsewhere that of the study.
        kind: "network", "runtime" or "both": what is changed. For the plot.
        absent: why there can be no number, whatever the machine; "" where there can.
    """

    name: str
    advice: str
    override: str
    training: str = ""
    form: str = "optimised"
    precision: str = "32-true"
    factors: str = ""
    device: str = ""
    kind: str = "network"
    absent: str = ""

    @property
    def exported(self) -> bool:
        return self.form in ("onnx", "openvino")

    @property
    def weights(self) -> str:
        """The name of the weights that it takes: of a training, or of factors of one."""
        return f"{self.training}_{self.factors}" if self.factors else self.training

    def missing(self) -> str:
        """What this machine lacks for it; "" where nothing is missing."""
        if self.absent:
            return self.absent
        if self.device == "cuda" and not torch.cuda.is_available():
            return "needs a GPU"
        if self.exported:
            needed = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}[self.form]
            needed += ("nncf",) if self.precision == "int8" else ()
            if lacking := [name for name in needed if find_spec(name) is None]:
                return f"needs {', '.join(lacking)}: pip install 'fcnseg[export]'"
        return ""


def rungs(settings: Settings) -> list[Rung]:
    """All of them, in the order of the table."""
    fcn8s = f"model=fcn8s_{settings.trunk}"
    half, units = "[{},{}]".format(*settings.half), settings.units
    export = "fcnseg export checkpoint=PATH output=FILE"
    calibrated = "precision=int8 data=camvid data.root=PATH"
    return [
        Rung(REFERENCE, "the reference's padding by 100, all of it computed", "model.padding=caffe", "caffe", "plain"),
        Rung("reuse", "the same scores; what lies beyond images once for all", "nothing: predict, evaluate", "caffe"),
        Rung("same", "the least padding that aligns the skips", f"{fcn8s}, padding=same: the default", "same"),
        Rung("stem2", "larger strides: the first convolution's is 2", f"{fcn8s}_stem2", "stem2"),
        Rung("stem4", "larger strides: those of two convolutions are 2", f"{fcn8s}_stem4", "stem4"),
        Rung("alexnet32", "AlexNet", "model=fcn32s_alexnet", "alexnet32"),
        Rung("alexnet16", "AlexNet with one skip", "model=fcn16s_alexnet", "alexnet16"),
        Rung("alexnet8", "AlexNet with two skips", "model=fcn8s_alexnet", "alexnet8"),
        Rung("narrow", "a narrower head: an eighth of its channels", f"model.fc_channels={units}", "narrow"),
        Rung(
            "factors", "fc6 as two smaller convolutions, by its singular values",
            f"fcnseg.factorise(model, rank={units})", "same", factors="weights",
        ),
        Rung(
            "responses", "the same, by what fc6 says of the training images",
            f"fcnseg.factorise(model, rank={units}, spectrum=responses(model, batches))", "same", factors="responses",
        ),
        Rung(
            "alexnet8_responses", "AlexNet with two skips, fc6 as two convolutions",
            f"fcnseg.factorise(model, rank={units}, spectrum=responses(model, batches))", "alexnet8",
            factors="responses",
        ),
        Rung("half", "smaller images: half of the height and the width", f"data.size={half}", "half"),
        Rung("bf16", "16 bits", "precision=bf16-mixed", "same", precision="bf16-mixed", kind="runtime"),
        Rung("compiled", "torch.compile", "compile=true", "same", "compiled", kind="runtime"),
        Rung("onnx", "ONNX Runtime", f"{export} format=onnx", "same", "onnx", kind="runtime"),
        Rung("openvino", "OpenVINO", f"{export} format=openvino", "same", "openvino", kind="runtime"),
        Rung("int8", "OpenVINO in 8 bits", f"{export} format=openvino {calibrated}", "same", "openvino", "int8",
             kind="runtime"),
        Rung("stem2_int8", "larger strides, in 8 bits", f"{fcn8s}_stem2, then as int8", "stem2", "openvino", "int8",
             kind="both"),
        Rung("alexnet8_int8", "AlexNet with two skips, in 8 bits", "model=fcn8s_alexnet, then as int8", "alexnet8",
             "openvino", "int8", kind="both"),
        Rung("gpu", "a newer GPU", "device=cuda", "same", device="cuda", kind="runtime"),
        Rung("gpu_bf16", "a newer GPU, in 16 bits", "device=cuda precision=bf16-mixed", "same", precision="bf16-mixed",
             device="cuda", kind="runtime"),
        Rung("gpus", "several GPUs", "trainer=ddp", kind="runtime",
             absent="they share the images of a batch: training is faster, the time of one image stays"),
        Rung("tensorrt", "TensorRT", f"{export} format=onnx, then trtexec --onnx=FILE --fp16", kind="runtime",
             absent="not measured here: needs a GPU and TensorRT"),
    ]  # fmt: skip


def trainings(settings: Settings) -> dict[str, tuple[str, ...]]:
    """By name, the overrides of `fcnseg train experiment=speed_ladder` that make each network."""
    trunk = f"model=fcn8s_{settings.trunk}"
    own = {
        "caffe": (trunk, "model.padding=caffe"),
        "same": (trunk,),
        "stem2": (f"{trunk}_stem2",),
        "stem4": (f"{trunk}_stem4",),
        "alexnet32": ("model=fcn32s_alexnet",),
        "alexnet16": ("model=fcn16s_alexnet",),
        "alexnet8": ("model=fcn8s_alexnet",),
        "narrow": (trunk, f"model.fc_channels={settings.units}"),
        "half": (trunk,),
    }
    sizes = {name: settings.half if name == "half" else settings.size for name in own}
    width = f"model.width={settings.width:g}"
    return {name: (*words, width, "data.size=[{},{}]".format(*sizes[name])) for name, words in own.items()}


def chosen(settings: Settings, names: Sequence[str] | None) -> list[Rung]:
    """The rungs of these names in the table's order; without names all.

    Raises:
        InputError: for an unknown name.
    """
    every = rungs(settings)
    known = [rung.name for rung in every]
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"--rows {unknown[0]}: expected some of {', '.join(known)}")
    return [rung for rung in every if not names or rung.name in names]


def run_folder(output: Path, training: str, seed: int) -> Path:
    """Where a network is trained."""
    return output / "train" / training / f"seed_{seed}"


def checkpoint(output: Path, training: str, seed: int) -> Path:
    return run_folder(output, training, seed) / "checkpoints" / "last.ckpt"


def is_trained(output: Path, training: str, seed: int) -> bool:
    return (run_folder(output, training, seed) / "metrics.json").is_file()  # written last
