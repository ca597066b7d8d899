"""Every format, run by its own runtime, against the network in PyTorch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from fcnseg.data import STREET11, CityScenes
from fcnseg.errors import InputError
from fcnseg.export import Recipe, export, prove, quantising
from fcnseg.export.graph import Graph
from fcnseg.export.making import ONE_SIZE
from fcnseg.export.proof import stand_ins
from fcnseg.export.triton import config_text
from fcnseg.inference import Predictor
from fcnseg.inference.exported import load_exported
from fcnseg.models import FCN, ModelSpec, create_model

SIZES = [(150, 90), (97, 301), (129, 154)]
"""The last of these are covered only by roundings that ONNX and Python carry out differently."""

HERE = Path(__file__).parents[2]
README = HERE / "README.md"


def network(name: str) -> FCN:
    torch.manual_seed(0)
    model = create_model(name, num_classes=11, width=0.1, input_size=(96, 128), label_space=STREET11.to_dict())
    for key, layer in model.named_children():
        if key.startswith("score_"):
            torch.nn.init.normal_(layer.weight)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "suffix", "name", "sizes"),
    [
        ("onnx", "onnx", "fcn16s_alexnet", [*SIZES, (33, 50), (1, 1)]),
        ("openvino", "xml", "fcn32s_alexnet", [*SIZES, (33, 50), (1, 1)]),
        ("torch_export", "pt2", "fcn8s_vgg16", SIZES),
        ("aoti", "pt2", "fcn4s_alexnet", [(96, 128)]),
        ("executorch", "pte", "fcn8s_alexnet", [(96, 128)]),
        ("litert", "tflite", "fcn8s_alexnet", [(96, 128)]),
    ],
)
def test_a_format(tmp_path: Path, format: str, suffix: str, name: str, sizes: list[tuple[int, int]]) -> None:
    """Its logits, its metadata, and what is said of a file that is damaged: one export serves for all.

    AlexNet's sizes are what is hardest to trace: in one format with a skip, and in others with what takes less.
    """
    model = network(name)
    path = tmp_path / f"model.{suffix}"
    left = {"model.xml", "model.bin"} if format == "openvino" else {path.name}
    if format == "litert":
        _converted_elsewhere(model, path, sizes[0])
        left |= {f"{path.name}.json", f"{path.name}.png"}
    else:
        export(model, Recipe(format, size=sizes[0] if format in ONE_SIZE else None), path)
    assert {each.name for each in tmp_path.iterdir()} == left
    exported = load_exported(path)
    assert exported.spec == model.spec
    assert exported.tiling() == (None if format in ONE_SIZE else model.tiling())
    for number, size in enumerate(sizes, start=1):
        images = torch.randint(256, (number, 3, *size), dtype=torch.uint8)
        with torch.inference_mode():
            expected = model.logits(images)
        torch.testing.assert_close(exported.logits(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    _predicts_the_same(model, path)
    assert prove(exported, model, stand_ins(model.spec), 0.9999).holds
    _damaged_files_are_one_line(path)
    if format == "onnx":
        _runs_without_torch(path, tmp_path)
        _is_served(path)
        _is_quantised(model, path)


def _converted_elsewhere(model: FCN, path: Path, size: tuple[int, int]) -> None:
    """By the command line, where litert-torch is installed."""
    subprocess.run(["make", ".litert/installed"], cwd=HERE, check=True, capture_output=True)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        command = [
            *(sys.executable, "-m", "fcnseg", "export", f"checkpoint={folder}", "format=litert"),
            *(f"size=[{size[0]},{size[1]}]", f"output={path}"),
        ]
        known = os.environ | {"PYTHONPATH": f"{HERE / '.litert'}"}
        done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _predicts_the_same(model: FCN, path: Path) -> None:
    image = CityScenes(1, 3, "real", size=(120, 200))[0][0]
    predictor = Predictor.from_pretrained(path)
    assert predictor.label_space.classes == STREET11.classes
    assert (predictor(image).mask == Predictor(model, device="cpu")(image).mask).mean() > 0.9999


def _damaged_files_are_one_line(path: Path) -> None:
    damaged = path.with_name(f"half{path.suffix}")
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(damaged))}: (cannot be read|was not written by)"
    ) as refused:
        load_exported(damaged)
    assert "\n" not in str(refused.value)


def _runs_without_torch(path: Path, folder: Path) -> None:
    """The script in the README, for a machine without PyTorch."""
    (script,) = re.findall(r"    import json\n(?:    .*\n|\n)+?    mask\.save.*\n", README.read_text())
    image = CityScenes(1, 3, "real", size=(96, 128))[0][0]
    Image.fromarray(image).save(folder / "photo.jpg", quality=100)
    (folder / "script.py").write_text(
        "import sys; sys.modules['torch'] = sys.modules['fcnseg'] = None\n"
        + "\n".join(line.removeprefix("    ") for line in script.splitlines())
    )
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True)
    expected = Predictor.from_pretrained(path)(folder / "photo.jpg").mask
    assert (np.asarray(Image.open(folder / "mask.png")) == expected).mean() > 0.999


def _is_served(path: Path) -> None:
    """By the words of protobuf's text format, which the fields are in."""
    text = config_text(path, "streets")
    assert text.splitlines()[:3] == ['name: "streets"', 'backend: "onnxruntime"', "max_batch_size: 16"]
    assert 'input [ { name: "images" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]' in text
    assert 'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 11, -1, -1 ] } ]' in text


