"""Loading: what a training run or another program saved comes back as it was; any other file ends in one line."""

import json
import os
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.labels import STREET11, VOC21
from fcnseg.models import FCN, create_model, load_checkpoint
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.loading import from_pretrained
from fcnseg.models.upsampling import bilinear_kernel
from fcnseg.training import SegmentationModule
from tests.models.stored import assert_equal, assert_refused, checkpoint, edit, trained


@pytest.fixture
def net() -> FCN:
    """What the checkpoints here hold."""
    return trained(num_classes=3, label_space=None, mean=(1, 2, 3))


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def assert_no_checkpoint(path: Path, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message


def test_round_trip_gives_equal_logits(net: FCN, tmp_path: Path) -> None:
    again = load_checkpoint(saved(tmp_path / "last.ckpt", checkpoint(net)))
    assert again.spec == net.spec
    assert not again.training
    images = torch.rand(1, 3, 45, 50) * 255
    with torch.inference_mode():
        expected = net(net.normalise(images))
        assert expected.std() > 0
        torch.testing.assert_close(again(again.normalise(images)), expected, rtol=0, atol=0)


def test_provenance_comes_back(net: FCN, tmp_path: Path) -> None:
    told = {"training_data": {"real": 367}, "metrics": {"mean_iou": 0.5, "step": 10}}
    path = saved(tmp_path / "last.ckpt", checkpoint(net) | {"provenance": told})
    assert load_checkpoint(path).provenance == told
    assert load_checkpoint(saved(path, checkpoint(net))).provenance == {}
    for odd in ({"metrics": {"mean_iou": torch.ones(1)}}, {"metrics": float("nan")}, ["words"]):
        assert_no_checkpoint(saved(path, checkpoint(net) | {"provenance": odd}), "not an fcnseg checkpoint, or damaged")


def test_a_checkpoint_goes_wherever_a_folder_goes(net: FCN, tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt", checkpoint(net) | {"provenance": {"metrics": {"mean_iou": 0.5}}})
    from_pretrained(path).save_pretrained(tmp_path / "folder")
    again = from_pretrained(tmp_path / "folder")
    assert again.spec == net.spec
    assert again.provenance == {"metrics": {"mean_iou": 0.5}}
    assert all(torch.equal(again.state_dict()[key], values) for key, values in net.state_dict().items())


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_real_run_tells_its_data_and_scores(tmp_path: Path, sanity: int) -> None:
    """Scores of the last validation with its own step, and never those of Lightning's check before training."""
    scenes = CityScenes(4, seed=1, look="real", size=(40, 56))
    data = SegmentationData({"real": scenes}, scenes, size=(32, 48), batch_size=2, num_workers=0, cache="ram")
    net = create_model("fcn32s_alexnet", num_classes=11, width=0.02, label_space=STREET11.to_dict())
    net.provenance = {"weights_source": "old.caffemodel", "metrics": {"mean_iou": 1.0}}
    module = SegmentationModule(net, training_data={"real": "4 scenes"})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=sanity,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)],
    )
    trainer.fit(module, data)
    first, last = (load_checkpoint(tmp_path / f"epoch={i}.ckpt").provenance for i in (0, 2))
    assert first == {"training_data": {"real": "4 scenes"}, "weights_source": "old.caffemodel"}
    metrics = last["metrics"]
    assert (metrics["step"], metrics["epoch"]) == (4, 1)
    assert metrics["mean_iou"] == module.last_scores.mean_iou
    assert metrics["classes"]["sky"]["pixels"] == sum(int((scenes[i][1] == 0).sum()) for i in range(4))
    load_checkpoint(tmp_path / "epoch=2.ckpt").save_pretrained(tmp_path / "folder")
    assert f"| mean iou | {metrics['mean_iou']:.3f} |" in (tmp_path / "folder" / "README.md").read_text()


def test_path_may_be_a_string(net: FCN, tmp_path: Path) -> None:
    assert load_checkpoint(str(saved(tmp_path / "last.ckpt", checkpoint(net)))).spec == net.spec


def test_missing_file(tmp_path: Path) -> None:
    assert_no_checkpoint(tmp_path / "nowhere.ckpt", "no such checkpoint")
    assert_no_checkpoint(tmp_path, "no such checkpoint")


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.05, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_file(net: FCN, tmp_path: Path, fraction: float, zipped: bool) -> None:
    path = tmp_path / "cut.ckpt"
    torch.save(checkpoint(net), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    assert_no_checkpoint(path, "not an fcnseg checkpoint, or damaged")


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(7, 256)) * 9,
        random.Random(0).randbytes(4096),
        b"a text file\nof two lines\n",
        b"PK\x03\x04 no archive",
        b"\x80\x02.",
    ],
    ids=["bytes", "random", "text", "zip magic", "pickle magic"],
)
def test_foreign_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "foreign.ckpt").write_bytes(data)
    assert_no_checkpoint(tmp_path / "foreign.ckpt", "not an fcnseg checkpoint, or damaged")


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3),
        [1, 2],
        {"conv1.weight": torch.ones(3)},
        {"state_dict": {"model.fc6.weight": torch.ones(1)}},
        {"state_dict": {}, "hyper_parameters": {"lr": 0.1}},
        {"state_dict": {}, "hyper_parameters": {"spec": "fcn8s_vgg16"}},
        {"state_dict": [1], "hyper_parameters": {"spec": {}}},
        {"state_dict": {1: 2}, "hyper_parameters": {"spec": {}}},
    ],
    ids=["tensor", "list", "weights alone", "no spec", "other spec", "spec no record", "list of weights", "odd keys"],
)
def test_checkpoint_of_something_else(tmp_path: Path, value: object) -> None:
    assert_no_checkpoint(saved(tmp_path / "other.ckpt", value), "not an fcnseg checkpoint")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"name": "fcn64s_vgg16"}, "unknown model 'fcn64s_vgg16'"),
        ({"name": None}, "describes no model"),
        ({"colour": "red"}, "colour"),
        ({"padding": "valid"}, "padding 'valid'"),
        ({"width": "wide"}, "describes no model"),
        ({"mean": [1.0]}, "expected 3 values"),
        ({"input_size": [3]}, "describes no model"),
        ({"width": 40}, "width=40: expected positive numbers up to 16"),
        ({"num_classes": 10**7}, "num_classes=10000000: expected 1 to 255"),
        ({"in_channels": 10**9}, "in_channels=1000000000: expected 1 to 4096"),
        ({"fc_channels": 10**9}, "fc_channels=1000000000: expected 1 to 65536"),
        ({"fc6_rank": True}, "fc6_rank=True: expected 1 to 65536"),
        ({"input_size": [10**9, 1]}, r"input_size=\[1000000000, 1\]: expected a height and a width of 1 to 65536"),
        ({"mean": "abc"}, "mean='abc': expected numbers"),
        ({"std": [1.0, 1.0, 10**400]}, "expected numbers"),
        ({"clip": "x"}, "clip='x': expected a number above 0"),
        ({"scaling": 5}, "scaling=5: expected a text"),
        ({"label_space": [1]}, r"label_space=\[1\]: expected one as LabelSpace"),
        ({"label_space": {"name": "x"}}, "spec: no label space; expected name, classes, palette"),
        ({"weights": "https://example.com/net.pth"}, "unknown key 'weights'"),
        ({"label_space": STREET11.to_dict()}, "its label space has 11 classes"),
    ],
)
def test_spec_that_describes_no_model(net: FCN, tmp_path: Path, spec: dict, reason: str) -> None:
    assert_no_checkpoint(saved(tmp_path / "spec.ckpt", checkpoint(net, **spec)), reason)


def test_spec_without_a_name(tmp_path: Path) -> None:
    value = {"state_dict": {}, "hyper_parameters": {"spec": {"num_classes": 3}}}
    assert_no_checkpoint(saved(tmp_path / "spec.ckpt", value), "name")


@pytest.mark.parametrize("spec", [{"width": 0.25}, {"num_classes": 5}, {"in_channels": 1, "mean": [0], "std": [1]}])
def test_weights_that_do_not_fit_the_spec(net: FCN, tmp_path: Path, spec: dict) -> None:
    assert_no_checkpoint(
        saved(tmp_path / "misfit.ckpt", checkpoint(net, **spec)), r"weights do not fit fcn8s_vgg16_bn \(size mismatch"
    )