def _is_quantised(model: FCN, path: Path) -> None:
    """Most weights in a byte, and most pixels of the same class."""
    before = path.stat().st_size
    facts = load_exported(path).facts
    images = (torch.from_numpy(image.transpose(2, 0, 1))[None].float().numpy() for image in stand_ins(model.spec))
    quantising.int8_onnx(path, images)
    content = onnx.load(path)
    if not content.metadata_props:
        content.metadata_props.add(key="fcnseg", value=json.dumps(facts))
        onnx.save(content, path)
    assert path.stat().st_size < before / 2.5
    proof = prove(load_exported(path), model, stand_ins(model.spec), 0.8)
    assert proof.holds, proof


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_what_is_inside_the_graph_is_a_choice(channel_order: str) -> None:
    model = create_model("fcn32s_alexnet", num_classes=4, width=0.05, channel_order=channel_order).eval()
    torch.nn.init.normal_(model.score_fr.weight)
    images = torch.randint(256, (2, 3, 90, 80)).float()
    with torch.inference_mode():
        expected = model.logits(images)
        torch.testing.assert_close(Graph(model, True, False)(images), expected)
        torch.testing.assert_close(Graph(model, False, False)(model.normalise(images)), expected)
        torch.testing.assert_close(Graph(model, True, True)(images), expected.argmax(1))


@pytest.mark.slow
def test_masks_and_normalised_images(tmp_path: Path) -> None:
    """The predictor normalises where the file does not, and takes masks as they are."""
    model = network("fcn32s_vgg16")
    export(model, Recipe("torch_export", normalise=False, argmax=True), tmp_path / "model.pt2")
    exported = load_exported(tmp_path / "model.pt2")
    assert exported.gives == "mask"
    image = CityScenes(1, 3, "real", size=(96, 128))[0][0]
    assert (Predictor(exported)(image).mask == Predictor(model, device="cpu")(image).mask).mean() > 0.999


def test_no_data_is_0_in_a_file_as_in_the_network(tmp_path: Path) -> None:
    """nan, and normalised values that are cut off."""
    options = {"mean": [5, 7], "std": [2, 3], "image_type": "float32", "clip": 1.5}
    model = create_model("fcn32s_vgg16", num_classes=3, in_channels=2, width=0.05, **options).eval()
    torch.nn.init.normal_(model.score_fr.weight)
    images = 6 + 4 * torch.randn(1, 2, 70, 80)
    images[..., :30] = torch.nan
    by_hand = ((images - torch.tensor([5, 7.0]).view(2, 1, 1)) / torch.tensor([2, 3.0]).view(2, 1, 1)).clamp(-1.5, 1.5)
    expected = model(by_hand.nan_to_num()).detach()
    export(model, Recipe("onnx"), tmp_path / "model.onnx")
    torch.testing.assert_close(load_exported(tmp_path / "model.onnx").logits(images), expected, rtol=1e-4, atol=1e-4)


def test_foreign_files_are_one_line(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "linear.pt2")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ])  # fmt: skip
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "relu.onnx")
    for name in ("linear.pt2", "relu.onnx"):
        with pytest.raises(InputError, match=f"{name}: was not written by fcnseg export"):
            load_exported(tmp_path / name)
    for suffix in ("onnx", "xml", "pt2", "pte", "tflite"):
        (tmp_path / f"text.{suffix}").write_text("no network")
        with pytest.raises(InputError, match=rf"text.{suffix}: cannot be read, it may be damaged") as refused:
            load_exported(tmp_path / f"text.{suffix}")
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"gone.onnx: no such file"):
        load_exported(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ({"format": "caffe"}, "format=caffe: expected one of onnx, openvino, torch_export, aoti, litert, executorch"),
        ({"format": "onnx", "precision": "bf16-mixed"}, "format=onnx, precision=bf16-mixed: expected one of 32-true"),
        ({"format": "aoti"}, "aoti, litert, executorch take images of one size"),
    ],
)
def test_what_is_not_made_is_refused(recipe: dict[str, str], line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        Recipe(**recipe)


def test_stand_ins_are_of_the_kind_that_the_network_takes() -> None:
    for channels, kind in ((1, "uint8"), (4, "uint16"), (2, "float32")):
        spec = ModelSpec("fcn32s_alexnet", 2, channels, image_type=kind, mean=[50] * channels, std=[20] * channels)
        for image in stand_ins(spec):
            assert (image.shape[2], image.dtype.name) == (channels, kind)
            assert image.std() > 1