def test_missing_and_odd_weights(net: FCN, tmp_path: Path) -> None:
    value = checkpoint(net)
    del value["state_dict"]["model.fc7.weight"]
    assert_no_checkpoint(saved(tmp_path / "missing.ckpt", value), r"weights do not fit .*fc7\.weight")
    value["state_dict"]["model.fc7.weight"] = torch.full_like(net.fc7.weight, torch.nan)
    assert_no_checkpoint(saved(tmp_path / "diverged.ckpt", value), r"fc7\.weight has values that are not finite")
    value["state_dict"]["model.fc7.weight"] = torch.zeros_like(net.fc7.weight).to_sparse()
    assert_no_checkpoint(saved(tmp_path / "sparse.ckpt", value), "it calls torch.serialization._get_layout")
    value["state_dict"]["model.fc7.weight"] = "words"
    assert_no_checkpoint(saved(tmp_path / "odd.ckpt", value), "weights do not fit")


class Bomb:
    """Runs a shell command in whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("where", ["alone", "in the spec", "in the weights", "beside them"])
@pytest.mark.parametrize("archive", [True, False], ids=["torch", "pickle"])
def test_code_in_a_file_is_not_executed(net: FCN, tmp_path: Path, where: str, archive: bool) -> None:
    marker, path = tmp_path / "executed", tmp_path / "malicious.ckpt"
    bomb = Bomb(marker)
    value: Any = checkpoint(net)
    if where == "in the spec":
        value["hyper_parameters"]["spec"]["label_space"] = bomb
    elif where == "in the weights":
        value["state_dict"]["model.fc7.weight"] = bomb
    else:
        value = bomb if where == "alone" else value | {"epoch": bomb}
    if archive:
        torch.save(value, path)
    else:
        path.write_bytes(pickle.dumps(value, protocol=2))

    assert_no_checkpoint(path, "not an fcnseg checkpoint, or damaged")
    assert not marker.exists()

    torch.load(path, weights_only=False) if archive else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was armed


# Files of other programs


def layers(model: FCN) -> dict[str, torch.Tensor]:
    """A model's tensors under the names that Caffe and pytorch-fcn have for them."""
    return {name.removeprefix("backbone."): values for name, values in model.state_dict().items()}


def pytorch_fcn(model: FCN, path: Path) -> Path:
    names = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    classes = model.spec.num_classes
    upsampling = {
        f"{name}.weight": torch.eye(classes)[:, :, None, None] * bilinear_kernel(size) for name, size in names.items()
    }
    torch.save(layers(model) | upsampling, path)
    return path


def caffe(model: FCN, path: Path) -> Path:
    net = NetParameter()
    for name, values in layers(model).items():
        if name.endswith(".weight"):
            layer = net.layer.add(name=name.removesuffix(".weight").encode())
        blob = layer.blobs.add(data=[values.numpy().astype("<f4").tobytes()])
        blob.shape.dim.extend(values.shape)
    path.write_bytes(net.SerializeToString())
    return path


@pytest.mark.parametrize(("write", "file"), [(pytorch_fcn, "fcn8s.pth"), (caffe, "fcn8s-heavy-pascal.caffemodel")])
def test_networks_of_other_programs(tmp_path: Path, write: Any, file: str) -> None:
    bgr = {"mean": (104.00699, 116.66876, 122.67892), "std": (1, 1, 1), "channel_order": "bgr"}
    model = trained(
        "fcn8s_vgg16",
        num_classes=21,
        width=0.125,
        padding="caffe",
        label_space=VOC21.to_dict(),
        input_size=None,
        **bgr,
    )
    again = from_pretrained(write(model, tmp_path / file))
    assert_equal(again, model)
    assert again.provenance == {"weights_source": file}
    again.save_pretrained(tmp_path / "ours")
    assert_equal(from_pretrained(tmp_path / "ours"), model)


@pytest.mark.parametrize("file", ["a.pth", "b.caffemodel", "c.ckpt", "d.txt", "README.md"])
def test_a_file_of_something_else(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("words\n")
    assert_refused(tmp_path / file, str(tmp_path / file))


# Folders that do not load


@pytest.mark.parametrize("fraction", [0.0, 0.0005, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_truncated_file_in_a_folder(folder: Path, name: str, fraction: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(fraction * len(data))])
    assert_refused(folder, str(folder / name), "or damaged")


@pytest.mark.parametrize(
    "data", [b"a text file\n", bytes(range(256)) * 9, b"[" * 100_000, b"\xff\xfe{", b"1" * 9999], ids=range(5)
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_foreign_file_in_a_folder(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    assert_refused(folder, str(folder / name), "or damaged")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_in_a_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert_refused(folder, str(folder / name), "no such file")
    (folder / name).mkdir()
    assert_refused(folder, str(folder / name))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"library": "transformers"}, "not of an fcnseg model"),
        ({"library": None}, "not of an fcnseg model"),
        ({"architecture": None}, "architecture is missing"),
        ({"fcnseg_version": None}, "fcnseg_version is missing"),
        ({"architecture": "fcn8s"}, "architecture is a str; expected a dict"),
        ({"metrics": [1]}, "metrics is a list; expected a dict"),
        ({"colour": 3}, "'colour' is unknown here"),
    ],
)
def test_config_of_something_else(folder: Path, changes: dict, expected: str) -> None:
    edit(folder / "config.json", **changes)
    assert_refused(folder, str(folder / "config.json"), expected)


def test_config_that_is_no_record(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")
    assert_refused(folder, str(folder / "config.json"), "not of an fcnseg model")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "fcn64s_vgg16"}, "unknown model 'fcn64s_vgg16'"),
        ({"name": 3}, "describes no model"),
        ({"name": None}, "name is missing"),
        ({"num_classes": None}, "num_classes is missing"),
        ({"num_classes": 2.5}, "describes no model"),
        ({"num_classes": 3}, "its label space has 11 classes"),
        ({"width": float("inf")}, "describes no model"),
        ({"label_space": {"classes": 3}}, "describes no model"),
        ({"label_space": STREET11.to_dict() | {"palette": [[0, 0, 300]] * 11}}, "colour (0, 0, 300)"),
    ],
)
def test_architecture_that_describes_no_model(folder: Path, changes: dict, expected: str) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architecture"] | changes
    edit(folder / "config.json", architecture={k: v for k, v in architecture.items() if v is not None})
    assert_refused(folder, str(folder / "config.json"), expected)


def test_architecture_of_a_newer_version(folder: Path) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architecture"] | {"attention": True}
    edit(folder / "config.json", architecture=architecture, fcnseg_version="9.1")
    assert_refused(folder, f"'attention' is unknown here (this is fcnseg {fcnseg.__version__}, the file by fcnseg 9.1)")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("fc7.weight", None, "fc7.weight missing"),
        ("fc9.weight", torch.ones(1), "fc9.weight unknown"),
        ("fc7.bias", torch.ones(3), "size mismatch for fc7.bias: (3,), expected ("),
        ("fc7.bias", torch.tensor(float("nan")), "fc7.bias has values that are not finite"),
        ("fc7.bias", torch.tensor(-torch.inf), "fc7.bias has values that are not finite"),
        ("fc7.bias", torch.tensor(1), "fc7.bias is torch.int64, expected torch.float32"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, key: str, value: torch.Tensor | None, expected: str) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    if value is not None and value.ndim == 0:
        value = value.expand(state[key].shape).contiguous()
    state = {k: v for k, v in (state | {key: value}).items() if v is not None}
    path.write_bytes(safetensors.torch.save(state))
    assert_refused(folder, str(path), expected)


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "runs/last.ckpt", "/nowhere/at/all", "x.caffemodel", "a b/c"])
def test_what_is_neither_a_path_nor_a_name_is_refused_at_once(tmp_path: Path, source: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(source, f"{source}: no such file or folder, and no name on the Hub")


# Nothing but the file itself


@pytest.fixture
def seen() -> Iterator[list[str]]:
    """The files that Python opens from here on, and its ways to the network."""
    events: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        if watching and (event == "open" or event.startswith(("socket.", "urllib."))):
            events.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    yield events
    watching = False  # an audit hook cannot be taken away


@pytest.mark.parametrize("weights", ["imagenet", "demo", "fitting.pth"])
@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_weights_that_a_spec_names_are_neither_opened_nor_downloaded(
    net: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[str], kind: str, weights: str
) -> None:
    """`create_model` takes weights by name or path; a spec does not, or a file could make us read any other."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    named = str(saved(tmp_path / weights, net.state_dict())) if weights.endswith(".pth") else weights
    if kind == "checkpoint":
        path = saved(tmp_path / "last.ckpt", checkpoint(net, weights=named))
    else:
        path = tmp_path / "model"
        net.save_pretrained(path)
        edit(path / "config.json", architecture=net.spec.to_dict() | {"weights": named})
    seen.clear()
    assert_refused(path, str(path), "'weights'")
    own = {"last.ckpt"} if kind == "checkpoint" else {"config.json", "model.safetensors"}
    assert seen
    assert {Path(event.removeprefix("open ")).name for event in seen} <= own
